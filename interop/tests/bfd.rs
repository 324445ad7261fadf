//! BFD beside BGP, against BIRD 2, FRR's bfdd, GoBGP 4 and margay itself.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interop::bird2::birdc;
use interop::daemon::Daemon;
use interop::full_kernel;
use interop::gobgp::Gobgp;
use interop::lab::{self, Host, Lab, run_command};
use interop::margay::{self, Control};
use interop::matrix;
use interop::speaker::Kind;
use interop::wait::{PATIENCE, holds_for, wait_until};

const PORT: u16 = 1790;
const ROUTE: &str = "203.0.113.0/24";

fn run(name: &str, kinds: &[Kind], test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, kinds, &[], test)
}

/// Starts margay with one neighbour; `more` are keys of the peer, among them `bfd`.
fn start(host: &Host, neighbor: &Host, more: &str) -> Result<(Daemon, Control)> {
    margay::start_text(host, &config(host, neighbor, more))
}

fn config(host: &Host, neighbor: &Host, more: &str) -> String {
    format!(
        "[bgp]\nasn = 65001\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\n\n\
         [[bgp.peers]]\nname = \"neighbour\"\naddress = \"{}\"\nsource-address = \"{}\"\nport = {PORT}\n\
         remote-asn = 65002\nimport = \"all\"\nexport = \"all\"\nconnect-retry-time = 1\n{more}\n\
         [fib]\nenabled = true\n\n{}bird-sockets = [\"{}\", \"{}\"]\n",
        host.router_id(),
        neighbor.v4(),
        host.v4(),
        margay::control_section(host),
        host.file("margay.bird.ctl").display(),
        host.file("margay.bird6.ctl").display()
    )
}

struct Bird {
    daemon: Daemon,
    socket: PathBuf,
}

impl Bird {
    /// `bfd`: lines of `protocol bfd`. `bgp`: lines of the BGP session.
    fn start(host: &Host, neighbor: &Host, bfd: &str, bgp: &str) -> Result<Bird> {
        let text = format!(
            "log stderr all;\nrouter id {};\nprotocol device {{ scan time 1; }}\n{bfd}\n\
             protocol static {{ ipv4; route {ROUTE} blackhole; }}\n\
             protocol bgp n {{ local {} port {PORT} as 65002; neighbor {} port {PORT} as 65001; \
             hold time 240; connect retry time 1; connect delay time 1; error wait time 1, 2; {bgp} \
             ipv4 {{ import all; export all; next hop self; }}; }}\n",
            host.router_id(),
            host.v4(),
            neighbor.v4(),
        );
        let path = host.write("bird.conf", &text)?;
        let socket = host.file("bird.ctl");
        let (config, control) = (path.to_string_lossy(), socket.to_string_lossy());
        host.run("bird", &["-p", "-c", &config])?;
        let daemon = host.daemon("bird", "bird", &["-f", "-c", &config, "-s", &control])?;
        Ok(Bird { daemon, socket })
    }

    fn ask(&self, command: &str) -> Result<String> {
        birdc(&self.socket, command)
    }
}

/// The only BFD session.
fn session(control: &Control) -> Result<serde_json::Value> {
    let sessions = control.json(&["show", "bfd"])?;
    let session = &sessions[0];
    ensure!(session["state"].is_string(), "no session in {sessions}");
    Ok(session.clone())
}

fn bfd_is(control: &Control, state: &str) -> Result<serde_json::Value> {
    let session = session(control)?;
    ensure!(session["state"] == state, "{session}");
    Ok(session)
}

fn kernel_holds(host: &Host) -> Result<()> {
    let routes = host.run("ip", &["route", "show", ROUTE])?;
    ensure!(!routes.is_empty(), "no kernel route to {ROUTE}");
    Ok(())
}

fn all_up(control: &Control, host: &Host, neighbor: &Host) -> Result<()> {
    wait_until(PATIENCE, "the BGP session", || control.expect_established(neighbor.v4()))?;
    wait_until(PATIENCE, "the BFD session", || bfd_is(control, "Up"))?;
    wait_until(PATIENCE, "the kernel route", || kernel_holds(host))
}

