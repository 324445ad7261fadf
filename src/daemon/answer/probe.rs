//! `margay probe`: finds the parameters of a session, and tries them.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use bgp_proto::session::{AuthKey, PeerConfig, RemoteAsn, State};
use bgp_proto::types::{Asn, off_interface, on_interface};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::sources::Sources;
use crate::ctl::item::{ProbeStep, Probed};
use crate::ctl::{ErrorKind, Page, ProbeOptions, Refusal, state_name};
use crate::daemon::registry::Record;
use crate::kernel::Link;
use crate::net::{Finding, Interface, Outcome, Probe, Step};

/// Carries out probes, one at a time.
pub(super) struct Prober {
    pub(super) sources: Sources,
    busy: Semaphore,
}

/// A neighbour to be probed.
struct Target {
    record: Option<Arc<Record>>,
    config: PeerConfig,
}

impl Prober {
    pub(super) fn new(sources: Sources) -> Prober {
        Prober { sources, busy: Semaphore::new(1) }
    }

    /// Probes a peer, or a neighbour that is not configured.
    pub(super) async fn probe(&self, peer: &str, options: &ProbeOptions) -> Result<Page, Refusal> {
        let Ok(_alone) = self.busy.try_acquire() else {
            let text = "another probe is running; try again in a few seconds";
            return Err(Refusal::failed(text));
        };
        let Target { record, config } = self.target(peer, options)?;
        let state = record.as_ref().map(|record| record.handle.state());
        let undisturbed = record.as_ref().filter(|_| !options.force).and_then(|r| undisturbed(r));
        let connection = record.as_ref().map(|record| record.handle.connection());
        let (address, port) = (off_interface(config.address).0, config.port);
        let interfaces = self.interfaces(config.vrf.as_deref());
        let probe = Probe {
            config: Arc::new(config),
            interfaces,
            undisturbed,
            connection: connection.unwrap_or_default(),
        };
        let run = timeout(Probe::LONGEST, probe.run()).await;
        let findings = run.map_err(|_| {
            let limit = Probe::LONGEST.as_secs();
            Refusal::failed(format!("the probe took longer than {limit} s: try again"))
        })?;
        Page::last([Probed {
            peer: record.map(|record| record.name.to_string()),
            address,
            port,
            state: state.map(|state| state_name(state).to_owned()),
            works: findings.iter().all(|finding| finding.outcome != Outcome::Fails),
            steps: findings.into_iter().map(step).collect(),
        }])
    }

    fn target(&self, peer: &str, options: &ProbeOptions) -> Result<Target, Refusal> {
        let vrf = options.vrf.as_deref();
        if let Some(vrf) = vrf {
            self.sources.is_configured(vrf)?;
        }
        let record = only(peer, self.sources.registry.matching(peer, vrf))?;
        let record = record.or_else(|| self.by_interface_name(peer, vrf));
        let config = match &record {
            Some(record) => PeerConfig::clone(&record.session),
            None => self.unconfigured(peer, options)?,
        };
        Ok(Target { config: with(config, options)?, record })
    }

    /// The peer with a link-local address that is followed by the name of an interface, which records of
    /// peers that are not peers by interface do not have.
    fn by_interface_name(&self, peer: &str, vrf: Option<&str>) -> Option<Arc<Record>> {
        let address = self.address(peer)?;
        let mut records = self.sources.registry.all().into_iter();
        records.find(|record| {
            record.address == address && (vrf.is_none() || record.session.vrf.as_deref() == vrf)
        })
    }

    /// A neighbour in a range of dynamic peers, or one with the default of every parameter.
    fn unconfigured(&self, peer: &str, options: &ProbeOptions) -> Result<PeerConfig, Refusal> {
        let Some(address) = self.address(peer) else {
            return Err(self.sources.registry.not_found(peer));
        };
        let state = self.sources.state();
        let ranges = state.config.dynamic.iter().filter(|range| {
            range.session.vrf.as_deref() == options.vrf.as_deref()
                && range.prefix.contains_addr(address)
        });
        if let Some(range) = ranges.max_by_key(|range| range.prefix.len()) {
            return Ok(PeerConfig::clone(&range.peer(address).session));
        }
        let config = PeerConfig::new(address, RemoteAsn::Any, &state.config.bgp.identity);
        Ok(PeerConfig { vrf: options.vrf.as_deref().map(Arc::from), ..config })
    }

    /// Reads an address; a link-local one is followed by `%` and the name of the interface.
    fn address(&self, text: &str) -> Option<IpAddr> {
        let Some((address, interface)) = text.split_once('%') else { return text.parse().ok() };
        let links = self.sources.kernel.links();
        let index = links.iter().find(|link| link.name == interface)?.index;
        Some(on_interface(address.parse().ok()?, index))
    }

