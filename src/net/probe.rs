//! Tries what a session with a neighbour needs, one after the other: route, TCP, password, TTL, OPEN,
//! path MTU. Says what is wrong and what to change.
//!
//! A neighbour may take a second connection from us for our restart (RFC 4724 §5), and ends the
//! session. Therefore none is made while the session has a connection, unless that is demanded. The
//! other steps send UDP to a port where nothing listens, and read the answer from the ICMP error.
//!
//! Every wait has a limit, and their sum is bounded by [`Probe::LONGEST`].

mod open;
mod path;
mod silence;

use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bgp_proto::session::PeerConfig;
use bgp_proto::types::{Prefix, off_interface};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::dial;
use super::signature_drops::{SignatureDrops, Signing};
use super::sockopt::{self, TcpInfo};
use path::{MtuFault, Path};

/// How long to wait for an answer to a SYN: two retransmissions of it, and the kernel's resolution
/// of the neighbour's address, which fails after three seconds.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// A step of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Our address, and a route to the neighbour.
    Route,
    /// A TCP connection.
    Tcp,
    /// The signature of TCP MD5 (RFC 2385) or TCP-AO (RFC 5925).
    Key,
    /// The TTL of our packets and of the neighbour's (RFC 5082).
    Ttl,
    /// The exchange of OPENs.
    Open,
    /// The size of packets that reach the neighbour.
    Mtu,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Works,
    /// A session cannot work like this.
    Fails,
    /// It cannot be determined.
    Unknown,
    /// It was not tried.
    Skipped,
}

/// What a step found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The step.
    pub step: Step,
    /// Its result.
    pub outcome: Outcome,
    /// What was found, in one line.
    pub text: String,
    /// What to change; `None` unless the step fails.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(step: Step, outcome: Outcome, text: impl Display) -> Finding {
        Finding { step, outcome, text: text.to_string(), remedy: None }
    }

    fn works(step: Step, text: impl Display) -> Finding {
        Finding::new(step, Outcome::Works, text)
    }

    fn fails(step: Step, text: impl Display, remedy: impl Display) -> Finding {
        let remedy = Some(remedy.to_string());
        Finding { remedy, ..Finding::new(step, Outcome::Fails, text) }
    }

    fn unknown(step: Step, text: impl Display) -> Finding {
        Finding::new(step, Outcome::Unknown, text)
    }

    fn skipped(step: Step, text: impl Display) -> Finding {
        Finding::new(step, Outcome::Skipped, text)
    }
}

/// An interface of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU, in octets.
    pub mtu: u32,
    /// Whether it is up and has a carrier.
    pub running: bool,
    /// Our addresses on it, with the prefix length of their network.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A probe of one neighbour.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The parameters of the session.
    pub config: Arc<PeerConfig>,
    /// Our interfaces.
    pub interfaces: Vec<Interface>,
    /// Why no connection is made; `None`: TCP and OPEN are tried.
    pub undisturbed: Option<String>,
    /// The connection of the session, whose segments are the longest packets that matter.
    pub connection: Weak<TcpStream>,
}

impl Probe {
    /// The longest that [`Probe::run`] takes.
    pub const LONGEST: Duration = Duration::from_secs(25);

    /// Tries every step that can be tried, in the order of [`Step`].
    pub async fn run(&self) -> Vec<Finding> {
        let route = match self.route() {
            Ok(route) => route,
            Err(finding) => return vec![finding],
        };
        let mut findings = vec![route.finding.clone()];
        if route.finding.outcome == Outcome::Fails {
            return findings;
        }
        let before = SignatureDrops::read();
        let mut segments = None;
        match &self.undisturbed {
            Some(why) => {
                segments = self.connection.upgrade().and_then(|c| sockopt::tcp_info(&c).ok());
                let steps = [Step::Tcp, Step::Open];
                findings.extend(steps.map(|step| Finding::skipped(step, why)));
            }
            None => match self.connect().await {
                Ok(stream) => {
                    segments = sockopt::tcp_info(&stream).ok();
                    findings.extend(self.connected(&stream));
                    findings.extend(open::exchange(&self.config, stream, before).await);
                }
                Err(Some(error)) => {
                    let expired = silence::ttl_expired(self, &route, &error).await;
                    findings.push(expired.unwrap_or_else(|| self.refused(&error, &route)));
                }
                Err(None) => findings.extend(silence::explain(self, &route, before).await),
            },
        }
        // Without an answer to small packets, that large ones are lost says nothing.
        let is_reached = findings.iter().all(|finding| finding.outcome != Outcome::Fails)
            || findings.iter().any(|f| f.step == Step::Tcp && f.outcome == Outcome::Works);
        if is_reached {
            let most = segments.map_or(u32::MAX, |info| self.packet_len(&info));
            findings.push(self.mtu(&route, route.mtu.min(most)).await);
        }
        findings
    }

