//! TCP-AO with BIRD 3, under a kernel that has it. The machine is emulated, and its start takes longest.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use interop::bird3::Bird3;
use interop::daemon::Daemon;
use interop::full_kernel;
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Control, control_section};
use interop::speaker::Kind;
use interop::wait::{holds_for, wait_until};
use serde_json::Value;

/// A program takes ten times as long as on the machine itself.
const SLOW: Duration = Duration::from_secs(90);
/// In which a session with a wrong key would come up.
const QUIET: Duration = Duration::from_secs(5);

/// Keys as both sides write them: id, secret.
type Keys<'a> = &'a [(u8, &'a str)];

/// margay with its neighbours: two with the chain `fabric`, of which one is dialled and one connects from
/// a range, one whose secret differs, and one with TCP MD5.
fn ours(host: &Host, neighbours: &[Host; 4], keys: Keys<'_>, more: &str) -> String {
    let [dialled, range, wrong, md5] = neighbours.each_ref().map(Host::v4);
    let mut text = format!(
        "[bgp]\nasn = 64512\nrouter-id = \"{}\"\nconnect-retry-time = 1\nhold-time = 30\n[fib]\nenabled = false\n",
        host.router_id()
    );
    for (address, more) in [
        (dialled, "tcp-ao = \"fabric\""),
        (wrong, "tcp-ao = \"fabric\""),
        (md5, "password = \"md5\""),
    ] {
        text += &format!("[[bgp.peers]]\naddress = \"{address}\"\nremote-asn = 64512\n{more}\n");
    }
    text += &format!(
        "[[bgp.dynamic-peers]]\nprefix = \"{range}/32\"\nremote-asn = 64512\ntcp-ao = \"fabric\"\n"
    );
    text += "[[key-chains]]\nname = \"fabric\"\n";
    for (id, secret) in keys {
        let algorithm = if id % 2 == 0 { "aes-128-cmac" } else { "hmac-sha1" };
        text += &format!(
            "[[key-chains.keys]]\nid = {id}\nalgorithm = \"{algorithm}\"\nsecret = \"{secret}\"\n"
        );
    }
    text + more + &control_section(host)
}

/// BIRD's side; of the keys, the last is preferred.
fn theirs(host: &Host, margay: &Host, how: &str, authentication: &str) -> String {
    between(host, [host.v4(), margay.v4()], how, authentication)
}

/// The same between two addresses, its own first.
fn between(host: &Host, [own, margay]: [IpAddr; 2], how: &str, authentication: &str) -> String {
    let family = if own.is_ipv4() { "ipv4" } else { "ipv6" };
    format!(
        "router id {};\nlog stderr all;\nprotocol device {{}}\nprotocol bgp m {{\n local {own} as 64512;\n \
         neighbor {margay} as 64512;\n {how}\n connect delay time 1;\n connect retry time 3;\n error wait \
         time 1, 3;\n {authentication}\n {family} {{ import all; export all; }};\n}}\n",
        host.router_id(),
    )
}

fn ao(keys: Keys<'_>) -> String {
    let mut text = "authentication ao;\n keys {\n".to_owned();
    for (number, (id, secret)) in keys.iter().enumerate() {
        let algorithm = if id % 2 == 0 { "cmac aes128" } else { "hmac sha1" };
        let preferred = if number + 1 == keys.len() { "preferred; " } else { "" };
        text += &format!(
            "  key {{ id {id}; secret \"{secret}\"; algorithm {algorithm}; {preferred}}};\n"
        );
    }
    text + " };"
}

fn peer(control: &Control, name: &str) -> Result<Value> {
    control.json(&["show", "peer", name])
}

fn established(control: &Control, name: &str) -> Result<Value> {
    let found = peer(control, name)?;
    ensure!(found["state"] == "Established", "{found}");
    Ok(found)
}

/// The id of the key for which `what` is true.
fn selected(peer: &Value, what: &str) -> Option<u64> {
    let keys = peer["tcp_ao"]["keys"].as_array()?;
    keys.iter().find(|key| key[what] == true)?["id"].as_u64()
}

fn uses(control: &Control, name: &str, id: u64) -> Result<()> {
    let found = established(control, name)?;
    ensure!(selected(&found, "current") == Some(id), "not signed with {id}: {}", found["tcp_ao"]);
    ensure!(selected(&found, "next") == Some(id), "{id} is not asked for: {}", found["tcp_ao"]);
    ensure!(found["flaps"] == 0, "the session ended: {found}");
    Ok(())
}

fn sessions(x: &Host, lab: &mut Lab) -> Result<()> {
    let hosts: [Host; 4] =
        [lab.host("dialled")?, lab.host("range")?, lab.host("wrong")?, lab.host("md5")?];
    let first: Keys<'_> = &[(1, "first")];
    let both: Keys<'_> = &[(1, "first"), (2, "second")];
    let second: Keys<'_> = &[(2, "second")];
    let (daemon, control) = margay::start_text(x, &ours(x, &hosts, first, ""))?;
    let text =
        |at: usize, how: &str, authentication: &str| theirs(&hosts[at], x, how, authentication);
    let dialled = Bird3::start(&hosts[0], &text(0, "passive;", &ao(first)))?;
    let range = Bird3::start(&hosts[1], &text(1, "", &ao(first)))?;
    let wrong = Bird3::start(&hosts[2], &text(2, "", &ao(&[(1, "other")])))?;
    let md5 = Bird3::start(&hosts[3], &text(3, "", "authentication md5;\n password \"md5\";"))?;
    let names = hosts.each_ref().map(|host| host.v4().to_string());
    let birds = [&dialled, &range];
    let all_use = |id| names[..2].iter().try_for_each(|name| uses(&control, name, id));
    wait_until(SLOW, "sessions with key 1", || all_use(1)).with_context(|| dialled.log())?;
    wait_until(SLOW, "the session with TCP MD5", || established(&control, &names[3]).map(drop))
        .with_context(|| md5.log())?;

    // A wrong secret: the counters of the listening socket say so.
    let shown = wait_until(SLOW, "attempts with a wrong signature", || {
        let found = peer(&control, &names[2])?;
        ensure!(found["tcp_ao"]["keys"][0]["attempts_bad"].as_u64() > Some(0), "{found}");
        control.text(&["show", "peer", &names[2]])
    })?;
    ensure!(shown.contains("were signed wrongly with key 1: compare secret"), "{shown}");
    holds_for(QUIET, "no session with a wrong key", || {
        let found = peer(&control, &names[2])?;
        ensure!(found["state"] != "Established", "{found}\n{}", wrong.log());
        Ok(())
    })?;
    println!("{}", control.text(&["show", "peer", &names[0]])?);

    // Another key, first here: sessions go on with the old one until the neighbours have it.
    let file = x.file("margay.toml");
    std::fs::write(&file, ours(x, &hosts, both, ""))?;
    let reloaded = control.text(&["reload"])?;
    ensure!(reloaded.contains("keys of TCP-AO changed, session stays"), "{reloaded}");
    wait_until(SLOW, "key 2 is asked for", || {
        let found = established(&control, &names[0])?;
        ensure!(selected(&found, "next") == Some(2), "{}", found["tcp_ao"]);
        ensure!(selected(&found, "current") == Some(1), "{}", found["tcp_ao"]);
        Ok(())
    })?;
    for (at, bird) in birds.iter().enumerate() {
        let how = if at == 0 { "passive;" } else { "" };
        bird.configure(&text(at, how, &ao(both)))?;
    }
    wait_until(SLOW, "sessions with key 2", || all_use(2)).with_context(|| dialled.log())?;
    std::fs::write(&file, ours(x, &hosts, second, ""))?;
    control.text(&["reload"])?;
    for (at, bird) in birds.iter().enumerate() {
        let how = if at == 0 { "passive;" } else { "" };
        bird.configure(&text(at, how, &ao(second)))?;
    }
    wait_until(SLOW, "no key but 2", || {
        all_use(2)?;
        let found = peer(&control, &names[0])?;
        ensure!(found["tcp_ao"]["keys"].as_array().map(Vec::len) == Some(1), "{found}");
        Ok(())
    })?;

    // A lifetime begins: the neighbours hold key 3 before, and still prefer 2.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let third: Keys<'_> = &[(3, "third"), (2, "second")];
    for (at, bird) in birds.iter().enumerate() {
        let how = if at == 0 { "passive;" } else { "" };
        bird.configure(&text(at, how, &ao(third)))?;
    }
    let begins = x.run("date", &["-u", "-d", &format!("@{}", now + 15), "+%FT%TZ"])?;
    let later = format!(
        "[[key-chains.keys]]\nid = 3\nsecret = \"third\"\nsend = {{ from = {} }}\n",
        begins.trim()
    );
    std::fs::write(&file, ours(x, &hosts, second, &later))?;
    control.text(&["reload"])?;
    all_use(2)?;
    wait_until(SLOW, "key 3 is asked for when its lifetime has begun", || {
        let found = established(&control, &names[0])?;
        ensure!(selected(&found, "next") == Some(3), "{}", found["tcp_ao"]);
        ensure!(found["flaps"] == 0, "{found}");
        Ok(())
    })?;

    // A restart.
    drop(daemon);
    let (_daemon, control) = margay::start_text(x, &ours(x, &hosts, second, ""))?;
    wait_until(SLOW, "sessions after a restart", || {
        names[..2].iter().try_for_each(|name| uses(&control, name, 2))
    })
    .with_context(|| dialled.log())?;
    Ok(())
}

/// A chain and its two neighbours: one over IPv6, one in a VRF with a network of its own.
struct SixAndVrf {
    x: Host,
    control: Control,
    six: Bird3,
    red: Bird3,
    six_host: Host,
    red_host: Host,
    _daemon: Daemon,
}

/// Addresses in the VRF.
const RED: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

impl SixAndVrf {
    fn start(x: &Host, lab: &mut Lab) -> Result<Self> {
        let (six_host, red_host) = (lab.host("six")?, lab.host("red")?);
        lab.link(x, "red0")?;
        x.shell(&format!(
            "ip link add red type vrf table 200; ip link set red up; ip link set red0 master red; \
             ip addr add {}/24 dev red0",
            RED[0]
        ))?;
        red_host.run("ip", &["addr", "add", &format!("{}/24", RED[1]), "dev", "eth0"])?;
        let first = "[[key-chains.keys]]\nid = 1\nsecret = \"first\"\n";
        let (daemon, control) = margay::start_text(x, &Self::ours(x, &six_host, first))?;
        let keys = ao(&[(1, "first")]);
        let six = Bird3::start(&six_host, &Self::six(x, &six_host, &keys))?;
        let red = Bird3::start(&red_host, &Self::red(&red_host, &keys)?)?;
        let x = x.clone();
        Ok(Self { x, control, six, red, six_host, red_host, _daemon: daemon })
    }

    fn ours(x: &Host, six: &Host, keys: &str) -> String {
        format!(
            "[bgp]\nasn = 64512\nrouter-id = \"{}\"\nconnect-retry-time = 1\nhold-time = 20\n\
             [fib]\nenabled = false\n[[vrfs]]\nname = \"red\"\n\
             [[bgp.peers]]\nname = \"six\"\naddress = \"{}\"\nremote-asn = 64512\ntcp-ao = \"fabric\"\n\
             [[bgp.peers]]\nname = \"red\"\nvrf = \"red\"\naddress = \"{}\"\nremote-asn = 64512\n\
             tcp-ao = \"fabric\"\n[[key-chains]]\nname = \"fabric\"\n{keys}{}",
            x.router_id(),
            six.v6(),
            RED[1],
            control_section(x)
        )
    }

    fn six(x: &Host, six: &Host, authentication: &str) -> String {
        between(six, [six.v6(), x.v6()], "passive;", authentication)
    }

    fn red(red: &Host, authentication: &str) -> Result<String> {
        Ok(between(red, [RED[1].parse()?, RED[0].parse()?], "", authentication))
    }

    /// Gives both neighbours these keys.
    fn give(&self, keys: Keys<'_>) -> Result<()> {
        self.six.configure(&Self::six(&self.x, &self.six_host, &ao(keys)))?;
        self.red.configure(&Self::red(&self.red_host, &ao(keys))?).map(drop)
    }

    /// Reloads margay with these keys; returns what it says.
    fn reload(&self, keys: &str) -> Result<String> {
        std::fs::write(self.x.file("margay.toml"), Self::ours(&self.x, &self.six_host, keys))?;
        self.control.text(&["reload"])
    }

    /// Waits until both sessions sign with a key, and have not ended since they were configured.
    fn wait_key(&self, id: u64) -> Result<()> {
        wait_until(SLOW, &format!("both sessions with key {id}"), || {
            for name in ["six", "red"] {
                let found = established(&self.control, name)?;
                ensure!(selected(&found, "current") == Some(id), "{name}: {}", found["tcp_ao"]);
                ensure!(found["flaps"] == 0, "{found}");
            }
            Ok(())
        })
        .with_context(|| self.six.log() + &self.red.log())
    }
}

/// Over IPv6 and in a VRF: a secret that changes under its id; over IPv6, a lifetime that ends while its
/// key is in use.
fn changes(x: &Host, lab: &mut Lab) -> Result<()> {
    let pair = SixAndVrf::start(x, lab)?;
    pair.wait_key(1)?;

    // The secret changes under its id: the kernel cannot replace a key.
    let said = pair.reload("[[key-chains.keys]]\nid = 1\nsecret = \"other\"\n")?;
    for name in ["six", "red"] {
        let line = format!("peer {name}: session parameters changed, session restarts (tcp-ao");
        ensure!(said.contains(&line), "{said}");
    }
    wait_until(SLOW, "the reason why there is no session", || {
        let found = peer(&pair.control, "red")?;
        let text = found["last_error"]["text"].as_str().unwrap_or_default();
        ensure!(text.contains("the secrets or algorithms of a key differ"), "{found}");
        Ok(())
    })?;
    pair.give(&[(1, "other")])?;
    pair.wait_key(1)?;

    // Both lifetimes of key 1 end while it is in use.
    let both: Keys<'_> = &[(4, "fourth"), (1, "other")];
    pair.six.configure(&SixAndVrf::six(x, &pair.six_host, &ao(both)))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let ends = x.run("date", &["-u", "-d", &format!("@{}", now + 20), "+%FT%TZ"])?;
    let until = format!("{{ until = {} }}", ends.trim());
    let keys = format!(
        "[[key-chains.keys]]\nid = 4\nsecret = \"fourth\"\nalgorithm = \"aes-128-cmac\"\n\
         [[key-chains.keys]]\nid = 1\nsecret = \"other\"\nsend = {until}\naccept = {until}\n"
    );
    let said = pair.reload(&keys)?;
    ensure!(said.contains("peer six: keys of TCP-AO changed, session stays"), "{said}");
    wait_until(SLOW, "key 4 alone, in the same session", || {
        let found = established(&pair.control, "six")?;
        ensure!(selected(&found, "current") == Some(4), "{}", found["tcp_ao"]);
        let held = |key: &&Value| key["held"] == true;
        let keys = found["tcp_ao"]["keys"].as_array().context("no keys")?;
        ensure!(keys.iter().filter(held).count() == 1, "{found}");
        ensure!(found["flaps"] == 0, "the session ended: {found}");
        Ok(())
    })?;
    let events = pair.control.text(&["events", "--peer", "six"])?;
    ensure!(events.contains("signing with key 4 of chain \"fabric\""), "{events}");
    Ok(())
}

#[test]
#[ignore = "needs root, BIRD 2's client, BIRD 3 and a kernel with TCP-AO (interop/setup.sh tcp-ao), minutes"]
fn keys_change_over_ipv6_and_in_a_vrf() {
    let inside = || {
        lab::run("tcp-ao-six", &[Kind::Bird2], |lab| {
            let x = lab.host("x")?;
            changes(&x, lab)
        })
    };
    full_kernel::run_emulated("keys_change_over_ipv6_and_in_a_vrf", inside).unwrap();
}

#[test]
#[ignore = "needs root, BIRD 2's client, BIRD 3 and a kernel with TCP-AO (interop/setup.sh tcp-ao), two minutes"]
fn keys_of_tcp_ao_with_bird_3() {
    let inside = || {
        lab::run("tcp-ao", &[Kind::Bird2], |lab| {
            let x = lab.host("x")?;
            sessions(&x, lab)
        })
    };
    full_kernel::run_emulated("keys_of_tcp_ao_with_bird_3", inside).unwrap();
}

/// On the machine's own kernel, which may lack TCP-AO: then the neighbour is named with the reason.
#[test]
#[ignore = "needs root"]
fn a_kernel_without_tcp_ao_is_named() {
    let body = |lab: &mut Lab| {
        let x = lab.host("x")?;
        let y = lab.host("y")?;
        let hosts = [(); 4].map(|()| y.clone());
        let text = ours(&x, &hosts, &[(1, "first")], "");
        // One neighbour is enough.
        let (head, rest) = text.split_once("[[bgp.peers]]").context("no peer")?;
        let (first, _) = rest.split_once("[[bgp.peers]]").context("no second peer")?;
        let (_, chains) = rest.split_once("[[key-chains]]").context("no chain")?;
        let text = format!("{head}[[bgp.peers]]{first}[[key-chains]]{chains}");
        let (_daemon, control) = margay::start_text(&x, &text)?;
        let checked = x
            .command(&margay::binary()?.to_string_lossy())
            .args(["check", "--config"])
            .arg(x.file("margay.toml"))
            .output()?;
        let said = String::from_utf8_lossy(&checked.stdout);
        let lacks = said.contains("this kernel has no TCP-AO (Linux 6.7 with CONFIG_TCP_AO)");
        ensure!(checked.status.success() != lacks, "{}: {said}", checked.status);
        let name = y.v4().to_string();
        wait_until(SLOW, "the reason", || {
            let found = peer(&control, &name)?;
            let reason = found["last_error"]["text"].as_str().unwrap_or_default();
            ensure!(reason.contains("this kernel has no TCP-AO") == lacks, "{lacks}: {found}");
            ensure!(found["state"] != "Established", "{found}");
            Ok(())
        })
    };
    lab::run_margay("no-tcp-ao", &[], &[], body).unwrap();
}
