//! This host: other BGP speakers, margay's permissions, and what drops BGP's packets.

use std::collections::BTreeSet;

use bgp_proto::types::Family;

use super::super::facts::{Facts, Host};
use super::super::finding::{Findings, Severity, Subject};
use super::super::firewall::{Shut, Traffic};
use super::super::machine::{CAP_NET_ADMIN, CAP_NET_BIND_SERVICE};
use super::super::processes::{Process, Role};
use super::plan_of;

/// The usage, in percent, from which conntrack's table is reported as full.
const CONNTRACK_FULL_PERCENT: u64 = 95;

pub(super) fn judge(facts: &Facts, out: &mut Findings) {
    let host = &facts.host;
    if let Err(why) = &facts.kernel {
        let text = format!("the kernel's routes cannot be read: {why}");
        let remedy = "run this where netlink may be used: calico-node's container, or as root";
        out.add(Severity::Unsafe, Subject::Host("routes".into()), "", text, remedy);
    }
    speakers(facts, out);
    capabilities(host, out);
    sysctls(facts, out);
    firewall(facts, out);
    files(facts, out);
    addresses(facts, out);
    if let Some((process, variables)) = &host.environment
        && !variables.is_empty()
    {
        let text = format!(
            "{process} has other values than this process in {}: what this process has was judged",
            variables.join(", ")
        );
        let remedy = "run this with the variables that margay will be started with";
        out.add(Severity::Unseen, Subject::Host("environment".into()), "", text, remedy);
    }
}

/// The BGP implementation that a process is, by the name of its program.
fn known_speaker(process: &Process) -> Option<&'static str> {
    let is = |name: &str| process.program == name || process.name == name;
    let has = |text: &str| process.arguments.iter().any(|argument| argument.contains(text));
    if is("bgpd") {
        Some("FRR, Quagga or OpenBGPD")
    } else if is("gobgpd") {
        Some("GoBGP")
    } else if is("exabgp") || has("exabgp") {
        Some("ExaBGP")
    } else if is("kube-router") {
        Some("kube-router")
    } else if is("cilium-agent") {
        Some("Cilium")
    } else if is("speaker") {
        Some("MetalLB")
    } else if is("bird") || is("bird6") || is("margay") {
        Some("BIRD or margay, and not the one that answers at the control socket")
    } else {
        None
    }
}

/// Whether a process is one of margay's stand-ins for confd and bird6, which only wait.
fn is_stand_in(process: &Process) -> bool {
    let first =
        process.arguments.first().map_or("", |name| name.rsplit('/').next().unwrap_or(name));
    let second = process.arguments.get(1).map(String::as_str);
    process.is_margay() && (second == Some("stand-in") || first == "bird6")
}

fn speakers(facts: &Facts, out: &mut Findings) {
    let subject = |name: &str| Subject::Host(name.to_owned());
    let remedy_beside = "stop it, or leave BGP on this node to it: two speakers take each other's \
                         sessions and port";
    let in_charge: BTreeSet<u32> = facts
        .speakers
        .iter()
        .filter_map(|seat| Some(seat.speaker.as_ref().ok()?.process.as_ref()?.pid))
        .collect();
    let (processes, sockets) = match (&facts.host.processes, &facts.host.sockets) {
        (Ok(processes), Ok(sockets)) => (processes, sockets),
        (Err(why), _) | (_, Err(why)) => {
            let text = format!("processes and their sockets cannot be seen: {why}");
            let remedy = "run this as root";
            return out.add(Severity::Unseen, subject("processes"), "", text, remedy);
        }
    };
    let hidden: Vec<String> = processes
        .iter()
        .filter(|process| process.sockets.is_none())
        .map(Process::describe)
        .collect();
    let owner = |inode: u64| {
        processes.iter().find(|p| p.sockets.as_ref().is_some_and(|held| held.contains(&inode)))
    };
    let mut named = BTreeSet::new();
    let mut unseen = 0;
    for socket in sockets {
        let what = match socket.role {
            Role::Listens => "listens at BGP's port",
            Role::Connects => "has a BGP connection",
        };
        match owner(socket.inode) {
            Some(process) if in_charge.contains(&process.pid) => {}
            Some(process) if named.insert((process.pid, what)) => {
                let text = format!("{} {what}", process.describe());
                out.add(Severity::Unsafe, subject("port"), "", text, remedy_beside);
            }
            Some(_) => {}
            None => unseen += 1,
        }
    }
    if unseen > 0 {
        // If the speaker's own sockets are not visible, all of these may be its own.
        let is_hidden = !hidden.is_empty() || in_charge.is_empty();
        let severity = if is_hidden { Severity::Unseen } else { Severity::Unsafe };
        let text = format!(
            "{unseen} sockets at BGP's port belong to processes that cannot be seen from here"
        );
        let remedy = "run this as root, and ss -tnp 'sport = 179 or dport = 179' on the node itself; \
                      stop what is neither BIRD nor margay";
        out.add(severity, subject("port"), "", text, remedy);
    }
    for process in processes.iter().filter(|p| !in_charge.contains(&p.pid) && !is_stand_in(p)) {
        let has_socket = named.iter().any(|(pid, _)| *pid == process.pid);
        if let Some(kind) = known_speaker(process).filter(|_| !has_socket) {
            let text =
                format!("{} runs beside it ({kind}), without a BGP connection", process.describe());
            let remedy = "nothing while it speaks no BGP (MetalLB in layer 2 mode); else stop it";
            out.add(Severity::Note, subject("processes"), "", text, remedy);
        }
    }
}

