//! `margay explain`: the paths, the kernel route and the peers, with the reason at each step.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bgp_proto::policy::Source;
use bgp_proto::types::Prefix;

use super::configuration::attribute;
use super::routes::{as_path, communities, gateways};
use super::table::{Paint, clean, wrap};
use super::{Look, policy};
use crate::ctl::item::{
    Advertised, AsPathPart, ExplainedFib, ExplainedPeer, Explanation, KernelAnswer, Path, Withheld,
};

/// Maximum number of peer names on one line; JSON has them all.
const NAMES_MAX: usize = 12;
/// The column width of a line's label.
const LABEL_LEN: usize = 12;

/// The whole text; `asked` is the requested prefix.
pub(super) fn explanation(e: &Explanation, asked: Prefix, look: &Look) -> String {
    let mut text = Text { out: String::new(), look };
    let paths = match e.paths.len() {
        1 => "1 path".to_owned(),
        count => format!("{count} paths, best first"),
    };
    if e.prefix != asked {
        text.line(&format!("{asked} is reached by its longest match:"));
    }
    let title = text.paint(Paint::Strong, &e.prefix.to_string());
    let seen = e.vantage.as_ref().map(|at| format!(", as seen from {at}")).unwrap_or_default();
    text.raw(&format!("{title}: {paths}{}", clean(&seen)));
    for object in &e.objects {
        text.line(&format!("  {object}"));
    }
    for (index, path) in e.paths.iter().enumerate() {
        if let Some(before) = index.checked_sub(1).and_then(|at| e.paths.get(at)) {
            text.line(&format!("  {index} is before {} by: {}", index + 1, decided(before, path)));
        }
        text.path(index + 1, path);
    }
    text.kernel(e.fib.as_ref(), e.fib_absent.as_deref());
    e.kernel.iter().for_each(|answer| text.forwarding(answer));
    text.advertised(&e.advertised);
    text.withheld(&e.withheld);
    e.peer.iter().for_each(|peer| text.one_peer(peer));
    text.out
}

struct Text<'a> {
    out: String,
    look: &'a Look,
}

