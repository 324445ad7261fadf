//! The example `collector` against BIRD 2, on the loopback and without privileges.

#![allow(missing_docs)]
// This is the host's side, with sockets and a clock.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest wait for BIRD's routes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Cargo builds examples beside the tests of a package.
fn collector() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    folder.join("examples/collector")
}

#[test]
#[ignore = "needs BIRD 2"]
fn the_collector_prints_what_bird_announces() {
    let free = TcpListener::bind("127.0.0.2:0").expect("the loopback");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let dir = std::env::temp_dir().join(format!("margay-collector-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder");
    // A next hop outside of 127.0.0.0/8, which no route may have.
    let config = format!(
        "log stderr all; router id 192.0.2.2;
         protocol device {{ }}
         protocol static {{ ipv4; route 198.51.100.0/24 blackhole; route 203.0.113.0/25 blackhole; }}
         protocol bgp {{
             local 127.0.0.2 port {port} as 65001; neighbor 127.0.0.1 as 65000; multihop; passive;
             ipv4 {{ import none; export all; next hop address 192.0.2.2; }};
         }}"
    );
    fs::write(dir.join("bird.conf"), config).expect("a file");
    let mut bird = Command::new("bird");
    bird.arg("-f").arg("-c").arg(dir.join("bird.conf")).arg("-s").arg(dir.join("bird.ctl"));
    bird.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stderr(Stdio::null());
    let _bird = Running(bird.spawn().expect("BIRD 2 is installed (interop/setup.sh peers)"));
    let to = format!("127.0.0.2:{port}");
    let mut collector = Command::new(collector());
    collector.args(["65000", "65001", "127.0.0.1", &to]).stdout(Stdio::piped());
    let mut collector = Running(collector.spawn().expect("cargo builds examples before tests"));
    let stdout = collector.0.stdout.take().expect("it is piped");
    let (lines, heard) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
    });
    let mut missing = vec![
        "announce 198.51.100.0/24 via V4(192.0.2.2) path 65001",
        "announce 203.0.113.0/25 via V4(192.0.2.2) path 65001",
        "EndOfRib Ipv4",
    ];
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = heard.recv_timeout(left).unwrap_or_else(|e| panic!("{e}: without {missing:?}"));
        missing.retain(|wanted| *wanted != line);
    }
    let _ = fs::remove_dir_all(&dir);
}
