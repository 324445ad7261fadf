//! A node that runs BIRD 1.6.8 with the configuration that confd writes for a mesh.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::bird2::birdc;
use crate::bird16::{program, with_tunnels};
use crate::daemon::Daemon;
use crate::lab::Host;
use crate::wait::{PATIENCE, wait_until};

/// Calico's default, as in the configuration below.
const OWN_ASN: u32 = 64512;
/// How export filters towards internal neighbours begin.
const PRIORITY_OF_EXPORT: &str =
    "    if (defined(source) && source = RTS_BGP && defined(bgp_local_pref)) then {
      krt_metric = 2147483647 - bgp_local_pref;
    } else {
      if (!defined(krt_metric)) then { krt_metric = 1024; }
      bgp_local_pref = 2147483647 - krt_metric;
    }
";

/// Who writes the pool's routes into the kernel, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// BIRD.
    Bird,
    /// BIRD, through the IPIP tunnel.
    BirdThroughTunnel,
    /// BIRD, through the IPIP tunnel to nodes outside the node's network of this prefix length.
    BirdBeyond(u8),
    /// Felix: BIRD writes none.
    Felix,
}

/// Whether routes have priorities, as in Calico since v3.32.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priorities {
    /// Kernel metrics and LOCAL_PREF mirror each other.
    Mirrored,
    /// BIRD leaves both alone.
    None,
}

/// What a node's BIRD has beside the mesh.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// BGPPeers of all nodes: addresses and AS numbers.
    pub peers: Vec<(IpAddr, u32)>,
    /// Ranges of services, which are announced but not written into the kernel.
    pub services: Vec<String>,
}

/// BIRD as Calico's node image runs it.
#[derive(Debug)]
pub struct BirdNode {
    host: Host,
    daemon: Daemon,
    socket: PathBuf,
}

impl BirdNode {
    /// Starts BIRD with a mesh to `others`, announcing `blocks` of the pool.
    ///
    /// # Errors
    /// When BIRD refuses the configuration.
    pub fn start(host: &Host, others: &[&Host], blocks: &[&str]) -> Result<Self> {
        Self::start_with(host, others, blocks, Writes::Bird, Priorities::Mirrored)
    }

    /// As [`BirdNode::start`], with this owner of the pool's routes and with or without priorities.
    ///
    /// # Errors
    /// As [`BirdNode::start`].
    pub fn start_with(
        host: &Host,
        others: &[&Host],
        blocks: &[&str],
        writes: Writes,
        priorities: Priorities,
    ) -> Result<Self> {
        let others: Vec<IpAddr> = others.iter().map(|other| other.v4()).collect();
        let text = render(host.v4(), &others, blocks, writes, priorities);
        Self::start_by(host, &text, &["-R"])
    }

    /// Starts BIRD with a mesh to these addresses, most of which no host has. It is started without
    /// `-R`, so it does not wait for them.
    ///
    /// # Errors
    /// As [`BirdNode::start`].
    pub fn start_among(host: &Host, others: &[IpAddr], blocks: &[&str]) -> Result<Self> {
        let text = render(host.v4(), others, blocks, Writes::Bird, Priorities::Mirrored);
        Self::start_by(host, &text, &[])
    }

    /// As [`BirdNode::start`], with more than the mesh.
    ///
    /// # Errors
    /// As [`BirdNode::start`].
    pub fn start_beside(
        host: &Host,
        mesh: &[IpAddr],
        blocks: &[&str],
        beside: &Beside,
    ) -> Result<Self> {
        let text = render(host.v4(), mesh, blocks, Writes::Bird, Priorities::Mirrored);
        let text = with_beside(&text, host.v4(), beside);
        Self::start_by(host, &text, &["-R"])
    }

