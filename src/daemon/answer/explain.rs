//! The output of `margay explain`: the table's decision with its reasons, and the kernel's route.

use std::net::IpAddr;

use bgp_proto::table::{Explanation, HELD_BACK, Table};
use bgp_proto::types::{Prefix, Source, Time};

use super::bfd::BfdView;
use super::forwarding::kernel_answer;
use super::policies;
use super::sources::Sources;
use crate::ctl::{self, Lookup, Page, Refusal};
use crate::daemon::registry::Record;
use crate::kernel::Link;

/// The result of looking up a prefix in the table.
enum Found {
    /// The destination, or with [`Lookup::Longest`] the one that covers it.
    Yes(Box<Explanation>),
    /// No destination; the one that covers it, if there is one and it was not asked for.
    No(Option<Prefix>),
}

/// Returns one page with everything about one destination.
pub(super) async fn explain(
    sources: &Sources,
    bfd: &BfdView,
    (prefix, lookup): (Prefix, Lookup),
    (vantage, vrf, peer): (Option<String>, Option<&str>, Option<&Record>),
) -> Result<Page, Refusal> {
    let place = vantage.clone();
    let find = move |table: &Table, now| {
        let place = place.as_deref();
        check_vantage(table, place)?;
        Ok(find(table, prefix, lookup, place, now))
    };
    let found = sources.ask(find).await??;
    let explanation = match found {
        Found::Yes(explanation) => explanation,
        Found::No(covering) => {
            let hint = match covering {
                Some(covering) => format!("; did you mean {covering}, which covers it?"),
                None => String::new(),
            };
            let said = objects(sources, prefix).map(|said| format!("; {said}"));
            let mut text =
                format!("there is no route to {prefix}{}{hint}", said.unwrap_or_default());
            if lookup == Lookup::Longest {
                let answer = kernel_answer(sources, prefix.addr(), vrf).await;
                if let (Some(used), Some(owner)) = (answer.prefix, &answer.protocol) {
                    let table = answer.table.unwrap_or_default();
                    text += &format!("; the kernel uses {used} of {owner}, table {table}, for it");
                }
                if let Some(dropped) = answer.dropped_by() {
                    text += &format!("; in the kernel, {dropped}");
                }
            }
            return Err(Refusal { kind: ctl::ErrorKind::NotFound, text });
        }
    };
    let mut item = ctl::explanation(&explanation, &sources.names());
    item.vantage = vantage;
    let links = sources.kernel.links();
    for path in &mut item.paths {
        let by = path.next_hop.and_then(|next_hop| sources.kernel.decided_by(next_hop));
        path.resolved_by = by.map(|by| by.to_string());
        if let (Some(next_hop), Some("next hop unresolved")) =
            (path.next_hop, path.unusable.as_deref())
            && let Some(link) = down_link(&links, next_hop)
        {
            let said = format!("{next_hop}: in the network of {link}, which is down");
            if !item.objects.contains(&said) {
                item.objects.push(said);
            }
        }
        let peer = path.peer.as_deref().and_then(|name| sources.registry.find(name));
        let beside = peer.filter(|record| record.bfd.is_some());
        path.bfd = beside.map(|record| bfd.state(record.id).to_string());
    }
    // Objects of the prefix that was asked for, and of the one that covers it.
    item.objects.extend(objects(sources, prefix).map(|said| format!("{prefix}: {said}")));
    if item.prefix != prefix {
        let covering = objects(sources, item.prefix);
        item.objects.extend(covering.map(|said| format!("{}: {said}", item.prefix)));
    }
    if let Some(held) = &sources.state().held_back {
        for withheld in item.withheld.iter_mut().filter(|withheld| withheld.rule == HELD_BACK) {
            withheld.rule = format!("{HELD_BACK} {held}");
        }
    }
    let announced = sources.announcements.get(vrf, item.prefix);
    item.objects.extend(announced.map(|entry| format!("{}: {}", item.prefix, entry.in_words())));
    match &mut item.fib {
        None => item.fib_absent = Some(why_absent(sources, &explanation).to_owned()),
        Some(fib) => {
            // The route as installed in the kernel.
            if let Some(kernel) = sources.kernel.lookup(item.prefix) {
                fib.state = serde_json::to_value(kernel.state)
                    .ok()
                    .and_then(|state| state.as_str().map(str::to_owned));
                (fib.metric, fib.table) = (Some(kernel.metric), Some(kernel.table));
                fib.error = kernel.error;
            }
        }
    }
    if let Some(record) = peer {
        item.peer = Some(policies::explain_peer(sources, item.prefix, record).await?);
    }
    if lookup == Lookup::Longest {
        item.kernel = Some(kernel_answer(sources, prefix.addr(), vrf).await);
    }
    Page::last([item])
}

