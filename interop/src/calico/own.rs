//! Object sets of our own, each for a node of a mesh, with the files that confd of that release
//! writes. A set's number determines the release, the encapsulation, the AS number, the blocks and
//! the number of nodes.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Result;

use super::bird::{Priorities, Writes, render};
use super::golden::{Node, Scenario};

/// The name of the node under test.
const NODE: &str = "own";

/// Encapsulations, with the lines of the IPPool that set them.
const CARRIERS: [(&str, &str); 3] = [
    ("none", "ipipMode: Never"),
    ("vxlan", "vxlanMode: Always"),
    // All nodes are in one subnet, so that no tunnel is needed.
    ("cross-subnet", "ipipMode: CrossSubnet"),
];

/// Releases, and whether their routes have priorities.
const RELEASES: [(&str, Priorities); 4] = [
    ("v3.28.2", Priorities::None),
    ("v3.31.7", Priorities::None),
    ("v3.32.1", Priorities::Mirrored),
    ("v3.33.0", Priorities::Mirrored),
];

impl Scenario {
    /// The object set of that number, written into a folder.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn own(number: u8, folder: &Path) -> Result<Scenario> {
        let at = usize::from(number);
        let (release, priorities) = RELEASES[at % RELEASES.len()];
        let (carrier, mode) = CARRIERS[at / RELEASES.len() % CARRIERS.len()];
        let writes = match (carrier, release) {
            ("vxlan", _) | ("cross-subnet", "v3.33.0") => Writes::Felix,
            _ => Writes::Bird,
        };
        let asn = if number.is_multiple_of(5) { 64512 } else { 65_000 + u32::from(number) };
        let blocks: Vec<String> =
            (0..at / 3 % 3).map(|block| format!("10.65.{}.64/26", block + 1)).collect();
        let address = |node: u8| Ipv4Addr::new(10, 192, number, 2 + node);
        // The node has the lowest address in even sets, and the highest in odd ones.
        let (own, others) = match number % 2 {
            0 => (0, 1..=1 + number % 4),
            _ => (9, 1..=1 + number % 4),
        };

        let mut objects = format!(
            "kind: BGPConfiguration\napiVersion: projectcalico.org/v3\nmetadata:\n  name: default\n\
             spec:\n  asNumber: {asn}\n---\n\
             kind: IPPool\napiVersion: projectcalico.org/v3\nmetadata:\n  name: pods\nspec:\n  \
             cidr: {}\n  {mode}\n",
            super::POOL
        );
        let mut nodes = Vec::new();
        let mut add = |name: String, address: Ipv4Addr| {
            let _ = write!(
                objects,
                "---\nkind: Node\napiVersion: projectcalico.org/v3\nmetadata:\n  name: {name}\n\
                 spec:\n  bgp:\n    ipv4Address: {address}/24\n"
            );
            nodes.push(Node { name, networks: vec![format!("{address}/24")] });
        };
        add(NODE.to_owned(), address(own));
        let others: Vec<u8> = others.collect();
        others.iter().for_each(|other| add(format!("node-{other}"), address(*other)));
        let mut affinities = String::new();
        for block in &blocks {
            let _ = writeln!(
                affinities,
                "/calico/ipam/v2/host/{NODE}/ipv4/block/{}\t{{\"state\":\"confirmed\"}}",
                block.replace('/', "-")
            );
        }

        let others: Vec<IpAddr> = others.iter().map(|other| address(*other).into()).collect();
        let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
        let text = render(address(own).into(), &others, &blocks, writes, priorities)
            .replace("64512", &asn.to_string());
        std::fs::create_dir_all(folder)?;
        let idle =
            format!("log stderr all;\nrouter id {};\nprotocol device {{\n}}\n", address(own));
        for suffix in [".cfg", "_aggr.cfg", "_ipam.cfg"] {
            // BIRD runs the first, which holds everything; blocks and pools are looked up in the
            // others.
            std::fs::write(folder.join(format!("bird{suffix}")), &text)?;
            std::fs::write(folder.join(format!("bird6{suffix}")), &idle)?;
        }
        let files = [("objects.yaml", &objects), ("affinities.etcd.txt", &affinities)];
        let files = files.map(|(name, text)| (folder.join(name), text));
        for (path, text) in &files {
            std::fs::write(path, text)?;
        }
        Ok(Scenario {
            name: format!("own-{number}-{release}-{carrier}"),
            node: NODE.to_owned(),
            nodes,
            objects: files.map(|(path, _)| path).into(),
            release: release.to_owned(),
            environment: Vec::new(),
            golden: folder.to_owned(),
            pools: vec![super::POOL.to_owned()],
            has_blocks: true,
            ignored: Vec::new(),
        })
    }
}