impl Text<'_> {
    fn paint(&self, paint: Paint, text: &str) -> String {
        if self.look.has_colour() { paint.on(text) } else { text.to_owned() }
    }

    /// Adds a line without replacing control characters.
    fn raw(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    /// Adds a line that may contain text from outside.
    fn line(&mut self, line: &str) {
        self.raw(&clean(line));
    }

    /// Adds a label and its value; on a terminal, the value is wrapped and stays indented.
    fn labelled(&mut self, indent: usize, label: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let value = clean(value);
        let before = indent + LABEL_LEN;
        let width =
            self.look.width.map_or(usize::MAX, |width| width.saturating_sub(before).max(20));
        for (at, line) in wrap(&value, width, usize::MAX).into_iter().enumerate() {
            let label = if at == 0 { label } else { "" };
            let _ = writeln!(self.out, "{:indent$}{label:<LABEL_LEN$}{line}", "");
        }
    }

    fn path(&mut self, number: usize, p: &Path) {
        let from = match (&p.peer, p.source) {
            (Some(peer), _) => match &p.bfd {
                Some(state) => format!("from {peer} (BFD {state})"),
                None => format!("from {peer}"),
            },
            (None, Source::Bgp) => "from a removed peer".to_owned(),
            (None, Source::Static) => "originated here".to_owned(),
            (None, Source::Announced) => "announced by margay announce".to_owned(),
            (None, Source::Kernel) => "learned from the kernel".to_owned(),
            (None, Source::Direct) => "a network of our own".to_owned(),
            (None, Source::Vrf) => match &p.vrf {
                Some(vrf) => format!("imported from VRF {vrf}"),
                None => "imported from another VRF".to_owned(),
            },
        };
        let (place, paint) = match (&p.unusable, p.best, p.multipath) {
            (Some(_), ..) => ("unusable", Paint::Bad),
            (None, true, _) => ("best", Paint::Good),
            (None, false, true) => ("used beside the best", Paint::Good),
            (None, false, false) => ("not used", Paint::Plain),
        };
        let why = p.unusable.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let stale = match (p.stale, p.long_lived) {
            (_, true) => ", kept although its peer did not return (long-lived stale)",
            (true, false) => ", kept while its peer restarts (stale)",
            (false, false) => "",
        };
        let place = self.paint(paint, place);
        self.raw(&format!("  {number}. {place}{}{stale}, {}", clean(&why), clean(&from)));
        const INDENT: usize = 5;
        self.labelled(INDENT, "next hop", &next_hop(p));
        let cost = p.vantage_cost.map(|cost| format!("cost {cost}"));
        let place: Vec<String> = p.vantage.clone().into_iter().chain(cost).collect();
        self.labelled(INDENT, "vantage", &place.join(", "));
        let is_learned = p.source == Source::Bgp && p.as_path.is_empty();
        let path = if is_learned { "empty".to_owned() } else { as_path(&p.as_path) };
        self.labelled(INDENT, "AS path", &path);
        let numbers = [("local pref", p.local_pref), ("MED", p.med)];
        let numbers = numbers.iter().filter_map(|(label, n)| n.map(|n| format!("{label} {n}")));
        let attributes: Vec<String> =
            std::iter::once(format!("origin {}", p.origin)).chain(numbers).collect();
        self.labelled(INDENT, "attributes", &attributes.join(", "));
        self.labelled(INDENT, "communities", &communities(p));
        self.labelled(INDENT, "originator", p.originator_id.as_deref().unwrap_or_default());
        self.labelled(INDENT, "clusters", &p.cluster_list.join(" "));
        self.labelled(INDENT, "import", p.import_rule.as_deref().unwrap_or_default());
        let label = if p.source == Source::Bgp { "received" } else { "since" };
        self.labelled(INDENT, label, &self.look.since_in_full(p.age_seconds));
    }

    fn kernel(&mut self, fib: Option<&ExplainedFib>, absent: Option<&str>) {
        let Some(f) = fib else {
            let why = absent.map(|why| format!(": {why}")).unwrap_or_default();
            self.labelled(0, "kernel", &format!("nothing{why}"));
            return;
        };
        let via = if f.gateways.is_empty() {
            String::new()
        } else {
            format!(" via {}", gateways(&f.gateways))
        };
        let place = match (f.table, f.metric) {
            (Some(table), Some(metric)) => format!(", table {table}, metric {metric}"),
            _ => String::new(),
        };
        let state = f.state.as_deref().unwrap_or("not written");
        let meaning = match state {
            "foreign" => " (another process's route is installed; ours follows when it is deleted)",
            "pending" => " (not written yet)",
            _ => "",
        };
        let error = f.error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
        self.labelled(0, "kernel", &format!("{state}{meaning}{error}: {}{via}{place}", f.kind));
    }

    /// What the kernel does, whoever's route that is.
    fn forwarding(&mut self, k: &KernelAnswer) {
        let said = match (k.prefix, &k.error) {
            (_, Some(error)) => format!("not known: {error}"),
            (None, None) => k.dropped_by().unwrap_or_else(|| format!("no route to {}", k.address)),
            (Some(prefix), None) => {
                let via = match (&k.gateways[..], k.object) {
                    ([], Some(object)) => format!(" via next-hop object {object}"),
                    ([], None) => String::new(),
                    (legs, _) => format!(" via {}", gateways(legs)),
                };
                let kind = match k.kind.as_deref() {
                    None | Some("unicast") => String::new(),
                    Some(kind) => format!("{kind} "),
                };
                let (table, metric) = (k.table.unwrap_or_default(), k.metric.unwrap_or_default());
                let owner = match (k.ours, k.protocol.as_deref()) {
                    (true, _) => "ours".to_owned(),
                    (false, owner) => {
                        format!("not ours, of {}", owner.unwrap_or("another process"))
                    }
                };
                format!(
                    "{} goes by {kind}{prefix}{via}, table {table}, metric {metric}: {owner}",
                    k.address
                )
            }
        };
        self.labelled(0, "forwarding", &said);
    }

    fn advertised(&mut self, advertised: &[Advertised]) {
        let mut by_hop: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for to in advertised {
            let id = to.path_id.map(|id| format!(" (path id {id})")).unwrap_or_default();
            by_hop.entry(to.next_hop).or_default().push(format!("{}{id}", to.peer));
        }
        if by_hop.is_empty() {
            self.labelled(0, "advertised", "to no peer");
        }
        for (hop, names) in by_hop {
            self.labelled(0, "advertised", &format!("to {} with next hop {hop}", listed(&names)));
        }
    }

    /// What one peer is sent.
    fn one_peer(&mut self, p: &ExplainedPeer) {
        self.line(&format!("to {}:", p.peer));
        for test in &p.policy {
            self.out.push_str(&policy::test(test));
        }
        for sent in &p.sent {
            let all: String = sent.attributes.iter().map(attribute).collect();
            self.labelled(2, "sent", all.trim_start());
            let changes: String = sent.changes.iter().map(attribute).collect();
            self.labelled(2, "changed", changes.trim_start());
        }
        if p.sent.is_empty() {
            self.labelled(2, "sent", "nothing");
        }
    }

    fn withheld(&mut self, withheld: &[Withheld]) {
        let mut by_rule: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for from in withheld {
            by_rule.entry(&from.rule).or_default().push(from.peer.clone());
        }
        for (rule, names) in by_rule {
            self.labelled(0, "withheld", &format!("from {}: {rule}", listed(&names)));
        }
    }
}