fn capabilities(host: &Host, out: &mut Findings) {
    let (whose, bits) = &host.capabilities;
    let subject = || Subject::Host("capabilities".into());
    let bits = match bits {
        Ok(bits) => *bits,
        Err(why) => {
            let text = format!("what {whose} may do cannot be read: {why}");
            return out.add(Severity::Unseen, subject(), "", text, "run this as root");
        }
    };
    for (bit, name, what) in [
        (CAP_NET_ADMIN, "CAP_NET_ADMIN", "no kernel routes"),
        (CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE", "no listening at port 179"),
    ] {
        if bits & (1 << bit) == 0 {
            let text = format!("{whose} lacks {name}: margay in its place could do {what}");
            let remedy = format!("give it {name} in the container's securityContext");
            out.add(Severity::Unsafe, subject(), "", text, remedy);
        }
    }
}

fn sysctls(facts: &Facts, out: &mut Findings) {
    let value = |name: &str| facts.host.sysctls.get(name).copied();
    let subject = |name: &str| Subject::Host(name.to_owned());
    let wanted = plan_of(facts);
    for (name, family) in [
        ("net.ipv4.ip_forward", bgp_proto::types::Family::Ipv4),
        ("net.ipv6.conf.all.forwarding", bgp_proto::types::Family::Ipv6),
    ] {
        let is_used = wanted.is_some_and(|wanted| wanted.plan.families.get(family).enabled);
        if is_used && value(name) == Some(0) {
            let text =
                "is 0: no packet to a pod or from one is forwarded, whoever writes the routes";
            out.add(Severity::Unsafe, subject(name), "", text, format!("sysctl -w {name}=1"));
        }
    }
    for name in ["net.ipv4.tcp_l3mdev_accept", "net.ipv4.udp_l3mdev_accept"] {
        if value(name) == Some(1) {
            let text = "is 1: BGP's and BFD's sockets also receive what arrives in VRFs, where the same \
                        addresses may be others";
            let remedy = format!("sysctl -w {name}=0, unless something else needs it");
            out.add(Severity::Note, subject(name), "", text, remedy);
        }
    }
    let strict = ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.tunl0.rp_filter"];
    if value(strict[1]).is_some() && strict.iter().filter_map(|name| value(name)).max() == Some(1) {
        let text = "is strict: packets from other nodes' pods are dropped where the way back is \
                    another, as with CrossSubnet pools";
        let remedy =
            format!("sysctl -w {}=2, if pods of another subnet are not reached", strict[1]);
        out.add(Severity::Note, subject(strict[1]), "", text, remedy);
    }
    if let (Some(count), Some(max @ 1..)) =
        (value("net.netfilter.nf_conntrack_count"), value("net.netfilter.nf_conntrack_max"))
        && count.saturating_mul(100) >= max.saturating_mul(CONNTRACK_FULL_PERCENT)
    {
        let text =
            format!("holds {count} of {max} connections: new ones, BGP's among them, are dropped");
        let remedy = format!("sysctl -w net.netfilter.nf_conntrack_max={}", max.saturating_mul(2));
        out.add(Severity::Unsafe, subject("conntrack"), "", text, remedy);
    }
}

fn firewall(facts: &Facts, out: &mut Findings) {
    let firewall = &facts.host.firewall;
    let subject = || Subject::Host("firewall".into());
    for rule in &firewall.drops {
        let text = format!("a rule drops BGP's port: {rule}");
        let remedy = "delete the rule, or let neighbours' addresses pass before it";
        out.add(Severity::Unsafe, subject(), "", text, remedy);
    }
    for shut in firewall.shut.iter().filter(|shut| is_needed(facts, shut)) {
        let (what, rule) = match shut.traffic {
            Traffic::Bgp => ("new BGP connections, which every restart makes,", "TCP port 179"),
            Traffic::Ipip => ("pods' packets through tunl0", "IP protocol 4"),
            Traffic::Vxlan => ("pods' packets through VXLAN", "UDP port 4789"),
        };
        let text = format!("{what} are dropped ({}): {}", shut.family, shut.by);
        let remedy =
            format!("accept {rule} from and to the other nodes in that chain, before what drops");
        out.add(Severity::Unsafe, subject(), "", text, remedy);
    }
    let mut speakers = facts.speakers.iter().filter_map(|seat| seat.speaker.as_ref().ok());
    let any_up = speakers.any(|s| s.protocols.iter().any(|p| p.is_established()));
    // Rules match ports and addresses, not programs: if one speaker's packets pass, so do
    // another's.
    let severity = if any_up { Severity::Note } else { Severity::Unseen };
    let remedy = "list the rules on the node itself, and see that none drops TCP port 179";
    for fault in &firewall.faults {
        let text = format!("rules could not be listed: {fault}");
        out.add(severity, subject(), "", text, remedy);
    }
    if firewall.listed_by.is_empty() && firewall.faults.is_empty() {
        let text = "rules could not be listed: neither nft nor iptables-save is here";
        out.add(severity, subject(), "", text, remedy);
    }
}

/// Whether this node has traffic of that kind.
fn is_needed(facts: &Facts, shut: &Shut) -> bool {
    let has_link = |names: &[&str]| {
        let links = facts.kernel.as_ref().map(|kernel| kernel.links.as_slice()).unwrap_or_default();
        links.iter().any(|link| link.up && names.contains(&&*link.name))
    };
    match shut.traffic {
        Traffic::Bgp => {
            let speaks = facts.speaker(shut.family).is_some_and(|speaker| {
                speaker.protocols.iter().any(|protocol| protocol.neighbor.is_some())
            });
            let planned = facts.objects.plan.as_ref().is_some_and(|wanted| {
                let sessions = wanted.plan.families.get(shut.family).sessions.iter();
                sessions.clone().any(|planned| wanted.running.contains(&planned.session.name))
            });
            speaks || planned
        }
        Traffic::Ipip => shut.family == Family::Ipv4 && has_link(&["tunl0"]),
        Traffic::Vxlan => match shut.family {
            Family::Ipv4 => has_link(&["vxlan.calico"]),
            Family::Ipv6 => has_link(&["vxlan-v6.calico"]),
        },
    }
}

fn files(facts: &Facts, out: &mut Findings) {
    let files = &facts.host.files;
    let subject = |name: &str| Subject::Host(name.to_owned());
    for line in &files.foreign {
        let text = format!("no template of Calico's writes this: {line}");
        let remedy = "say the same by a BGPPeer, BGPFilter or BGPConfiguration: margay does not read \
                      BIRD's configuration";
        out.add(Severity::Unsafe, subject("configuration"), "", text, remedy);
    }
    for mount in &files.mounts {
        let text = format!("{mount} is mounted over the image's: templates of one's own");
        let remedy = "say by objects what they add: margay has no templates";
        out.add(Severity::Unsafe, subject("configuration"), "", text, remedy);
    }
    for fault in &files.faults {
        out.add(Severity::Unseen, subject("configuration"), "", fault, "run this as root");
    }
    let (margays, others): (Vec<_>, Vec<_>) = files.services.iter().partition(|s| s.runs_margay);
    let is_birds = |name: &str| matches!(name, "bird" | "bird6" | "confd");
    let replaced: Vec<&str> =
        others.iter().map(|service| service.name.as_str()).filter(|name| is_birds(name)).collect();
    let in_charge_is_margay = facts
        .speakers
        .iter()
        .any(|seat| seat.speaker.as_ref().is_ok_and(super::super::facts::Speaker::is_margay));
    if margays.is_empty() && in_charge_is_margay && !replaced.is_empty() {
        let text =
            format!("runit's services {} would start BIRD beside margay", replaced.join(", "));
        let remedy = format!("sv once {0} && sv down {0}", replaced.join(" "));
        out.add(Severity::Unsafe, subject("services"), "", text, remedy);
    } else if !replaced.is_empty() && !in_charge_is_margay {
        let text = format!("runit's services {} are what margay replaces", replaced.join(", "));
        let remedy = "leave them as docs/src/leaving-bird.md says: runit starts again what is \
                      only killed";
        out.add(Severity::Note, subject("services"), "", text, remedy);
    }
}

/// Reports source addresses of sessions that this host does not have.
fn addresses(facts: &Facts, out: &mut Findings) {
    let (Some(wanted), Ok(picture)) = (plan_of(facts), &facts.kernel) else { return };
    let families = [&wanted.plan.families.ipv4, &wanted.plan.families.ipv6];
    let running = families
        .into_iter()
        .flat_map(|family| family.sessions.iter())
        .filter(|planned| wanted.running.contains(&planned.session.name));
    let sources: BTreeSet<_> = running.filter_map(|p| p.session.source_address).collect();
    for address in sources.into_iter().filter(|address| !picture.has_address(*address)) {
        let text =
            format!("{address}, the node's address, is on no interface: no session can begin");
        let remedy = "run this on the node that --node names, or correct the Node's address";
        let object = format!("Node/{}", wanted.plan.node);
        out.add(Severity::Unsafe, Subject::Host("address".into()), &object, text, remedy);
    }
}