/// Cuts the neighbour off and returns how long its kernel route remained.
fn cut(lab: &Lab, host: &Host, neighbor: &Host) -> Result<Duration> {
    lab.cut(neighbor)?;
    let began = Instant::now();
    while kernel_holds(host).is_ok() {
        ensure!(began.elapsed() < PATIENCE, "the route is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(began.elapsed())
}

/// Two seconds without a failure, then a cut that is noticed.
fn holds_until_cut(lab: &Lab, control: &Control, host: &Host, neighbor: &Host) -> Result<()> {
    holds_for(Duration::from_secs(2), "BFD", || {
        let session = bfd_is(control, "Up")?;
        ensure!(session["failures"] == 0, "{session}");
        Ok(())
    })?;
    let took = cut(lab, host, neighbor)?;
    println!("the kernel route was gone {took:?} after the cut (300 ms detection time)");
    ensure!(took < Duration::from_secs(2), "{took:?}");
    Ok(())
}

const BIRD_BFD: &str = "protocol bfd { interface \"eth0\" { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }; \
     multihop { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }; }";
const FAST: &str = "bfd = { min-tx = 100, min-rx = 100 }\n";

#[test]
#[ignore = "needs root and BIRD 2"]
fn a_neighbour_that_vanishes_is_gone_within_the_detection_time() -> Result<()> {
    run("bfd_cut", &[Kind::Bird2], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let bird = Bird::start(&far, &host, BIRD_BFD, "direct; bfd on;")?;
        let (_daemon, control) = start(&host, &far, FAST)?;
        all_up(&control, &host, &far)?;
        wait_until(PATIENCE, "BIRD's session", || {
            let shown = bird.ask("show bfd sessions")?;
            ensure!(shown.contains(" Up "), "{shown}");
            Ok(())
        })?;
        // And margay's, in BIRD 1.6's format.
        let shown = birdc(&host.file("margay.bird.ctl"), "show bfd sessions")?;
        let row = shown.lines().find(|line| line.starts_with(&far.v4().to_string()));
        let row: Vec<&str> = row.with_context(|| shown.clone())?.split_whitespace().collect();
        ensure!(row[1..3] == ["eth0", "Up"] && row[4..] == ["0.100", "0.300"], "{shown}");
        let none = birdc(&host.file("margay.bird6.ctl"), "show bfd sessions")?;
        ensure!(none.contains("bfd1:") && !none.contains(" Up "), "{none}");
        let took = cut(lab, &host, &far)?;
        println!("the kernel route was gone {took:?} after the cut (300 ms detection time)");
        // Each poll starts a process, on a machine that runs other work.
        ensure!(took < Duration::from_secs(2), "{took:?}");
        let peer = control.peer(far.v4())?;
        ensure!(peer["last_error"]["code"] == 6 && peer["last_error"]["subcode"] == 10, "{peer}");
        ensure!(peer["prefixes_received"] == 0, "no route is kept: {peer}");
        let session = session(&control)?;
        ensure!(session["failures"] == 1 && session["last_down"].is_string(), "{session}");
        lab.mend(&far)?;
        all_up(&control, &host, &far)
    })
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn timers_are_negotiated_and_a_reload_changes_them_without_a_flap() -> Result<()> {
    run("bfd_timers", &[Kind::Bird2], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let bfd = "protocol bfd { interface \"eth0\" { min rx interval 400 ms; min tx interval 200 ms; multiplier 5; }; }";
        let _bird = Bird::start(&far, &host, bfd, "direct; bfd on;")?;
        let (_daemon, control) =
            start(&host, &far, "bfd = { min-tx = 100, min-rx = 50, multiplier = 4 }\n")?;
        all_up(&control, &host, &far)?;
        wait_until(PATIENCE, "the negotiated intervals", || {
            let session = session(&control)?;
            ensure!(session["tx_interval_us"] == 400_000, "ours against BIRD's 400 ms: {session}");
            ensure!(session["detection_time_us"] == 1_000_000, "5 x 200 ms: {session}");
            Ok(())
        })?;
        host.write("margay.toml", &config(&host, &far, "bfd = { min-tx = 900, min-rx = 500 }\n"))?;
        let answer = control.text(&["reload"])?;
        wait_until(PATIENCE, "the changed intervals", || {
            let session = session(&control)?;
            ensure!(session["tx_interval_us"] == 900_000, "{session} {answer}");
            ensure!(session["detection_time_us"] == 2_500_000, "5 x 500 ms: {session}");
            Ok(())
        })?;
        holds_for(Duration::from_secs(2), "both sessions", || {
            let session = bfd_is(&control, "Up")?;
            ensure!(session["ups"] == 1 && session["failures"] == 0, "{session}");
            control.expect_established(far.v4())
        })
    })
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn bfd_that_never_comes_up_does_not_affect_bgp() -> Result<()> {
    run("bfd_alone", &[Kind::Bird2], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let _bird = Bird::start(&far, &host, "", "direct;")?;
        let (_daemon, control) = start(&host, &far, FAST)?;
        wait_until(PATIENCE, "the BGP session", || control.expect_established(far.v4()))?;
        holds_for(Duration::from_secs(2), "the BGP session", || {
            bfd_is(&control, "Down")?;
            control.expect_established(far.v4())
        })
    })
}

/// In strict mode BGP waits for BFD, whether the neighbour has the capability or not.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_strict_session_is_established_when_bfd_is_up() -> Result<()> {
    const STRICT: &str = "bfd = { min-tx = 100, min-rx = 100, strict = true }\n";
    let waits = |control: &Control, far: &Host| {
        let peer = control.peer(far.v4())?;
        ensure!(peer["state"] != "Established", "{peer}");
        ensure!(peer["bfd"] != "Up" && peer["bfd_strict"] == true, "{peer}");
        Ok(())
    };
    run("bfd_strict", &[Kind::Bird2], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let bird = Bird::start(&far, &host, "", "direct;")?;
        let (daemon, control) = start(&host, &far, STRICT)?;
        wait_until(PATIENCE, "the OPENs", || {
            let peer = control.peer(far.v4())?;
            ensure!(peer["state"] == "OpenConfirm", "{peer}");
            waits(&control, &far)
        })?;
        holds_for(Duration::from_secs(3), "no session", || waits(&control, &far))?;
        ensure!(kernel_holds(&host).is_err(), "a route over a path that BFD has not verified");
        drop(bird);
        let bird = Bird::start(&far, &host, BIRD_BFD, "direct; bfd on;")?;
        all_up(&control, &host, &far)?;
        let explained = control.json(&["explain", ROUTE])?;
        ensure!(explained["paths"][0]["bfd"] == "Up", "{explained}");
        drop((bird, daemon));

        let far_text = config(&far, &host, STRICT)
            .replace("asn = 65001\nrouter", "asn = 65002\nrouter")
            .replace("remote-asn = 65002", "remote-asn = 65001");
        let (_daemon, control) = start(&host, &far, STRICT)?;
        let (_far_daemon, _) = margay::start_text(&far, &far_text)?;
        wait_until(PATIENCE, "the BGP session", || control.expect_established(far.v4()))?;
        let peer = control.peer(far.v4())?;
        let capabilities = peer["capabilities"].to_string();
        ensure!(peer["bfd"] == "Up" && capabilities.contains("bfd-strict"), "{peer}");
        Ok(())
    })
}

