//! Nodes that change continuously, and the cost of following them.

use std::fs;

use anyhow::{Context, Result};

use crate::daemon::Daemon;
use crate::lab::Host;

/// Writes `ROUNDS` transactions with 100 nodes each, ten a second, through etcd's JSON gateway. A
/// node changes its label each time; every fourth moves between two addresses.
const SCRIPT: &str = "
import base64, http.client, json, sys, time
host, rounds = sys.argv[1], int(sys.argv[2])
c = http.client.HTTPConnection(host, 2379, timeout=20)
b = lambda s: base64.b64encode(s.encode()).decode()
start = time.monotonic()
for r in range(rounds):
    ops = []
    for i in range(100):
        n = (r * 100 + i) % 400
        a = '10.98.%d.%d/16' % (n // 100 + (10 if n % 4 == 0 and r // 4 % 2 else 0), n % 100 + 1)
        o = {'kind': 'Node', 'apiVersion': 'projectcalico.org/v3',
             'metadata': {'name': 'churn-%d' % n, 'labels': {'beat': str(r)}},
             'spec': {'bgp': {'ipv4Address': a, 'routeReflectorClusterID': '9.9.9.9'}}}
        k = '/calico/resources/v3/projectcalico.org/nodes/churn-%d' % n
        ops.append({'requestPut': {'key': b(k), 'value': b(json.dumps(o))}})
    c.request('POST', '/v3/kv/txn', json.dumps({'success': ops}))
    answer = c.getresponse(); body = answer.read()
    if answer.status != 200: raise SystemExit(body)
    time.sleep(max(0, start + (r + 1) * 0.1 - time.monotonic()))
print('done', rounds * 100, 'updates in', round(time.monotonic() - start, 1), 's')
";

/// Writes 5,000 nodes, three blocks for each and 5,000 BGPPeers: for racks by address, for racks
/// with racks, for single nodes and for every node.
const CLUSTER: &str = "
import base64, http.client, json, sys
c = http.client.HTTPConnection(sys.argv[1], 2379, timeout=20)
b = lambda s: base64.b64encode(s.encode()).decode()
objects = []
def put(plural, kind, name, spec, labels={}):
    o = {'kind': kind, 'apiVersion': 'projectcalico.org/v3',
         'metadata': {'name': name, 'labels': labels}, 'spec': spec}
    k = '/calico/resources/v3/projectcalico.org/%s/%s' % (plural, name)
    objects.append((k, json.dumps(o)))
for n in range(5000):
    bgp = {'ipv4Address': '10.1.%d.%d/16' % (n // 250, n % 250 + 1)}
    put('nodes', 'Node', 'node-%d' % n, {'bgp': bgp}, {'rack': 'r%d' % (n // 40)})
for n in range(15000):
    k = '/calico/ipam/v2/host/node-%d/ipv4/block/10.%d.%d.%d-26' % (
        n % 5000, 66 + n // 1024, n // 4 % 256, n % 4 * 64)
    objects.append((k, '{\"state\":\"confirmed\",\"deleted\":false}'))
for n in range(5000):
    rack = \"rack == 'r%d'\" % (n // 40)
    spec = [{'nodeSelector': rack, 'peerIP': '192.0.2.%d' % (n % 250), 'asNumber': 65001},
            {'node': 'node-%d' % n, 'peerIP': '198.51.100.1', 'asNumber': 65002},
            {'nodeSelector': rack, 'peerSelector': \"rack == 'r%d'\" % (n // 40 + 1)},
            {'peerIP': '10.200.%d.%d' % (n // 250, n % 250), 'asNumber': 65003}][n % 4]
    put('bgppeers', 'BGPPeer', 'peer-%d' % n, spec)
for at in range(0, len(objects), 100):
    ops = [{'requestPut': {'key': b(k), 'value': b(v)}} for k, v in objects[at:at + 100]]
    c.request('POST', '/v3/kv/txn', json.dumps({'success': ops}))
    answer = c.getresponse(); body = answer.read()
    if answer.status != 200: raise SystemExit(body)
";

/// Writes a cluster of 5,000 nodes to etcd on `etcd`.
///
/// # Errors
/// When etcd refuses.
pub fn put_large_cluster(etcd: &Host) -> Result<()> {
    etcd.run("python3", &["-c", CLUSTER, &etcd.v4().to_string()]).map(drop)
}

/// Updates of nodes, a thousand a second.
#[derive(Debug)]
pub struct Churn(Daemon);

impl Churn {
    /// Starts writing to etcd on `etcd`, for `tenths` tenths of a second.
    ///
    /// # Errors
    /// When python3 cannot be started.
    pub fn start(etcd: &Host, tenths: u32) -> Result<Self> {
        let (host, rounds) = (etcd.v4().to_string(), tenths.to_string());
        let args = ["-u", "-c", SCRIPT, host.as_str(), rounds.as_str()];
        Ok(Self(etcd.daemon("churn", "python3", &args)?))
    }

    /// What it has printed. `None`: it still runs.
    ///
    /// # Errors
    /// When it failed.
    pub fn finished(&mut self) -> Result<Option<String>> {
        let Some(status) = self.0.exited()? else { return Ok(None) };
        anyhow::ensure!(status.success(), "{}", self.0.output());
        Ok(Some(self.0.output()))
    }
}

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// CPU time of its current threads, in milliseconds.
    pub cpu_millis: u64,
    /// Resident memory in KiB.
    pub memory_kib: u64,
}

impl Usage {
    /// Reads the usage of a process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn of(pid: u32) -> Result<Self> {
        // Not in ticks: those charge 10 ms to the thread that runs at the end of each.
        let mut nanos = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread that has just ended has none.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanos += text.split(' ').next().context("/proc schedstat")?.parse::<u64>()?;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.and_then(|m| m.split_whitespace().next()).context("no VmRSS")?;
        Ok(Self { cpu_millis: nanos / 1_000_000, memory_kib: memory.parse()? })
    }
}
