//! Blocks that this node announces and a neighbour does as well.
//!
//! Calico's IPAM confirms a block for one node only, but two confirmed affinities of one block have been seen
//! (calico#6486). Each node goes on to announce the block that its own objects give it; which pods
//! are reached is then a matter of luck, so that operators have to see it.

use bgp_proto::table::{RouteFilter, Table};
use bgp_proto::types::{PeerId, Prefix, Source, Time};

use super::sources::Sources;
use crate::calico::Problem;
use crate::ctl::Names;
use crate::node::NodeStatus;

/// Maximum number of blocks that are examined; a node has a few.
const BLOCKS_MAX: usize = 256;

/// A problem for each block of this node that is received from a neighbour too. Empty if the table
/// does not answer.
pub(super) async fn contested(sources: &Sources, status: &NodeStatus) -> Vec<Problem> {
    let blocks: Vec<Prefix> = status.blocks.iter().take(BLOCKS_MAX).copied().collect();
    if blocks.is_empty() {
        return Vec::new();
    }
    let found = sources.ask(move |table, now| received(table, &blocks, now)).await;
    let Ok(found) = found else { return Vec::new() };
    if found.is_empty() {
        return Vec::new();
    }
    let names = sources.names();
    let problem = |(block, peer): (Prefix, PeerId)| {
        let peer = names.peer(peer).unwrap_or_else(|| "a neighbour".to_owned());
        Problem::new(
            format_args!("BlockAffinity/{}/{block}", status.node),
            format!(
                "{peer} announces this block too, so pods on one of the two nodes are unreachable: \
                 delete the affinity of the node that does not have the block's pods"
            ),
        )
    };
    found.into_iter().map(problem).collect()
}

/// The blocks for which there is a usable path of a peer, and the first such peer of each.
fn received(table: &Table, blocks: &[Prefix], now: Time) -> Vec<(Prefix, PeerId)> {
    let from_peer = |block: &Prefix| {
        let filter = RouteFilter {
            exact: Some(*block),
            source: Some(Source::Bgp),
            ..RouteFilter::default()
        };
        let (views, _) = table.view(&filter, 0, 1, now);
        let path = views.first()?.paths.iter().find(|path| path.unusable.is_none())?;
        Some((*block, path.peer?))
    };
    blocks.iter().filter_map(from_peer).collect()
}