/// AdminDown, by an operator or for a graceful restart, is not a failure of the path.
#[test]
#[ignore = "needs root"]
fn an_administrative_end_takes_no_session_down() -> Result<()> {
    run("bfd_admin", &[], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let far_text = |bfd: &str| {
            let text = config(&far, &host, bfd)
                .replace("asn = 65001\nrouter", "asn = 65002\nrouter")
                .replace("remote-asn = 65002", "remote-asn = 65001");
            format!("{text}\n[[originate]]\nprefix = \"{ROUTE}\"\n")
        };
        let (_near, control) = start(&host, &far, FAST)?;
        let (daemon, far_control) = margay::start_text(&far, &far_text(FAST))?;
        let no_failure = |session: serde_json::Value| {
            ensure!(session["failures"] == 0, "{session}");
            Ok(())
        };
        all_up(&control, &host, &far)?;
        wait_until(PATIENCE, "the far end", || bfd_is(&far_control, "Up"))?;
        // Taken out of one end's configuration, and put back.
        far.write("margay.toml", &far_text(""))?;
        far_control.text(&["reload"])?;
        wait_until(PATIENCE, "AdminDown", || bfd_is(&control, "Down"))?;
        holds_for(Duration::from_secs(2), "BGP", || {
            no_failure(session(&control)?)?;
            control.expect_established(far.v4())
        })?;
        far.write("margay.toml", &far_text(FAST))?;
        far_control.text(&["reload"])?;
        all_up(&control, &host, &far)?;
        // Stopped for a graceful restart: its routes are kept.
        daemon.signal("TERM")?;
        wait_until(PATIENCE, "AdminDown", || bfd_is(&control, "Down"))?;
        holds_for(Duration::from_secs(2), "the route", || {
            no_failure(session(&control)?)?;
            kernel_holds(&host)
        })
    })
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn authentication_is_accepted_and_a_wrong_key_is_not() -> Result<()> {
    run("bfd_auth", &[Kind::Bird2], |lab| {
        for (bird, ours) in [
            ("keyed sha1", "sha1"),
            ("meticulous keyed sha1", "meticulous-sha1"),
            ("simple", "simple"),
        ] {
            let (host, far) =
                (lab.host(&format!("a{}", ours.len()))?, lab.host(&format!("b{}", ours.len()))?);
            let bfd = format!(
                "protocol bfd {{ interface \"eth0\" {{ interval 100 ms; authentication {bird}; \
                 password \"secret\" {{ id 3; }}; }}; }}"
            );
            let _bird = Bird::start(&far, &host, &bfd, "direct; bfd on;")?;
            let key = |password| {
                format!(
                    "bfd = {{ min-tx = 100, min-rx = 100, auth = {{ type = \"{ours}\", key-id = 3, password = \"{password}\" }} }}\n"
                )
            };
            let (_daemon, control) = start(&host, &far, &key("secret"))?;
            all_up(&control, &host, &far)?;
            holds_for(Duration::from_secs(1), ours, || bfd_is(&control, "Up").map(drop))?;
            // With another key, received packets are discarded and the session goes down.
            host.write("margay.toml", &config(&host, &far, &key("other")))?;
            control.text(&["reload"])?;
            wait_until(PATIENCE, "packets with the wrong key to be discarded", || {
                let session = session(&control)?;
                ensure!(
                    session["state"] == "Down" && session["packets_discarded"].as_u64() > Some(0),
                    "{session}"
                );
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn several_hops_use_their_own_port() -> Result<()> {
    run("bfd_multihop", &[Kind::Bird2], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let bird = Bird::start(&far, &host, BIRD_BFD, "multihop 5; bfd on;")?;
        let (_daemon, control) =
            start(&host, &far, "multihop-ttl = 5\nbfd = { min-tx = 100, min-rx = 100 }\n")?;
        all_up(&control, &host, &far)?;
        ensure!(session(&control)?["multihop"] == true);
        let shown = bird.ask("show bfd sessions")?;
        ensure!(shown.contains(" Up "), "{shown}");
        Ok(())
    })
}

/// FRR's daemons: zebra, bfdd, bgpd.
struct Frr {
    zebra: Daemon,
    _bfdd: Daemon,
    bgpd: Daemon,
}

impl Frr {
    /// `global` and `neighbor`: further lines of the BGP instance and of its neighbour.
    fn start(host: &Host, peer: &Host, global: &str, neighbor: &str) -> Result<Frr> {
        let run_dir = host.file("frr");
        std::fs::create_dir_all(&run_dir)?;
        let dir = run_dir.to_string_lossy().into_owned();
        run_command(std::process::Command::new("chown").args(["frr:frrvty", &dir]))?;
        host.write("zebra.conf", "hostname frr\n")?;
        let profile = "profile fast\n  receive-interval 100\n  transmit-interval 100\n exit";
        host.write("bfdd.conf", &format!("bfd\n {profile}\nexit\n"))?;
        let address = peer.v4();
        let port = format!("port {PORT}");
        let of_neighbor: String =
            ["remote-as 65001", &port, "timers connect 1", "bfd", "bfd profile fast", neighbor]
                .iter()
                .filter(|line| !line.is_empty())
                .map(|line| format!(" neighbor {address} {line}\n"))
                .collect();
        host.write(
            "bgpd.conf",
            &format!(
                "router bgp 65002\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
                 no bgp network import-check\n{global}{of_neighbor} \
                 address-family ipv4 unicast\n  network {ROUTE}\n exit-address-family\n",
                host.router_id(),
            ),
        )?;
        let start = |name: &str, more: &[&str]| -> Result<Daemon> {
            let conf = host.file(&format!("{name}.conf")).to_string_lossy().into_owned();
            let (zserv, pid) = (format!("{dir}/zserv.api"), format!("{dir}/{name}.pid"));
            let common = ["-z", &zserv, "--vty_socket", &dir, "-P", "0", "--log", "stdout"];
            let args = [&common[..], &["-f", &conf, "-i", &pid], more].concat();
            let daemon = host.daemon(name, &format!("/usr/lib/frr/{name}"), &args)?;
            std::thread::sleep(Duration::from_millis(500));
            Ok(daemon)
        };
        let zebra = start("zebra", &[])?;
        let bfdd = start("bfdd", &["--bfdctl", &format!("{dir}/bfdd.sock")])?;
        let bgpd = start("bgpd", &["-p", &PORT.to_string()])?;
        Ok(Frr { zebra, _bfdd: bfdd, bgpd })
    }
}

#[test]
#[ignore = "needs root and FRR"]
fn frr_agrees() -> Result<()> {
    run("bfd_frr", &[Kind::Frr], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let _frr = Frr::start(&far, &host, "", "")?;
        let (_daemon, control) = start(&host, &far, FAST)?;
        all_up(&control, &host, &far)?;
        wait_until(PATIENCE, "the negotiated intervals", || {
            let session = session(&control)?;
            ensure!(
                session["tx_interval_us"] == 100_000 && session["detection_time_us"] == 300_000,
                "{session}"
            );
            Ok(())
        })?;
        holds_until_cut(lab, &control, &host, &far)
    })
}

/// `GoBGP` does not adapt to longer intervals of the other end, so both have the same.
#[test]
#[ignore = "needs root and GoBGP 4 (interop/current.sh)"]
fn gobgp4_agrees() -> Result<()> {
    run("bfd_gobgp4", &[Kind::Gobgp], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let text = format!(
            "[global.config]\n  as = 65002\n  router-id = \"{}\"\n  port = {PORT}\n[[neighbors]]\n  \
             [neighbors.config]\n    neighbor-address = \"{}\"\n    peer-as = 65001\n  \
             [neighbors.transport.config]\n    remote-port = {PORT}\n  [neighbors.timers.config]\n    \
             connect-retry = 1\n  [neighbors.bfd.config]\n    enabled = true\n    \
             desired-minimum-tx-interval = 100000\n    required-minimum-receive = 100000\n    \
             detection-multiplier = 3\n",
            far.router_id(),
            host.v4(),
        );
        let said = matrix::config(&far, 65002, &[], &[]);
        let gobgp = Gobgp::start_text(&far, &said, &text)?;
        let next_hop = far.v4().to_string();
        gobgp.ask(&["global", "rib", "add", ROUTE, "nexthop", &next_hop, "-a", "ipv4"])?;
        let (_daemon, control) = start(&host, &far, FAST)?;
        all_up(&control, &host, &far)?;
        holds_until_cut(lab, &control, &host, &far)
    })
}

/// RFC 5882 §4.3.2: bgpd crashes and its routes are retained for a restart while bfdd runs on; then
/// the neighbour vanishes. With the C bit that is a failure of forwarding, and the routes are
/// removed.
#[test]
#[ignore = "needs root and FRR"]
fn the_c_bit_ends_a_restart_when_forwarding_fails() -> Result<()> {
    run("bfd_c_bit", &[Kind::Frr], |lab| {
        for (at, c_bit) in ["bfd check-control-plane-failure", ""].into_iter().enumerate() {
            let (host, far) = (lab.host(&format!("a{at}"))?, lab.host(&format!("b{at}"))?);
            let restart = " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n";
            let mut frr = Frr::start(&far, &host, restart, c_bit)?;
            let (_daemon, control) = start(&host, &far, FAST)?;
            all_up(&control, &host, &far)?;
            // zebra would tell bfdd that bgpd no longer needs the session.
            frr.zebra.signal("STOP")?;
            frr.bgpd.crash()?;
            wait_until(PATIENCE, "the end of the BGP session", || {
                ensure!(control.expect_established(far.v4()).is_err(), "it is established");
                Ok(())
            })?;
            holds_for(Duration::from_secs(1), "the route and BFD", || {
                kernel_holds(&host)?;
                bfd_is(&control, "Up").map(drop)
            })?;
            lab.cut(&far)?;
            wait_until(PATIENCE, "BFD to fail", || bfd_is(&control, "Down").map(drop))?;
            if c_bit.is_empty() {
                holds_for(Duration::from_secs(2), "the route", || kernel_holds(&host))?;
            } else {
                wait_until(Duration::from_secs(2), "the route to go", || {
                    ensure!(kernel_holds(&host).is_err(), "it is there");
                    Ok(())
                })?;
            }
        }
        Ok(())
    })
}

/// RFC 5882 §4.3.2: BIRD's BFD fails together with BIRD. That is the restart for which its routes
/// are retained.
#[test]
#[ignore = "needs root and BIRD 2"]
fn bfd_that_dies_with_its_daemon_does_not_end_a_graceful_restart() -> Result<()> {
    run("bfd_restart", &[Kind::Bird2], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let mut bird = Bird::start(&far, &host, BIRD_BFD, "direct; bfd on; graceful restart on;")?;
        let (_daemon, control) = start(&host, &far, FAST)?;
        all_up(&control, &host, &far)?;
        bird.daemon.crash()?;
        wait_until(PATIENCE, "BFD to fail", || bfd_is(&control, "Down").map(drop))?;
        ensure!(control.expect_established(far.v4()).is_err(), "the BGP session outlived BIRD");
        holds_for(Duration::from_secs(2), "the route", || kernel_holds(&host))
    })
}

/// Measures several times (`MARGAY_BFD_ROUNDS`, default 3) how long the kernel route to a BIRD that
/// vanishes remains.
#[test]
#[ignore = "needs root and BIRD 2"]
fn the_detection_time_lies_within_its_bounds() -> Result<()> {
    run("bfd_detection", &[Kind::Bird2], |lab| {
        let rounds =
            std::env::var("MARGAY_BFD_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let _bird = Bird::start(&far, &host, BIRD_BFD, "direct; bfd on;")?;
        let (_daemon, control) = start(&host, &far, FAST)?;
        let mut detected = Vec::new();
        for _ in 0..rounds {
            all_up(&control, &host, &far)?;
            wait_until(PATIENCE, "the fast intervals", || {
                let session = session(&control)?;
                ensure!(session["detection_time_us"] == 300_000, "{session}");
                Ok(())
            })?;
            detected.push(cut(lab, &host, &far)?.as_millis());
            lab.mend(&far)?;
        }
        detected.sort_unstable();
        println!("ms until the kernel route is gone, 100 ms x 3: {detected:?}");
        ensure!(detected[0] >= 200, "earlier than (multiplier - 1) intervals: {detected:?}");
        Ok(())
    })
}

/// Detection time of [`LOSSY`]: with a loss of 20 %, eight packets in a row are lost once in 400,000.
const LOSSY_DETECTION: Duration = Duration::from_millis(800);
const LOSSY: &str = "bfd = { min-tx = 100, min-rx = 100, multiplier = 8 }\n";

/// The session at one end of a link that loses or delays packets.
fn degraded(control: &Control) -> Result<serde_json::Value> {
    let text = full_kernel::ask(control, &["show", "bfd", "--json"])?;
    let sessions: serde_json::Value = serde_json::from_str(&text)?;
    let session = &sessions[0];
    ensure!(session["state"] == "Up" && session["failures"] == 0, "{session}");
    ensure!(session["detection_time_us"] == LOSSY_DETECTION.as_micros() as u64, "{session}");
    Ok(session.clone())
}

/// Sets what happens to packets that a host sends.
fn impair(host: &Host, how: &str) -> Result<()> {
    host.shell(&format!("tc qdisc replace dev eth0 root netem {how}")).map(drop)
}

/// How many packets of a host's netem were lost.
fn lost(host: &Host) -> Result<u64> {
    let shown = host.shell("tc -s qdisc show dev eth0")?;
    let count = shown.split("dropped ").nth(1).and_then(|rest| rest.split(',').next());
    count.and_then(|count| count.parse().ok()).with_context(|| shown.clone())
}

fn lossy_link(lab: &mut Lab) -> Result<()> {
    let (host, far) = (lab.host("a")?, lab.host("b")?);
    let (_daemon, control) = start(&host, &far, LOSSY)?;
    let mirrored = config(&far, &host, LOSSY).replace("= 65001", "= 6500x");
    let mirrored = mirrored.replace("= 65002", "= 65001").replace("= 6500x", "= 65002");
    let (_far_daemon, far_control) = margay::start_text(&far, &mirrored)?;
    let ends = [&control, &far_control];
    wait_until(PATIENCE, "both ends", || ends.iter().try_for_each(|end| degraded(end).map(drop)))?;

    for (how, time) in [("loss 20%", 2), ("delay 50ms 50ms", 2)] {
        impair(&host, how)?;
        impair(&far, how)?;
        holds_for(Duration::from_secs(time), how, || {
            ends.iter().try_for_each(|end| degraded(end).map(drop))
        })?;
        if how.starts_with("loss") {
            ensure!(lost(&host)? + lost(&far)? > 0, "netem loses nothing");
        } else {
            let jitter = degraded(&control)?["jitter_us"].as_u64().unwrap_or_default();
            ensure!(jitter > 15_000, "{jitter} us");
        }
    }

    // All that the far end sends is lost. The last packet was sent an interval before, at most.
    impair(&far, "loss 0%")?;
    holds_for(LOSSY_DETECTION, "no delay", || degraded(&control).map(drop))?;
    let log = host.file("margay.log");
    impair(&far, "loss 100%")?;
    let began = Instant::now();
    while !std::fs::read_to_string(&log)?.contains("BFD session down") {
        ensure!(began.elapsed() < PATIENCE, "never down");
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = began.elapsed();
    println!("down {took:?} after the loss of all packets, detection time {LOSSY_DETECTION:?}");
    ensure!(took >= Duration::from_millis(600), "{took:?} is too early");
    // The emulated kernel has one processor, which the test shares.
    ensure!(took < LOSSY_DETECTION + Duration::from_millis(200), "{took:?} is too late");
    Ok(())
}

/// Under a kernel that has netem.
#[test]
#[ignore = "needs root, a full kernel (interop/setup.sh vm)"]
fn lost_and_delayed_packets_take_no_session_down() -> Result<()> {
    full_kernel::run("lost_and_delayed_packets_take_no_session_down", || {
        run_command(Command::new("modprobe").arg("sch_netem"))?;
        run("bfd-netem", &[], lossy_link)
    })
}
