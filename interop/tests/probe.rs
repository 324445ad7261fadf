//! `margay probe` names what keeps a session down, and disturbs no session that is up.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use interop::bird2::Bird2;
use interop::frr::Frr;
use interop::lab::{self, Host, Lab, ip};
use interop::margay::{self, Control};
use interop::matrix::{self, PEER_AS, SUBJECT_AS};
use interop::speaker::{Config, Kind, Neighbor, Speaker};
use interop::wait::{PATIENCE, wait_until};
use serde_json::Value;

const PORT: u16 = 1790;
const PREFIX: &str = "203.0.113.0/24";

fn run(name: &str, kinds: &[Kind], test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, kinds, &["nft"], test)
}

/// margay without a neighbour, or with those in `more`.
fn config(host: &Host, more: &str) -> String {
    format!(
        "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:{PORT}\"]\n\n{more}\n{}",
        host.router_id(),
        margay::control_section(host)
    )
}

fn peer(address: &str, more: &str) -> String {
    format!(
        "[[bgp.peers]]\nname = \"tor\"\naddress = \"{address}\"\nport = {PORT}\n\
         remote-asn = {PEER_AS}\nimport = \"all\"\nexport = \"all\"\nconnect-retry-time = 1\n{more}\n"
    )
}

/// A neighbour that knows `host` and never dials it.
fn far_config(far: &Host, host: &Host, change: impl FnOnce(&mut Neighbor)) -> Config {
    let mut config = matrix::config(far, PEER_AS, &[(host, SUBJECT_AS)], &[PREFIX]);
    let neighbour = &mut config.neighbors[0];
    neighbour.passive = true;
    change(neighbour);
    config
}

/// The result of a probe, and whether its exit code fits.
fn probe(control: &Control, target: &str, args: &[&str]) -> Result<Value> {
    let mut command = Command::new(margay::binary()?);
    command.args(["probe", target]).args(args).arg("--json").arg("--socket").arg(control.socket());
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let answer: Value = serde_json::from_str(&text)
        .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let works = answer["works"].as_bool().context("works")?;
    ensure!(output.status.code() == Some(i32::from(!works)), "{}: {answer:#}", output.status);
    Ok(answer)
}

fn step(answer: &Value, name: &str) -> Result<Value> {
    let steps = answer["steps"].as_array().context("steps")?;
    let found = steps.iter().find(|step| step["step"] == name).cloned();
    found.with_context(|| format!("no {name} in {answer:#}"))
}

/// Fails unless this step has this result, and its text or remedy contains all of `words`.
fn expect(answer: &Value, name: &str, result: &str, words: &[&str]) -> Result<()> {
    let step = step(answer, name)?;
    let said = format!("{} {}", step["text"], step["remedy"]);
    ensure!(
        step["result"] == result && words.iter().all(|word| said.contains(word)),
        "{name} {result} {words:?}: {answer:#}"
    );
    Ok(())
}

fn addresses(asn: u32) -> [String; 4] {
    ["--remote-asn".into(), asn.to_string(), "--port".into(), PORT.to_string()]
}

/// Probes a neighbour that margay has no peer for.
fn unconfigured(control: &Control, far: &Host, asn: u32, more: &[&str]) -> Result<Value> {
    let known = addresses(asn);
    let args: Vec<&str> = known.iter().map(String::as_str).chain(more.iter().copied()).collect();
    probe(control, &far.v4().to_string(), &args)
}

#[test]
#[ignore = "needs root, BIRD 2, FRR and nftables"]
fn neighbours_that_would_work_do() -> Result<()> {
    run("probe_works", &[Kind::Bird2, Kind::Frr], |lab| {
        let (host, far, other) = (lab.host("a")?, lab.host("b")?, lab.host("c")?);
        let (_daemon, control) = margay::start_text(&host, &config(&host, ""))?;
        let bird = Bird2::start(&far, &far_config(&far, &host, |_| {}))?;
        let _frr = Frr::start(&other, &far_config(&other, &host, |_| {}))?;
        for neighbour in [&far, &other] {
            let answer = wait_until(PATIENCE, "the neighbour to listen", || {
                let answer = unconfigured(&control, neighbour, PEER_AS, &[])?;
                ensure!(answer["works"] == true, "{answer:#}");
                Ok(answer)
            })?;
            let id = neighbour.router_id().to_string();
            expect(&answer, "route", "works", &["eth0"])?;
            expect(&answer, "tcp", "works", &["1790"])?;
            let asn = format!("AS {PEER_AS}");
            expect(&answer, "open", "works", &["accepted on both sides", &id, &asn, "ipv4"])?;
            expect(&answer, "mtu", "works", &["1500"])?;
            ensure!(answer["peer"].is_null() && answer["state"].is_null(), "{answer:#}");
        }
        let answer = unconfigured(&control, &far, 65_009, &[])?;
        expect(&answer, "open", "fails", &["Bad Peer AS", &PEER_AS.to_string(), "65009"])?;
        // Nothing of it is left at the neighbour.
        wait_until(PATIENCE, "the neighbour to forget it", || {
            let session = bird.session(host.v4())?;
            ensure!(!session.contains("Established"), "{session}");
            Ok(())
        })
    })
}

