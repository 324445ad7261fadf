//! TCP-AO with BIRD 3, under a kernel that has it. One machine for all of it: it is emulated, and its
//! start takes longest.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use interop::bird3::Bird3;
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
    format!(
        "router id {};\nlog stderr all;\nprotocol device {{}}\nprotocol bgp m {{\n local {} as 64512;\n \
         neighbor {} as 64512;\n {how}\n connect delay time 1;\n connect retry time 3;\n error wait time \
         1, 3;\n {authentication}\n ipv4 {{ import all; export all; }};\n}}\n",
        host.router_id(),
        host.v4(),
        margay.v4()
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
