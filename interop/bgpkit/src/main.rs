//! Prints a line for each route of an MRT file, as bgpkit-parser reads it: prefix, peer, AS path, origin,
//! next hop, LOCAL_PREF, MED, communities, large communities.

use std::error::Error;
use std::fs::File;

use bgpkit_parser::BgpkitParser;
use bgpkit_parser::models::MetaCommunity;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: bgpkit-lines FILE")?;
    for element in BgpkitParser::from_reader(File::open(path)?) {
        let (mut plain, mut large) = (Vec::new(), Vec::new());
        for community in element.communities.iter().flatten() {
            match community {
                MetaCommunity::Plain(community) => plain.push(community.to_string()),
                MetaCommunity::Large(community) => large.push(community.to_string()),
                other => return Err(format!("{other} is of no kind that the test has").into()),
            }
        }
        println!(
            "{}|{}|{}|{}|{}|{}|{}|{}|{}",
            element.prefix,
            element.peer_ip,
            element.as_path.map(|path| path.to_string()).unwrap_or_default(),
            element.origin.ok_or("no ORIGIN")?,
            element.next_hop.ok_or("no next hop")?,
            element.local_pref.unwrap_or(0),
            element.med.unwrap_or(0),
            plain.join(" "),
            large.join(" "),
        );
    }
    Ok(())
}