#[test]
#[ignore = "needs root, BIRD 2 and nftables"]
fn a_session_that_is_up_stays_up() -> Result<()> {
    run("probe_up", &[Kind::Bird2], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        // With graceful restart, a second connection would end the session.
        let graceful = far_config(&far, &host, |neighbour| neighbour.graceful_restart = true);
        let _bird = Bird2::start(&far, &graceful)?;
        let text = config(&host, &peer(&far.v4().to_string(), ""));
        let (_daemon, control) = margay::start_text(&host, &text)?;
        wait_until(PATIENCE, "the session", || control.expect_established(far.v4()))?;
        let before = control.peer(far.v4())?;
        let answer = probe(&control, "tor", &[])?;
        expect(&answer, "route", "works", &["directly connected on eth0"])?;
        expect(&answer, "tcp", "skipped", &["established", "--force"])?;
        expect(&answer, "open", "skipped", &["RFC 4724"])?;
        expect(&answer, "mtu", "works", &["1500"])?;
        ensure!(answer["works"] == true && answer["state"] == "Established", "{answer:#}");
        let text = control.text(&["probe", "tor"])?;
        ensure!(text.contains("\nroute  works    from ") && !text.contains("remedy"), "{text}");
        let after = control.peer(far.v4())?;
        ensure!(before["since"] == after["since"], "{before} {after}");

        // Large packets are lost between the hosts, and nobody says so.
        lab.set_mtu(&far, 1280)?;
        let answer = probe(&control, "tor", &[])?;
        expect(&answer, "mtu", "fails", &["1280 octets reach", "1400 are lost", "MTU"])
    })
}

#[test]
#[ignore = "needs root, BIRD 2 and nftables"]
fn what_is_wrong_on_the_way_is_named() -> Result<()> {
    run("probe_way", &[Kind::Bird2], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let (_daemon, control) = margay::start_text(&host, &config(&host, ""))?;
        let answer = unconfigured(&control, &far, PEER_AS, &[])?;
        expect(&answer, "tcp", "fails", &["refuses connections to port 1790"])?;
        let answer = probe(&control, "192.0.2.7", &[])?;
        expect(&answer, "route", "fails", &["no route leads to 192.0.2.7"])?;
        host.run("ip", &["route", "add", "blackhole", "192.0.2.0/24"])?;
        let answer = probe(&control, "192.0.2.7", &[])?;
        expect(&answer, "route", "fails", &["blackhole"])?;
        let answer = probe(&control, "10.99.0.200", &[])?;
        expect(&answer, "tcp", "fails", &["10.99.0.200 does not answer ARP on eth0"])?;
        let answer = probe(&control, &host.v4().to_string(), &[])?;
        expect(&answer, "route", "fails", &["is an address of this machine"])?;
        let answer = unconfigured(&control, &far, PEER_AS, &["--source-address", "10.99.0.77"])?;
        expect(&answer, "route", "fails", &["10.99.0.77 (source-address) is on no interface"])?;

        let _bird = Bird2::start(&far, &far_config(&far, &host, |_| {}))?;
        far.shell(
            "nft add table ip probe; nft add chain ip probe in '{ type filter hook input \
                   priority 0; }'; nft add rule ip probe in tcp dport 1790 drop",
        )?;
        let answer = unconfigured(&control, &far, PEER_AS, &[])?;
        expect(&answer, "tcp", "fails", &["silently drops our segments", "firewall"])?;
        far.shell("nft add rule ip probe in drop")?;
        let answer = unconfigured(&control, &far, PEER_AS, &[])?;
        expect(&answer, "tcp", "fails", &["no answer", "nor to UDP"])
    })
}

