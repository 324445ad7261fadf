//! The examples `collector` and `route_server` against BIRD 2, on the loopback and without
//! privileges.

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

/// A folder of its own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let dir = std::env::temp_dir().join(format!("margay-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        Folder(dir)
    }

    /// BIRD with this configuration; its control socket is `NAME.ctl`.
    fn bird(&self, name: &str, config: &str) -> Running {
        let file = self.0.join(name).with_extension("conf");
        fs::write(&file, config).expect("a file");
        let mut bird = Command::new("bird");
        bird.arg("-f").arg("-c").arg(file).arg("-s").arg(self.0.join(name).with_extension("ctl"));
        bird.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stderr(Stdio::null());
        Running(bird.spawn().expect("BIRD 2 is installed (interop/setup.sh peers)"))
    }

    fn ask(&self, name: &str, question: &[&str]) -> String {
        let mut client = Command::new("birdc");
        client.arg("-s").arg(self.0.join(name).with_extension("ctl")).args(question);
        client.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let output = client.output().expect("birdc is installed with bird");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts an example. Cargo builds examples in a directory next to that of a package's tests.
fn example(name: &str, args: &[&str]) -> Running {
    let test = std::env::current_exe().expect("a path");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    let mut command = Command::new(folder.join("examples").join(name));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::null());
    Running(command.spawn().expect("cargo builds examples before tests"))
}

fn free_port(address: &str) -> u16 {
    let free = TcpListener::bind((address, 0)).expect("the loopback");
    free.local_addr().expect("an address").port()
}

#[test]
#[ignore = "needs BIRD 2"]
fn the_collector_prints_what_bird_announces() {
    let port = free_port("127.0.0.2");
    let folder = Folder::new("collector");
    // A next hop outside of 127.0.0.0/8, which is not a valid next hop.
    let _bird = folder.bird(
        "bird",
        &format!(
            "log stderr all; router id 192.0.2.2;
             protocol device {{ }}
             protocol static {{ ipv4; route 198.51.100.0/24 blackhole; route 203.0.113.0/25 blackhole; }}
             protocol bgp {{
                 local 127.0.0.2 port {port} as 65001; neighbor 127.0.0.1 as 65000; multihop; passive;
                 ipv4 {{ import none; export all; next hop address 192.0.2.2; }};
             }}"
        ),
    );
    let to = format!("127.0.0.2:{port}");
    let mut collector = example("collector", &["65000", "65001", "127.0.0.1", &to]);
    let stdout = collector.0.stdout.take().expect("it is piped");
    let (lines, received) = mpsc::channel();
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
        let line =
            received.recv_timeout(left).unwrap_or_else(|e| panic!("{e}: without {missing:?}"));
        missing.retain(|wanted| *wanted != line);
    }
}

/// Three clients with a prefix of their own and one in common.
#[test]
#[ignore = "needs BIRD 2"]
fn the_route_server_leaves_next_hop_and_as_path_unchanged() {
    let port = free_port("127.0.0.1");
    let folder = Folder::new("route-server");
    let listen = format!("127.0.0.1:{port}");
    let clients = ["127.0.0.2=65002", "127.0.0.3=65003", "127.0.0.4=65004"];
    let args: Vec<&str> = ["65000", &listen].into_iter().chain(clients).collect();
    let _server = example("route_server", &args);
    let bird = |n: u8| {
        let own = free_port(&format!("127.0.0.{n}"));
        let config = format!(
            "log stderr all; router id 192.0.2.{n};
             protocol device {{ }}
             protocol static {{
                 ipv4; route 198.51.{n}.0/24 blackhole {{ bgp_med = {n}; }};
                 route 203.0.113.0/25 blackhole;
             }}
             protocol bgp server {{
                 local 127.0.0.{n} port {own} as 6500{n}; strict bind; neighbor 127.0.0.1 port {port} as 65000; multihop;
                 connect delay time 1; connect retry time 1; error wait time 1, 2;
                 ipv4 {{ import all; export where source = RTS_STATIC; next hop address 192.0.2.{n}; }};
             }}"
        );
        folder.bird(&format!("bird{n}"), &config)
    };
    let mut birds: Vec<Running> = (2..=4).map(bird).collect();
    wait_for(
        &folder,
        "bird4",
        "198.51.2.0/24",
        &["BGP.as_path: 65002", "BGP.next_hop: 192.0.2.2", "BGP.med: 2"],
    );
    wait_for(
        &folder,
        "bird4",
        "203.0.113.0/25",
        &["BGP.as_path: 65002", "BGP.next_hop: 192.0.2.2"],
    );
    wait_for(
        &folder,
        "bird2",
        "203.0.113.0/25",
        &["BGP.as_path: 65003", "BGP.next_hop: 192.0.2.3"],
    );
    wait_for(
        &folder,
        "bird2",
        "198.51.4.0/24",
        &["BGP.as_path: 65004", "BGP.next_hop: 192.0.2.4", "BGP.med: 4"],
    );
    // The routes of a client that is gone are withdrawn, or replaced by another client's.
    drop(birds.remove(0));
    wait_for(
        &folder,
        "bird4",
        "203.0.113.0/25",
        &["BGP.as_path: 65003", "BGP.next_hop: 192.0.2.3"],
    );
    wait_for(&folder, "bird4", "198.51.2.0/24", &["Network not found"]);
}

/// Waits until BIRD shows all of this for a prefix from the server.
fn wait_for(folder: &Folder, bird: &str, prefix: &str, wanted: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer =
            folder.ask(bird, &["show", "route", "all", "protocol", "server", "for", prefix]);
        if wanted.iter().all(|text| answer.lines().any(|line| line.trim() == *text)) {
            return;
        }
        assert!(Instant::now() < deadline, "{bird} about {prefix}: {answer}, not {wanted:?}");
        // BIRD has no notification of new routes.
        std::thread::sleep(Duration::from_millis(50));
    }
}