    fn remote(&self) -> IpAddr {
        off_interface(self.config.address).0
    }

    /// Whether an interface has this address.
    fn is_ours(&self, address: IpAddr) -> bool {
        self.interfaces.iter().any(|link| link.addresses.iter().any(|(own, _)| *own == address))
    }

    /// The interface in whose network the neighbour is.
    fn on_link(&self) -> Option<&Interface> {
        let remote = self.remote();
        if let (_, Some(index)) = off_interface(self.config.address) {
            return self.interfaces.iter().find(|link| link.index == index.get());
        }
        let has_it = |(own, len): &(IpAddr, u8)| Prefix::new(*own, *len).contains_addr(remote);
        self.interfaces.iter().find(|link| link.addresses.iter().any(has_it))
    }

    /// Our address and the way to the neighbour, as the kernel chooses them.
    fn route(&self) -> Result<Route<'_>, Finding> {
        let remote = self.remote();
        if let Some(why) = &self.config.idle {
            let remedy = "the session begins when that has changed";
            return Err(Finding::fails(Step::Route, why, remedy));
        }
        if self.is_ours(remote) {
            let text = format!("{remote} is an address of this machine");
            return Err(Finding::fails(Step::Route, text, "use the neighbour's address"));
        }
        let path = Path::to(&self.config).map_err(|error| self.no_route(&error))?;
        let own = off_interface(path.source).0;
        let link =
            self.interfaces.iter().find(|link| link.addresses.iter().any(|(a, _)| *a == own));
        let mtu = link.map_or(Path::MTU_LEAST, |link| link.mtu);
        let on = link.map(|link| format!(" on {}", link.name)).unwrap_or_default();
        let finding = match (self.on_link(), link.filter(|link| !link.running)) {
            (_, Some(link)) => Finding::fails(
                Step::Route,
                format_args!("{own} is on {}, which is down or has no carrier", link.name),
                format_args!("bring {} up", link.name),
            ),
            (Some(near), None) => Finding::works(
                Step::Route,
                format_args!("from {own}, directly connected on {}", near.name),
            ),
            (None, None) => Finding::works(Step::Route, format_args!("from {own}{on}")),
        };
        Ok(Route { path, mtu, finding, on_link: self.on_link().map(|link| &*link.name) })
    }

    fn no_route(&self, error: &io::Error) -> Finding {
        let remote = self.remote();
        let source = self.config.source_address.map(|source| off_interface(source).0);
        match (error.raw_os_error(), source) {
            (Some(libc::EADDRNOTAVAIL), Some(source)) => Finding::fails(
                Step::Route,
                format_args!("{source} (source-address) is on no interface"),
                "correct source-address, or add the address to an interface",
            ),
            (Some(libc::ENETUNREACH), _) => Finding::fails(
                Step::Route,
                format_args!("no route leads to {remote}"),
                "correct the address, or add a route",
            ),
            (Some(libc::EINVAL | libc::EHOSTUNREACH | libc::EACCES), _) => Finding::fails(
                Step::Route,
                format_args!("a blackhole, unreachable or prohibit route covers {remote}"),
                format_args!("see ip route get {remote}; remove the route, or add a better one"),
            ),
            _ => Finding::fails(
                Step::Route,
                dial::describe(error, &self.config),
                format_args!("see ip route get {remote}"),
            ),
        }
    }

    /// Connects as the session would. `Err(None)`: there was no answer.
    async fn connect(&self) -> Result<TcpStream, Option<io::Error>> {
        connect(&self.config, CONNECT_WAIT).await
    }

    /// What an established connection proves.
    fn connected(&self, stream: &TcpStream) -> Vec<Finding> {
        let (remote, port) = (self.remote(), self.config.port);
        let from = stream.local_addr().map(|own| format!(" from {}", own.ip())).unwrap_or_default();
        let tcp = format_args!("connected{from} to {remote} port {port}").to_string();
        let key = match Signing::of(&self.config.security) {
            Signing::Md5 => "segments are signed (TCP MD5), and accepted",
            Signing::Ao => "segments are signed (TCP-AO), and accepted",
            Signing::No => "no password, and none is required",
        };
        let key = Finding::works(Step::Key, key);
        vec![Finding::works(Step::Tcp, tcp), key]
    }

    /// The connection was refused, or the system reports why it is impossible.
    fn refused(&self, error: &io::Error, route: &Route<'_>) -> Finding {
        let (remote, port) = (self.remote(), self.config.port);
        match (error.kind(), route.on_link) {
            (io::ErrorKind::ConnectionRefused, _) => Finding::fails(
                Step::Tcp,
                format_args!("{remote} refuses connections to port {port}"),
                "start BGP there and make it listen on that address and port; or a firewall refuses us",
            ),
            (io::ErrorKind::HostUnreachable, Some(interface)) => {
                let how = if remote.is_ipv4() { "ARP" } else { "neighbour discovery" };
                Finding::fails(
                    Step::Tcp,
                    format_args!("{remote} does not answer {how} on {interface}"),
                    "correct the address, or check cable, VLAN and the neighbour's interface",
                )
            }
            (io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable, None) => {
                Finding::fails(
                    Step::Tcp,
                    format_args!("a router answers that {remote} is unreachable"),
                    "correct the address, or the routing on the way",
                )
            }
            _ => Finding::fails(
                Step::Tcp,
                dial::describe(error, &self.config),
                "correct what the system reports",
            ),
        }
    }

    /// The longest packets of a connection, in octets.
    fn packet_len(&self, info: &TcpInfo) -> u32 {
        /// Octets of TCP's options, padded to words: timestamps (RFC 7323), MD5 (RFC 2385) and TCP-AO
        /// (RFC 5925 §2.2), which is four octets and the MAC.
        const TIMESTAMPS: u32 = 12;
        const MD5: u32 = 20;
        let ao = (4 + u32::from(sockopt::AO_MAC_LEN)).next_multiple_of(4);
        let headers = if self.remote().is_ipv4() { 40 } else { 60 };
        let timestamps = if info.has_timestamps { TIMESTAMPS } else { 0 };
        let signature = match Signing::of(&self.config.security) {
            Signing::No => 0,
            Signing::Md5 => MD5,
            Signing::Ao => ao,
        };
        info.mss + headers + timestamps + signature
    }

    async fn mtu(&self, route: &Route<'_>, most: u32) -> Finding {
        let remote = self.remote();
        match route.path.largest(dial::ttl(&self.config), most).await {
            Ok(size) => {
                Finding::works(Step::Mtu, format_args!("packets of {size} octets reach {remote}"))
            }
            Err(MtuFault::Told { size }) => Finding::works(
                Step::Mtu,
                format_args!(
                    "packets of {size} octets are too big, and the sender is told: TCP adapts"
                ),
            ),
            Err(MtuFault::Silent) => Finding::unknown(
                Step::Mtu,
                format_args!("{remote} does not answer UDP to a closed port (ICMP), or not always"),
            ),
            Err(MtuFault::Lost { arrives, lost }) => Finding::fails(
                Step::Mtu,
                format_args!(
                    "packets of {arrives} octets reach {remote}, those of {lost} are lost silently"
                ),
                format_args!(
                    "make every link on the way carry {lost} octets, or set the interface's MTU (or the \
                     route's: ip route … mtu {arrives}) to {arrives} on both sides"
                ),
            ),
        }
    }
}

/// Dials. `Err(None)`: there was no answer.
async fn connect(config: &PeerConfig, wait: Duration) -> Result<TcpStream, Option<io::Error>> {
    match timeout(wait, dial::connect(config, 0)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(None),
        Ok(Err(error)) => Err(Some(error)),
        Err(_) => Err(None),
    }
}

/// The way to the neighbour.
struct Route<'a> {
    path: Path,
    /// MTU of our interface.
    mtu: u32,
    /// The interface in whose network the neighbour is.
    on_link: Option<&'a str>,
    finding: Finding,
}

#[cfg(test)]
mod tests;
