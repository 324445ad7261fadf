//! Prints a plan as text.

use std::io::Write;

use crate::calico::plan::{FamilyPlan, Plan, PlannedSession};

/// Prints a plan in human-readable form.
pub(super) fn write(plan: &Plan, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "node {}, Calico {}", plan.node, plan.release.version)?;
    if !plan.speaks_bgp {
        writeln!(out, "no BGP: CALICO_NETWORKING_BACKEND says so")?;
    }
    let families = [("ipv4", &plan.families.ipv4), ("ipv6", &plan.families.ipv6)];
    for (name, family) in families.into_iter().filter(|_| plan.speaks_bgp) {
        write_family(name, family, out)?;
    }
    match plan.problems.as_slice() {
        [] => writeln!(out, "no problems")?,
        _ => writeln!(out, "problems")?,
    }
    for problem in &plan.problems {
        writeln!(out, "  {}: {}", problem.object, problem.text)?;
    }
    if !plan.notes.is_empty() {
        writeln!(out, "notes")?;
    }
    for note in &plan.notes {
        writeln!(out, "  {}: {}", note.object, note.text)?;
    }
    Ok(())
}

fn write_family(name: &str, family: &FamilyPlan, out: &mut impl Write) -> std::io::Result<()> {
    let state = if family.enabled { "" } else { " (no address of this family: no sessions)" };
    let id = family.router_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    writeln!(out, "{name}{state}: AS {}, router id {id}, port {}", family.asn, family.listen.port)?;
    for session in family.sessions.iter() {
        write_session(session, out)?;
    }
    for route in &family.statics {
        match route.gateway {
            Some(gateway) => writeln!(out, "  static {} via {gateway}", route.prefix)?,
            None => writeln!(out, "  static {} blackhole", route.prefix)?,
        }
    }
    for block in &family.aggregates {
        writeln!(out, "  aggregate {block}")?;
    }
    for entry in &family.communities {
        writeln!(out, "  communities {} {}", entry.prefix, entry.communities.join(" "))?;
    }
    for prefix in &family.kernel_reject {
        writeln!(out, "  not to the kernel {prefix}")?;
    }
    for pool in &family.pools {
        let export = if pool.export { "announced" } else { "not announced" };
        let kernel = match serde_json::to_value(pool.kernel)? {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        writeln!(out, "  pool {} {export}, kernel {kernel}", pool.cidr)?;
    }
    Ok(())
}

fn write_session(planned: &PlannedSession, out: &mut impl Write) -> std::io::Result<()> {
    let session = &planned.session;
    let mut notes = vec![format!("from {}", session.object)];
    notes.push(if session.internal { "internal" } else { "external" }.to_owned());
    if session.passive {
        notes.push("passive".to_owned());
    }
    if session.route_reflector_client {
        notes.push("client".to_owned());
    }
    if let Some(password) = &session.password {
        let state = if password.found { "password" } else { "password missing: it does not run" };
        notes.push(state.to_owned());
    }
    if !session.filters.is_empty() {
        notes.push(format!("filters {}", session.filters.join(" ")));
    }
    if let Some(holder) = &planned.shadowed_by {
        notes.push(format!("waits for {holder}"));
    }
    writeln!(
        out,
        "  session {} {} port {} AS {}: {}",
        session.name,
        session.neighbor,
        session.port,
        session.remote_asn,
        notes.join(", ")
    )
}
