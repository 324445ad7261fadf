//! Changes of Calico's objects, from their octets to what the daemon takes, in a cluster of
//! [`NODES`] nodes.

use std::hint::black_box;

use margay::calico::config::Converter;
use margay::calico::model::decode_etcd;
use margay::calico::{Resolver, Settings};
use margay::config::HostSettings;

use crate::counted_work;

const NODES: u32 = 500;
const BLOCKS: u32 = 1_500;

/// Key and value of an object.
type Object = (String, String);

fn node(number: u32) -> Object {
    let (high, low) = (number / 250, number % 250 + 1);
    let key = format!("/calico/resources/v3/projectcalico.org/nodes/node-{number}");
    let value = format!(
        r#"{{"metadata":{{"name":"node-{number}","labels":{{"rack":"r{}"}}}},"spec":{{"bgp":{{"ipv4Address":"10.1.{high}.{low}/16"}}}}}}"#,
        number / 40
    );
    (key, value)
}

/// A block on a node: 64 addresses.
fn block(number: u32) -> Object {
    let (high, middle, low) = (64 + number / 1024, number / 4 % 256, number % 4 * 64);
    let node = number % NODES;
    (
        format!("/calico/ipam/v2/host/node-{node}/ipv4/block/10.{high}.{middle}.{low}-26"),
        r#"{"state":"confirmed","deleted":false}"#.to_owned(),
    )
}

/// What the daemon of one node holds about its cluster.
struct Cluster {
    resolver: Resolver,
    converter: Converter,
    host: HostSettings,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Cluster {
            resolver: Resolver::new(Settings::new("node-42")),
            converter: Converter::default(),
            host: HostSettings::unused(),
        };
        (0..NODES).map(node).chain((0..BLOCKS).map(block)).for_each(|object| {
            cluster.apply(&object);
        });
        cluster.convert();
        cluster
    }

    /// Whether another plan follows.
    fn apply(&mut self, (key, value): &Object) -> bool {
        let object = decode_etcd(key, value.as_bytes()).expect("an object of Calico's");
        self.resolver.apply(object)
    }

    fn convert(&mut self) {
        let plan = self.resolver.plan();
        black_box(self.converter.convert(&plan, &self.resolver.take_touched(), &self.host));
    }
}

fn written(objects: Vec<Object>) {
    let mut cluster = Cluster::new();
    counted_work(|| {
        for object in &objects {
            assert!(cluster.apply(object), "a plan follows");
            cluster.convert();
        }
    });
}

/// `count` nodes more.
pub(crate) fn nodes(count: u32) {
    written((NODES..NODES + count).map(node).collect());
}

/// `count` blocks more, each on another node or on ours.
pub(crate) fn blocks(count: u32) {
    written((BLOCKS..BLOCKS + count).map(block).collect());
}

/// A Node that is written `count` times with other annotations, as calico-node does.
pub(crate) fn heartbeats(count: u32) {
    let heartbeat = |at: u32| {
        let (key, value) = node(7);
        let annotations = format!(r#""metadata":{{"annotations":{{"heartbeat":"{at}"}},"#);
        (key, value.replacen(r#""metadata":{"#, &annotations, 1))
    };
    let objects: Vec<Object> = (0..count).map(heartbeat).collect();
    let mut cluster = Cluster::new();
    counted_work(|| {
        for object in &objects {
            assert!(!cluster.apply(object), "no plan follows");
        }
    });
}