/// The first names, and the number of the others.
fn listed(names: &[String]) -> String {
    let shown = names.get(..NAMES_MAX).unwrap_or(names).join(", ");
    match names.len().checked_sub(NAMES_MAX) {
        Some(more) if more > 0 => format!("{shown} and {more} more (--json lists them)"),
        _ => shown,
    }
}

/// The next hop and what it resolves to.
fn next_hop(p: &Path) -> String {
    let Some(hop) = p.next_hop else {
        let ways = gateways(&p.gateway);
        return if p.gateway.is_empty() { String::new() } else { format!("none, out of {ways}") };
    };
    let by = p.resolved_by.as_ref().map(|by| format!(", by {}", clean(by))).unwrap_or_default();
    if p.gateway.is_empty() {
        return match p.unusable.as_deref() {
            Some("next hop unresolved") if by.is_empty() => {
                format!("{hop}, not resolved: no kernel route covers it, apart from margay's own")
            }
            Some(_) => format!("{hop}, not resolved{by}"),
            None => hop.to_string(),
        };
    }
    let metric = p.igp_metric.map(|metric| format!(", metric {metric}")).unwrap_or_default();
    format!("{hop}, resolved to {}{metric}{by}", gateways(&p.gateway))
}

/// Why `better` ranks before `worse`, with the values that were compared.
fn decided(better: &Path, worse: &Path) -> String {
    let values = |a: Option<u32>, b: Option<u32>, absent: u32| {
        format!("{} against {}", a.unwrap_or(absent), b.unwrap_or(absent))
    };
    match worse.reason.as_str() {
        "unusable" => "the other cannot be used".to_owned(),
        "long-lived-stale" => "the other is long-lived stale (RFC 9494)".to_owned(),
        "preference" => "higher preference of its source".to_owned(),
        "local-pref" => {
            format!("higher LOCAL_PREF, {}", values(better.local_pref, worse.local_pref, 100))
        }
        "local-origin" => "it is our own".to_owned(),
        "as-path-length" => {
            let (a, b) = (path_len(&better.as_path), path_len(&worse.as_path));
            format!("shorter AS_PATH, {a} against {b}")
        }
        "origin" => format!("lower ORIGIN, {} against {}", better.origin, worse.origin),
        "med" => format!("lower MED of one neighbouring AS, {}", values(better.med, worse.med, 0)),
        "peer-type" => "external over internal".to_owned(),
        "igp-metric" => format!(
            "lower metric to the next hop, {}",
            values(better.igp_metric, worse.igp_metric, 0)
        ),
        "vantage-cost" => format!(
            "lower cost from the vantage, {}",
            values(better.vantage_cost, worse.vantage_cost, 0)
        ),
        "router-id" => "lower BGP Identifier (or ORIGINATOR_ID)".to_owned(),
        "cluster-list-length" => format!(
            "shorter CLUSTER_LIST, {} against {}",
            better.cluster_list.len(),
            worse.cluster_list.len()
        ),
        "peer-address" => "lower address of the peer".to_owned(),
        "path-id" => format!("lower path id, {} against {}", better.path_id, worse.path_id),
        other => other.to_owned(),
    }
}

/// The length of an AS_PATH: a set counts as one (RFC 4271 §9.1.2.2 (a)).
fn path_len(parts: &[AsPathPart]) -> usize {
    parts.len()
}
