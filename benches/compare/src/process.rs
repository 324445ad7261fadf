//! The daemon's processes: their resource usage according to the kernel, and their termination with
//! the run.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// Resources of a process and all its descendants.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// utime + stime, seconds.
    pub(crate) cpu_secs: f64,
    /// VmRSS, kB.
    pub(crate) rss_kb: u64,
    /// VmHWM, kB.
    pub(crate) peak_kb: u64,
}

/// Processor time of the threads of one process, seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Threads {
    /// Those named `table`.
    pub(crate) table: f64,
    /// All others that still exist.
    pub(crate) others: f64,
}

/// A daemon under test. Dropping it terminates the process and its descendants.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    name: String,
}

impl Daemon {
    /// Starts `command` with its output redirected to `log`.
    ///
    /// # Errors
    /// The program cannot be started or the log cannot be created.
    pub(crate) fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { child, name })
    }

    /// A message with the exit status, if the process has exited.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("{} ended: {status}", self.name))
    }

    /// Sends SIGHUP: a daemon reads its configuration again.
    pub(crate) fn hang_up(&self) {
        signal(self.child.id(), Signal::HUP);
    }

    /// Processor time so far, by thread. Descendants do not count.
    pub(crate) fn threads(&self) -> Threads {
        let mut threads = Threads::default();
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        for task in tasks.into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let ran = read("schedstat").split(' ').next().and_then(|text| text.parse::<u64>().ok());
            let secs = ran.unwrap_or(0) as f64 / 1e9;
            match read("comm").trim() {
                "table" => threads.table += secs,
                _ => threads.others += secs,
            }
        }
        threads
    }

    /// Resource usage so far.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for pid in family(self.child.id()) {
            usage.cpu_secs += cpu_secs(pid);
            usage.rss_kb += status_kb(pid, "VmRSS:");
            usage.peak_kb += status_kb(pid, "VmHWM:");
        }
        usage
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        // Collected while the parent runs: afterwards its descendants are children of init.
        let family = family(self.child.id());
        signal(self.child.id(), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        for &pid in family.iter().filter(|pid| is_alive(**pid)) {
            signal(pid, Signal::KILL);
        }
        // The process has exited or was killed; reap it.
        let _ = self.child.wait();
        while start.elapsed() < 2 * PATIENCE && family.iter().any(|pid| is_alive(*pid)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have exited in the meantime, which is the goal.
        let _ = kill_process(pid, signal);
    }
}

/// A process and its descendants.
fn family(root: u32) -> Vec<u32> {
    let mut parents: HashMap<u32, Vec<u32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            parents.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(parents.remove(&pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// Fields of `/proc/PID/stat` after the command name: state, parent, ...
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn cpu_secs(pid: u32) -> f64 {
    let ticks = |fields: &[String], at: usize| {
        fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0)
    };
    let Some(fields) = stat(pid) else { return 0.0 };
    let total = ticks(&fields, 11) + ticks(&fields, 12);
    let coarse = total as f64 / rustix::param::clock_ticks_per_second() as f64;
    // Ticks are 10 ms. The scheduler counts in nanoseconds, but only threads that still exist; a
    // larger difference shows that some have ended.
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let run = |path: std::path::PathBuf| {
        fs::read_to_string(path).ok()?.split(' ').next()?.parse::<u64>().ok()
    };
    let fine: u64 = tasks.filter_map(|task| run(task.path().join("schedstat"))).sum();
    let fine = fine as f64 / 1e9;
    if (coarse - fine).abs() <= TICKS_DOUBT { fine } else { coarse }
}

/// VmHWM of this process: of the load generator, kB.
pub(crate) fn own_peak_kb() -> u64 {
    status_kb(std::process::id(), "VmHWM:")
}

/// The largest difference between both counts for the same threads, seconds.
const TICKS_DOUBT: f64 = 0.1;

fn status_kb(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_counts_grandchildren_and_drop_ends_them() {
        let dir = std::env::temp_dir().join(format!("compare-process-{}", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 100 & wait"]);
        let daemon = Daemon::start(command, &dir).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut members = Vec::new();
        while members.len() < 2 && Instant::now() < deadline {
            members = family(daemon.child.id());
        }
        assert_eq!(members.len(), 2, "sh and sleep");
        assert!(daemon.usage().rss_kb > 0);
        drop(daemon);
        fs::remove_file(dir).unwrap();
        assert!(!members.iter().any(|pid| is_alive(*pid)), "{members:?}");
    }
}