    /// The interfaces of a VRF; `None`: those of the default VRF.
    fn interfaces(&self, vrf: Option<&str>) -> Vec<Interface> {
        let vrfs = &self.sources.vrfs;
        let table = vrf.map(|vrf| vrfs.get(vrf).map(|shown| shown.routes_in));
        let is_there = |link: &Link| match table {
            None => vrfs.has_not(link),
            // Without its device, it has none.
            Some(table) => table.is_some() && link.traits.vrf == table,
        };
        let links = self.sources.kernel.links();
        let interface = |link: &Link| Interface {
            index: link.index,
            name: link.name.clone(),
            mtu: link.mtu,
            running: link.up && link.running,
            addresses: link.addresses.clone(),
        };
        links.iter().filter(|link| is_there(link)).map(interface).collect()
    }
}

/// The peer that is meant. An address that several have would be probed as that of a neighbour that is
/// not configured, without regard for their sessions.
fn only(peer: &str, found: Vec<Arc<Record>>) -> Result<Option<Arc<Record>>, Refusal> {
    /// How many are named.
    const NAMED_MAX: usize = 5;
    if found.len() < 2 {
        return Ok(found.into_iter().next());
    }
    let named = found.iter().take(NAMED_MAX).map(|record| match &record.session.vrf {
        Some(vrf) => format!("{} in VRF {vrf}", record.name),
        None => record.name.to_string(),
    });
    let named: Vec<String> = named.collect();
    let more = if found.len() > NAMED_MAX { ", …" } else { "" };
    let is_of_a_link = peer.parse().is_ok_and(|address: Ipv6Addr| address.is_unicast_link_local());
    let how = if is_of_a_link { format!("or {peer}%INTERFACE") } else { "or --vrf VRF".to_owned() };
    let text = format!(
        "{} peers have the address {peer}: {}{more}; give a name, {how}",
        found.len(),
        named.join(", ")
    );
    Err(Refusal { kind: ErrorKind::BadRequest, text })
}

/// The parameters with those that the client demands.
fn with(config: PeerConfig, options: &ProbeOptions) -> Result<PeerConfig, Refusal> {
    let bad = |text: String| Refusal { kind: ErrorKind::BadRequest, text };
    let mut config = config;
    if let Some(asn) = options.remote_asn {
        config.remote_asn = Asn(asn).into();
    }
    if let Some(port) = options.port {
        config.port = port;
    }
    if let Some(source) = options.source_address {
        let remote = off_interface(config.address).0;
        if source.is_ipv4() != remote.is_ipv4() {
            return Err(bad(format!(
                "{source} cannot reach {remote}: they differ in their family"
            )));
        }
        config.source_address = Some(source);
    }
    if let Some(hops) = options.ttl_security {
        config.security.ttl_security_hops = Some(hops);
        config.multihop_ttl = None;
    }
    if let Some(ttl) = options.multihop_ttl {
        config.multihop_ttl = Some(ttl);
        config.security.ttl_security_hops = None;
    }
    if let Some(password) = &options.password {
        let key = AuthKey::new(password.0.as_bytes());
        let max = AuthKey::MAX_LEN;
        config.security.md5 =
            Some(key.ok_or_else(|| bad(format!("a password has 1-{max} octets")))?);
        // The kernel refuses both on one socket.
        config.security.ao = None;
    }
    Ok(config)
}

/// Why a second connection would disturb the session, or is not wanted.
fn undisturbed(record: &Record) -> Option<String> {
    let snapshot = record.handle.snapshot();
    if record.shutdown.is_set() {
        return Some("stopped by an operator (margay peer start); --force tries".to_owned());
    }
    match snapshot.state {
        State::Established => Some(
            "the session is established, and the neighbour may take a second connection for our \
             restart (RFC 4724 §5); --force tries"
                .to_owned(),
        ),
        State::OpenSent | State::OpenConfirm => Some(format!(
            "the session has a connection, in {}: a second one would collide with it (RFC 4271 \
             §6.8); --force tries",
            state_name(snapshot.state)
        )),
        State::Idle if snapshot.timers.idle_hold.is_some() => {
            Some("held idle after a limit was exceeded; --force tries".to_owned())
        }
        _ => None,
    }
}

fn step(finding: Finding) -> ProbeStep {
    let step = match finding.step {
        Step::Route => "route",
        Step::Tcp => "tcp",
        Step::Key => "key",
        Step::Ttl => "ttl",
        Step::Open => "open",
        Step::Mtu => "mtu",
    };
    let result = match finding.outcome {
        Outcome::Works => "works",
        Outcome::Fails => "fails",
        Outcome::Unknown => "unknown",
        Outcome::Skipped => "skipped",
    };
    let Finding { text, remedy, .. } = finding;
    ProbeStep { step: step.to_owned(), result: result.to_owned(), text, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::Password;
    use crate::net::testing::{PEER, config, key_chain};

    #[test]
    fn a_password_replaces_the_key_chain() {
        let mut signed = config(PEER);
        signed.security.ao = Some(key_chain());
        let kept = with(signed.clone(), &ProbeOptions::default()).unwrap();
        assert_eq!(kept, signed);
        let password = Some(Password("s3cret".into()));
        let changed = with(signed, &ProbeOptions { password, ..ProbeOptions::default() }).unwrap();
        assert!(changed.security.md5.is_some() && changed.security.ao.is_none());
    }
}