/// What Calico's objects say about a prefix.
fn objects(sources: &Sources, prefix: Prefix) -> Option<String> {
    sources.state().node_status()?.reasons.get(&prefix).cloned()
}

/// The interface that is down and in whose network an address is.
fn down_link(links: &[Link], addr: IpAddr) -> Option<&str> {
    let has_it = |link: &&Link| {
        let mut networks = link.addresses.iter().map(|(own, len)| Prefix::new(*own, *len));
        networks.any(|network| network.contains_addr(addr))
    };
    let is_up = |link: &Link| link.up && link.running;
    let found = links.iter().filter(has_it);
    // On another interface in the same network it would be reached.
    found.clone().all(|link| !is_up(link)).then_some(())?;
    found.map(|link| link.name.as_str()).next()
}

/// Why no route to the destination is to be installed in the kernel.
fn why_absent(sources: &Sources, explanation: &Explanation) -> &'static str {
    let best = explanation.destination.paths.iter().find(|path| path.best);
    match best.map(|best| best.source) {
        None => "no path can be used",
        Some(_) if !sources.state().config.fib.enabled => {
            "routes are not written (fib.enabled = false)"
        }
        Some(Source::Kernel) => "the best path is the kernel's own route",
        Some(Source::Direct) => "the best path is a network of an interface of ours",
        Some(Source::Static) => "it is announced only, or left out by policy",
        Some(Source::Announced) => "it is announced only (margay announce)",
        Some(Source::Bgp) => "left out by policy",
        Some(Source::Vrf) => {
            "the VRF from which it is imported has no route in the kernel, or it is left out by policy"
        }
    }
}

/// Maximum number of vantages that are named where an unknown one was asked for.
const NAMED_MAX: usize = 20;

/// Whether a peer or a cost names the vantage.
fn check_vantage(table: &Table, vantage: Option<&str>) -> Result<(), Refusal> {
    let Some(vantage) = vantage else { return Ok(()) };
    if table.vantages().any(|name| **name == *vantage) {
        return Ok(());
    }
    let known: Vec<&str> = table.vantages().take(NAMED_MAX).map(|name| &**name).collect();
    let known = match known[..] {
        [] => "no peer has one".to_owned(),
        _ => format!("there are {}", known.join(", ")),
    };
    let text = format!("there is no vantage {vantage}; {known}");
    Err(Refusal { kind: ctl::ErrorKind::NotFound, text })
}

/// Finds the destination, or with [`Lookup::Longest`] the longest one that covers it.
fn find(table: &Table, prefix: Prefix, lookup: Lookup, vantage: Option<&str>, now: Time) -> Found {
    let explain = |prefix| {
        let found = match vantage {
            Some(vantage) => table.explain_from(vantage, prefix, now),
            None => table.explain(prefix, now),
        };
        found.filter(|found| !found.destination.paths.is_empty()).map(Box::new)
    };
    if let Some(found) = explain(prefix) {
        return Found::Yes(found);
    }
    let mut covering = (0..prefix.len()).rev().map(|len| Prefix::new(prefix.addr(), len));
    let found = covering.find_map(explain);
    match (lookup, found) {
        (Lookup::Longest, Some(found)) => Found::Yes(found),
        (_, found) => Found::No(found.map(|found| found.destination.prefix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::LinkTraits;

    #[test]
    fn a_next_hop_in_the_network_of_a_link_that_is_down_is_told() {
        let link = |name: &str, up: bool, address: &str| Link {
            index: 3,
            name: name.into(),
            up,
            running: up,
            traits: LinkTraits::default(),
            mtu: 1500,
            addresses: vec![(address.parse().unwrap(), 24)],
        };
        let at =
            |links: &[Link], addr: &str| down_link(links, addr.parse().unwrap()).map(str::to_owned);
        let mut links = vec![link("eth0", false, "192.0.2.1"), link("eth1", true, "198.51.100.1")];
        assert_eq!(at(&links, "192.0.2.9").as_deref(), Some("eth0"));
        assert_eq!(at(&links, "198.51.100.9"), None, "eth1 is up");
        assert_eq!(at(&links, "203.0.113.9"), None, "no network of ours");
        links.push(link("eth2", true, "192.0.2.2"));
        assert_eq!(at(&links, "192.0.2.9"), None, "eth2 has the same network");
    }
}