    fn start_by(host: &Host, text: &str, recovery: &[&str]) -> Result<Self> {
        let program = if text.contains("krt_tunnel") { with_tunnels()? } else { program("bird") };
        let conf = host.write("bird.conf", text)?;
        let (conf, socket) = (conf.display().to_string(), host.file("bird.ctl"));
        let (ctl, pid) = (socket.display().to_string(), host.file("bird.pid"));
        host.run(&program, &["-p", "-c", &conf])?;
        let pid = pid.display().to_string();
        let args = [recovery, &["-f", "-c", &conf, "-s", &ctl, "-P", &pid]].concat();
        let daemon = host.daemon("bird", &program, &args)?;
        wait_until(PATIENCE, "BIRD's control socket", || birdc(&socket, "show status").map(drop))?;
        Ok(Self { host: host.clone(), daemon, socket })
    }

    /// The BIRD process.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Waits until the mesh session with a neighbour is established.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_session(&self, neighbor: &Host) -> Result<()> {
        let name = super::session_name("Mesh", neighbor);
        wait_until(PATIENCE, &format!("{}: {name}", self.host.name()), || {
            let answer = birdc(&self.socket, &format!("show protocols {name}"))?;
            ensure!(answer.contains("Established"), "{answer}");
            Ok(())
        })
    }

    /// What BIRD shows about a prefix: `show route PREFIX all`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn route(&self, prefix: &str) -> Result<String> {
        birdc(&self.socket, &format!("show route {prefix} all"))
    }
}

/// Adds what confd writes for BGPPeers and for ranges of services.
fn with_beside(text: &str, own: IpAddr, beside: &Beside) -> String {
    let mut text = text.to_owned();
    for range in &beside.services {
        for (before, line) in [
            ("template static static_template {\n", format!("   route {range} blackhole;\n")),
            ("  calico_aggr();\n", format!("  if ( net ~ {range} ) then {{ accept; }}\n")),
            (
                "filter calico_kernel_programming {\n",
                format!("  if ( net ~ {range} ) then {{ reject; }}\n"),
            ),
        ] {
            text = text.replacen(before, &format!("{before}{line}"), 1);
        }
    }
    for (address, asn) in &beside.peers {
        let (name, is_internal) = (address.to_string().replace('.', "_"), *asn == OWN_ASN);
        let _ = write!(
            text,
            "protocol bgp Global_{name} from bgp_template {{\n  neighbor {address} as {asn};\n  \
             source address {own};\n  ttl security off;\n  multihop;\n  import filter {{\n    \
             if (defined(bgp_local_pref)&&(bgp_local_pref > 2147482623)) then\n      \
             preference = 200;\n    accept;\n  }};\n  export filter {{\n"
        );
        if is_internal {
            text.push_str(PRIORITY_OF_EXPORT);
        }
        let _ = write!(
            text,
            "    calico_export_to_bgp_peers({is_internal});\n    reject;\n  }};\n}}\n"
        );
    }
    text
}

/// The configuration of earlier releases' confd: without the lines about metrics and LOCAL_PREF.
fn without_priorities(text: &str) -> String {
    let mut kept = String::new();
    // Depth of braces in a block that is about priorities only: its lines are dropped to its end.
    let mut depth = 0_usize;
    for line in text.lines() {
        let begins = line.contains("RTS_BGP");
        if depth > 0 || begins {
            // In `} else {` the two cancel out.
            depth = (depth + line.matches('{').count()).saturating_sub(line.matches('}').count());
            continue;
        }
        let is_about = ["krt_metric", "bgp_local_pref", "preference = 200"];
        if !is_about.iter().any(|word| line.contains(word)) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The files that confd writes for a node of the mesh, in one.
pub(super) fn render(
    own: IpAddr,
    others: &[IpAddr],
    blocks: &[&str],
    writes: Writes,
    priorities: Priorities,
) -> String {
    let text = with_priorities(own, others, blocks, writes);
    match priorities {
        Priorities::Mirrored => text,
        Priorities::None => without_priorities(&text),
    }
}

/// The first address of the IPv4 network of this length, which must not be 0.
fn network_of(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() >> (32 - length) << (32 - length)).into(),
        IpAddr::V6(_) => address,
    }
}

