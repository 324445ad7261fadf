//! Nodes that change all the time, and what that costs.

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

/// Updates of nodes, a thousand a second.
#[derive(Debug)]
pub struct Churn(Daemon);

impl Churn {
    /// Begins to write to etcd on `etcd`, for so many tenths of a second.
    ///
    /// # Errors
    /// When python3 cannot be started.
    pub fn start(etcd: &Host, tenths: u32) -> Result<Self> {
        let (host, rounds) = (etcd.v4().to_string(), tenths.to_string());
        let args = ["-u", "-c", SCRIPT, host.as_str(), rounds.as_str()];
        Ok(Self(etcd.daemon("churn", "python3", &args)?))
    }

    /// Whether it has come to its end; what it printed.
    ///
    /// # Errors
    /// When it failed.
    pub fn finished(&mut self) -> Result<Option<String>> {
        let Some(status) = self.0.exited()? else { return Ok(None) };
        anyhow::ensure!(status.success(), "{}", self.0.output());
        Ok(Some(self.0.output()))
    }
}

/// What a process used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// CPU time in milliseconds.
    pub cpu_millis: u64,
    /// Memory in KiB.
    pub memory_kib: u64,
}

impl Usage {
    /// Of a process.
    ///
    /// # Errors
    /// When `/proc` does not say.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, rest) = stat.rsplit_once(')').context("/proc stat")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |at: usize| -> Result<u64> { Ok(fields.get(at).context("short")?.parse()?) };
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.and_then(|m| m.split_whitespace().next()).context("no VmRSS")?;
        // A tick is 10 ms on every Linux that this runs on (USER_HZ).
        Ok(Self { cpu_millis: (ticks(11)? + ticks(12)?) * 10, memory_kib: memory.parse()? })
    }
}