#[test]
#[ignore = "needs root, BIRD 2 and nftables"]
fn a_wrong_password_is_named_and_never_shown() -> Result<()> {
    run("probe_key", &[Kind::Bird2], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let text = config(&host, &peer(&far.v4().to_string(), "password = \"0ur-secret\""));
        let (daemon, control) = margay::start_text(&host, &text)?;
        let keyed = |password: Option<&str>| {
            let password = password.map(str::to_owned);
            far_config(&far, &host, |neighbour| neighbour.password = password)
        };
        let mut bird = Bird2::start(&far, &keyed(Some("theirs")))?;
        let down = |answer: &Value| answer["state"] != "Established";
        let answer = probe(&control, "tor", &[])?;
        expect(&answer, "key", "fails", &["same password on both sides"])?;
        ensure!(down(&answer), "{answer:#}");
        bird.reconfigure(&keyed(None))?;
        let answer = probe(&control, "tor", &[])?;
        expect(&answer, "key", "fails", &["it has no password for us"])?;
        ensure!(!answer.to_string().contains("0ur-secret"), "{answer:#}");
        drop(daemon);

        let (_daemon, control) = margay::start_text(&host, &config(&host, ""))?;
        bird.reconfigure(&keyed(Some("theirs")))?;
        let answer = unconfigured(&control, &far, PEER_AS, &[])?;
        expect(
            &answer,
            "tcp",
            "fails",
            &["if the neighbour has a password or a key chain for us"],
        )?;
        let file = host.write("key", "theirs\n")?;
        let file = file.to_string_lossy();
        let answer = unconfigured(&control, &far, PEER_AS, &["--password-file", &file])?;
        expect(&answer, "key", "works", &["signed"])?;
        expect(&answer, "open", "works", &["accepted"])?;
        ensure!(!answer.to_string().contains("theirs"), "{answer:#}");

        drop(bird);

        // BIRD drops our OPEN, which arrives with TTL 1, and even the end of the connection: it takes no
        // other one for minutes. So each attempt has a BIRD of its own, which only listens.
        let strict = far_config(&far, &host, |neighbour| {
            neighbour.ttl_security = true;
            neighbour.passive = true;
        });
        let probe_anew = |more: &[&str]| -> Result<Value> {
            let bird = Bird2::start(&far, &strict)?;
            wait_until(PATIENCE, "BIRD to listen", || {
                let state = bird.state(host.v4())?;
                ensure!(state == "Passive", "BIRD is {state}");
                Ok(())
            })?;
            unconfigured(&control, &far, PEER_AS, more)
        };
        wait_until(PATIENCE, "an OPEN that is not acknowledged", || {
            expect(&probe_anew(&[])?, "ttl", "fails", &["OPEN is not acknowledged", "ttl-security"])
        })?;
        wait_until(PATIENCE, "an exchange of OPENs", || {
            let answer = probe_anew(&["--ttl-security", "1"])?;
            expect(&answer, "ttl", "works", &["TTL 255"])?;
            expect(&answer, "open", "works", &["accepted"])
        })
    })
}

#[test]
#[ignore = "needs root, BIRD 2 and nftables"]
fn a_neighbour_behind_a_router_is_too_far() -> Result<()> {
    run("probe_ttl", &[Kind::Bird2], |lab| {
        let (host, router, far) = (lab.host("a")?, lab.host("r")?, lab.host("b")?);
        lab.wire((&router, "w0"), (&far, "w0"))?;
        router.shell("ip addr add 10.98.0.1/24 dev w0")?;
        let via = router.v4();
        far.shell(
            "ip link set eth0 down; ip addr add 10.98.0.2/24 dev w0; \
             ip route add default via 10.98.0.1",
        )?;
        host.shell(&format!("ip route add 10.98.0.0/24 via {via}"))?;
        let (_daemon, control) = margay::start_text(&host, &config(&host, &peer("10.98.0.2", "")))?;
        let answer = probe(&control, "tor", &[])?;
        expect(&answer, "ttl", "fails", &["10.98.0.2 is 2 hops away", "multihop-ttl = 2"])?;
        let answer = probe(&control, "tor", &["--multihop-ttl", "2"])?;
        expect(&answer, "tcp", "fails", &["refuses connections"])?;
        ip(&["-n", far.namespace(), "addr", "del", "10.98.0.2/24", "dev", "w0"])?;
        let answer = probe(&control, "tor", &[])?;
        expect(&answer, "ttl", "fails", &["in no network of an interface, TTL is 1"])
    })
}