fn with_priorities(own: IpAddr, others: &[IpAddr], blocks: &[&str], writes: Writes) -> String {
    let mut text = String::from(
        "function apply_communities ()\n{\n}\n\
         template kernel kernel_template {\n  learn;\n  persist;\n  scan time 2;\n  import all;\n}\n\
         template direct direct_template {\n  interface -\"cali*\", -\"kube-ipvs*\", \"*\";\n}\n\
         template static static_template {\n",
    );
    for block in blocks {
        let _ = writeln!(text, "   route {block} blackhole;");
    }
    text.push_str("}\nprotocol static from static_template {\n}\nfunction calico_aggr ()\n{\n");
    for block in blocks {
        let _ = writeln!(
            text,
            "      if ( net = {block} ) then {{ accept; }}\n      \
             if ( net ~ {block} && krt_metric < 1024 ) then {{ accept; }}\n      \
             if ( net ~ {block} ) then {{ reject; }}"
        );
    }
    let pool = super::POOL;
    let programming = match writes {
        Writes::Bird => "accept".to_owned(),
        Writes::BirdThroughTunnel => "krt_tunnel = \"tunl0\"; accept".to_owned(),
        Writes::BirdBeyond(length) => format!(
            "if (defined(bgp_next_hop)&&(bgp_next_hop ~ {}/{length})) then krt_tunnel = \"\"; \
             else krt_tunnel = \"tunl0\"; accept",
            network_of(own, length)
        ),
        Writes::Felix => "reject".to_owned(),
    };
    let _ = write!(
        text,
        "}}\nfunction reject_local_routes () {{\n  if (defined(ifname)) then {{\n     \
         if (ifname ~ \"bpf*.cali\") then {{\n        reject;\n     }}\n  }}\n}}\n\
         function calico_export_to_bgp_peers(bool internal_peer) {{\n  \
         if (internal_peer) then {{\n    if (defined(ifname)) then {{\n      \
         if ((ifname ~ \"*.cali\") || (ifname ~ \"*.calico\") || (ifname ~ \"tunl0\")) then {{\n        \
         reject;\n      }}\n    }}\n  }}\n  reject_local_routes();\n  apply_communities();\n  \
         calico_aggr();\n  if (net ~ {pool}) then {{ accept; }}\n}}\n\
         filter calico_kernel_programming {{\n  \
         if (defined(source) && (source = RTS_BGP) && !defined(krt_metric)) then {{\n      \
         krt_metric = 1024;\n      if (defined(bgp_local_pref)) then {{\n          \
         krt_metric = 2147483647 - bgp_local_pref;\n      }}\n      \
         if (krt_metric < 1024) then {{\n          preference = 200;\n      }}\n  }}\n  \
         if (net ~ {pool}) then {{ {programming}; }}\n  accept;\n}}\n\
         log stderr all;\nrouter id {own};\n\
         protocol kernel from kernel_template {{\n  export filter calico_kernel_programming;\n  \
         graceful restart;\n  merge paths on;\n}}\n\
         protocol device {{\n  scan time 2;\n}}\nprotocol direct from direct_template {{\n}}\n\
         template bgp bgp_template {{\n  description \"Connection to BGP peer\";\n  local as 64512;\n  \
         gateway recursive;\n  add paths on;\n  graceful restart;\n  connect delay time 2;\n  \
         connect retry time 5;\n  error wait time 5,30;\n}}\n"
    );
    for other in others {
        let (name, address) = (format!("Mesh_{}", other.to_string().replace('.', "_")), other);
        let passive = if address.to_string() > own.to_string() { "  passive on;\n" } else { "" };
        let _ = write!(
            text,
            "protocol bgp {name} from bgp_template {{\n  neighbor {address} as 64512;\n  \
             source address {own};\n  ttl security off;\n  multihop;\n  import filter {{\n    \
             if (defined(bgp_local_pref)&&(bgp_local_pref > 2147482623)) then\n      \
             preference = 200;\n    accept;\n  }};\n  export filter {{\n{PRIORITY_OF_EXPORT}    \
             calico_export_to_bgp_peers(true);\n    reject;\n  }};\n{passive}}}\n"
        );
    }
    text
}
