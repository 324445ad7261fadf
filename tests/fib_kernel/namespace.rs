//! Helpers for namespaces, `ip` and a FIB with its events.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bgp_proto::types::{FibKind, FibRoute, Hop, Prefix};
use margay::kernel::{Fib, FibConfig, FibEvent, FibState, FibView, Leave, RouteDefaults};

pub(crate) const INSIDE: &str = "MARGAY_TEST_NAMESPACE";

/// Runs `body` in a new network namespace. `name` is the path of the test.
pub(crate) fn in_namespace(name: &str, body: impl FnOnce()) {
    unshared(&["--net"], name, body);
}

/// As [`in_namespace`], also in a new user namespace: root inside, without privileges outside.
pub(crate) fn in_user_namespace(name: &str, body: impl FnOnce()) {
    unshared(&["--user", "--map-root-user", "--net"], name, body);
}

fn unshared(kinds: &[&str], name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
    assert!(is_root, "network namespaces need root");
    let exe = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(kinds)
        .args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(exe)
        .args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare (util-linux) is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "in the namespace:\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs `ip ARGS`, which must succeed; returns its output.
pub(crate) fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(
        output.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `ip -batch`. Every line must succeed.
pub(crate) fn ip_batch(lines: &str) {
    assert!(try_ip_batch(lines), "ip -batch failed");
}

/// As [`ip_batch`], but lines may fail; returns whether none did.
pub(crate) fn try_ip_batch(lines: &str) -> bool {
    use std::io::Write as _;
    let mut child = Command::new("ip")
        .args(["-force", "-batch", "-"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait().unwrap().success()
}

/// The routes that `ip -N route ARGS` shows, one per line, without trailing blanks.
pub(crate) fn routes(args: &str) -> Vec<String> {
    let mut lines = Vec::new();
    // A multipath route has several lines; those after the first are indented.
    for line in ip(&format!("-N {args}")).lines() {
        if line.starts_with(['\t', ' ']) {
            let last: &mut String = lines.last_mut().unwrap();
            last.push(' ');
            last.push_str(line.trim());
        } else {
            // With numeric output, types are numbers too.
            let line = line.trim();
            lines.push(match line.split_once(' ') {
                Some(("6", rest)) => format!("blackhole {rest}"),
                Some(("7", rest)) => format!("unreachable {rest}"),
                _ => line.to_owned(),
            });
        }
    }
    lines
}

/// A veth pair, both ends up, the first with addresses.
pub(crate) fn veth(name: &str, v4: &str, v6: &str) {
    ip(&format!("link add {name} type veth peer name {name}p"));
    ip(&format!("link set {name} up"));
    ip(&format!("link set {name}p up"));
    if !v4.is_empty() {
        ip(&format!("addr add {v4} dev {name}"));
    }
    if !v6.is_empty() {
        ip(&format!("addr add {v6} dev {name} nodad"));
    }
}

/// The kernel's index of an interface.
pub(crate) fn ifindex(name: &str) -> u32 {
    let line = ip(&format!("-o link show dev {name}"));
    line.split(':').next().unwrap().trim().parse().unwrap()
}

/// The main table, with protocol bird, as by default in margay's configuration.
pub(crate) fn main_table() -> FibConfig {
    FibConfig::new(254, 12)
}

/// A configuration in which routes get the kernel's default metric.
pub(crate) fn without_metric() -> FibConfig {
    let defaults = RouteDefaults { metric: Some(0), ..RouteDefaults::default() };
    FibConfig { defaults, ..main_table() }
}

/// A running FIB that keeps its events.
pub(crate) struct Running {
    pub(crate) fib: Fib,
    events: Arc<Mutex<Vec<FibEvent>>>,
    /// While it is held, the FIB's thread blocks at its next event.
    pub(crate) gate: Arc<Mutex<()>>,
}

impl Running {
    /// Started, with the first dump of the kernel complete.
    pub(crate) fn start(config: FibConfig) -> Running {
        let events = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Mutex::new(()));
        let (sink, passage) = (Arc::clone(&events), Arc::clone(&gate));
        let sink = move |event| {
            drop(passage.lock().unwrap());
            sink.lock().unwrap().push(event);
        };
        let fib = Fib::start(config, sink).unwrap();
        let running = Running { fib, events, gate };
        running.wait_event(|event| matches!(event, FibEvent::Synchronised { .. }));
        running
    }

    /// Started with the defaults, after the end of start-up.
    pub(crate) fn with_defaults() -> Running {
        let running = Running::start(main_table());
        running.fib.end_of_startup();
        running
    }

    /// Started without a metric, after the end of start-up.
    pub(crate) fn started() -> Running {
        let running = Running::start(without_metric());
        running.fib.end_of_startup();
        running
    }

    pub(crate) fn want(&self, prefix: &str, kind: FibKind) {
        let prefix: Prefix = prefix.parse().unwrap();
        self.fib.submit([(prefix, Some(FibRoute::new(prefix, kind)))]);
    }

    pub(crate) fn withdraw(&self, prefix: &str) {
        self.fib.submit([(prefix.parse().unwrap(), None)]);
    }

    pub(crate) fn row(&self, prefix: &str) -> Option<FibView> {
        let prefix: Prefix = prefix.parse().unwrap();
        self.fib.view(None, usize::MAX).into_iter().find(|row| row.prefix == prefix)
    }

    pub(crate) fn wait_state(&self, prefix: &str, state: FibState) -> FibView {
        eventually(&format!("{prefix} is {state:?}"), || {
            self.row(prefix).filter(|row| row.state == state)
        })
    }

    pub(crate) fn wait_gone(&self, prefix: &str) {
        eventually(&format!("{prefix} is gone"), || self.row(prefix).is_none().then_some(()));
    }

    /// Waits for an event, and removes it and all earlier ones.
    pub(crate) fn wait_event(&self, mut selects: impl FnMut(&FibEvent) -> bool) -> FibEvent {
        let what = "an event";
        eventually(what, || {
            let mut events = self.events.lock().unwrap();
            let at = events.iter().position(&mut selects)?;
            events.drain(..=at).next_back()
        })
    }

    pub(crate) fn take_events(&self) -> Vec<FibEvent> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }

    pub(crate) fn stop(self, leave: Leave) {
        self.fib.stop(leave);
    }
}

/// Waits up to 20 s until `check` returns a value.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn hop(gateway: &str, interface: &str) -> Hop {
    let gateway: Option<IpAddr> = (!gateway.is_empty()).then(|| gateway.parse().unwrap());
    Hop { gateway, ifindex: ifindex(interface), onlink: false, weight: 1 }
}

pub(crate) fn via(gateway: &str, interface: &str) -> FibKind {
    FibKind::Unicast(vec![hop(gateway, interface)])
}

/// `ip monitor route` for both families.
pub(crate) struct Monitor(std::process::Child);

impl Monitor {
    pub(crate) fn start() -> Monitor {
        let child = Command::new("ip")
            .args(["-N", "-o", "monitor", "route"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It is ready once it has opened its socket.
        eventually("the monitor listens", || {
            let fds = std::fs::read_dir(format!("/proc/{}/fd", child.id())).ok()?;
            let mut targets = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
            targets.any(|target| target.to_string_lossy().starts_with("socket:")).then_some(())
        });
        std::thread::sleep(Duration::from_millis(50));
        Monitor(child)
    }

    /// What it printed.
    pub(crate) fn finish(&mut self) -> String {
        use std::io::Read as _;
        std::thread::sleep(Duration::from_millis(100));
        let _ = self.0.kill();
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let _ = self.0.wait();
        text
    }
}