#[test]
#[ignore = "needs root, BIRD 2 and nftables"]
fn messages_are_logged_for_a_limited_time() -> Result<()> {
    run("probe_debug", &[Kind::Bird2], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let text = config(&host, &peer(&far.v4().to_string(), "password = \"0ur-secret\""));
        let (daemon, control) = margay::start_text(&host, &text)?;
        let begun = control.json(&["debug", "tor", "--for", "60s"])?;
        ensure!(begun[0]["peer"] == "tor" && begun[0]["seconds"].as_u64() > Some(50), "{begun}");
        let keyed = |neighbour: &mut Neighbor| neighbour.password = Some("0ur-secret".to_owned());
        let bird = Bird2::start(&far, &far_config(&far, &host, keyed))?;
        wait_until(PATIENCE, "the session", || control.expect_established(far.v4()))?;
        let wanted = [
            "sent OPEN: AS ",
            &format!("received OPEN: AS {PEER_AS}, id {}", far.router_id()),
            "received KEEPALIVE",
            &format!("received UPDATE: announces {PREFIX} via {}, ORIGIN IGP", far.v4()),
            "sent UPDATE: End-of-RIB, ipv4",
        ];
        wait_until(PATIENCE, "the messages in the log", || {
            let log = daemon.output();
            let missing = wanted.iter().find(|line| !log.contains(**line));
            ensure!(missing.is_none(), "no {missing:?}");
            ensure!(!log.contains("0ur-secret"), "the password is in the log");
            Ok(())
        })?;
        // Messages are no events, and the peer's last events are still there.
        let events = control.text(&["events", "--peer", "tor"])?;
        ensure!(events.contains("session-up") && !events.contains("message-"), "{events}");

        let ended = control.json(&["debug", "tor", "--off"])?;
        ensure!(ended[0]["seconds"].is_null(), "{ended}");
        ensure!(control.text(&["debug"])?.is_empty(), "nobody is debugged");
        // It ends by itself, and then the printing too.
        let mut follow = Command::new(margay::binary()?);
        follow.args(["debug", "tor", "--for", "3s", "--follow"]);
        follow.arg("--socket").arg(control.socket()).stdout(std::process::Stdio::piped());
        let follow = follow.spawn()?;
        wait_until(PATIENCE, "debugging", || {
            ensure!(control.text(&["debug"])?.starts_with("tor: "), "not begun");
            Ok(())
        })?;
        bird.ask("disable all")?;
        let output = follow.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && text.contains("received NOTIFICATION 6/"), "{text}");
        ensure!(control.text(&["debug"])?.is_empty(), "it has ended");
        Ok(())
    })
}

#[test]
#[ignore = "needs root, BIRD 2 and nftables"]
fn a_session_says_itself_why_nobody_answers() -> Result<()> {
    run("probe_hints", &[Kind::Bird2], |lab| {
        let (host, far, near) = (lab.host("a")?, lab.host("b")?, lab.host("c")?);
        host.run("ip", &["route", "add", "192.0.2.0/24", "via", &far.v4().to_string()])?;
        let more = [
            peer(&far.v4().to_string(), "password = \"0urs\""),
            peer("192.0.2.7", "").replace("tor", "remote"),
            peer(&near.v4().to_string(), "").replace("tor", "near"),
        ];
        let (_daemon, control) = margay::start_text(&host, &config(&host, &more.join("\n")))?;
        let reason = |name: &str, text: &str| {
            let peer = control.json(&["show", "peer", name])?;
            let said = peer["last_error"]["text"].to_string();
            ensure!(said.contains(text), "{name}: {said}");
            Ok(peer)
        };
        let far_off = "192.0.2.7 is in no network of an interface and TTL is 1: set multihop-ttl";
        wait_until(PATIENCE, "the hint about TTL", || reason("remote", far_off))?;
        // Both dial: what BIRD sends has another signature.
        let keyed = |neighbour: &mut Neighbor| {
            (neighbour.password, neighbour.passive) = (Some("theirs".to_owned()), false);
        };
        let _bird = Bird2::start(&far, &far_config(&far, &host, keyed))?;
        // BIRD drops what we send with TTL 1.
        let strict = |neighbour: &mut Neighbor| neighbour.ttl_security = true;
        let _strict = Bird2::start(&near, &far_config(&near, &host, strict))?;
        wait_until(PATIENCE, "what is not acknowledged", || {
            let peer = control.json(&["show", "peer", "near"])?;
            let again = peer["unacknowledged"]["retransmissions"].as_u64();
            ensure!(again >= Some(3), "{peer:#}");
            let row = control.text(&["show", "peers", "--down"])?;
            ensure!(row.contains("not acknowledged after"), "{row}");
            Ok(())
        })?;
        let differ = "TCP MD5: the kernel dropped segments with a wrong signature meanwhile: the \
                      passwords differ";
        wait_until(2 * PATIENCE, "the hint about passwords", || reason("tor", differ).map(drop))
    })
}
