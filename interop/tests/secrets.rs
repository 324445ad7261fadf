//! Secrets in files that change while margay runs: as Kubernetes replaces those of a volume, written in
//! place, lost, emptied and restored, among a thousand files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interop::bird2::Bird2;
use interop::lab::{self, Host};
use interop::margay::{self, Control};
use interop::matrix::{PEER_AS, SUBJECT_AS, config};
use interop::speaker::{Config, Kind};
use interop::wait::{PATIENCE, holds_for, wait_until};
use serde_json::Value;

const PORT: u16 = 1790;
/// Peers whose neighbours are not there, each with a file.
const OTHERS: u16 = 998;
/// How long a test watches for what must not happen.
const WATCH: Duration = Duration::from_secs(3);

fn bird_config(far: &Host, host: &Host, password: &str) -> Config {
    let mut config = config(far, PEER_AS, &[(host, SUBJECT_AS)], &["203.0.113.0/24"]);
    config.neighbors[0].password = Some(password.to_owned());
    config
}

fn peer(address: &str, file: &Path) -> String {
    format!(
        "[[bgp.peers]]\naddress = \"{address}\"\nport = {PORT}\nremote-asn = {PEER_AS}\n\
         import = \"all\"\nexport = \"all\"\nconnect-retry-time = 1\npassword-file = \"{}\"\n",
        file.display()
    )
}

/// Puts a secret where Kubernetes would: in a new folder that a link leads to, which is replaced.
fn swap(volume: &Path, generation: u32, secret: &str) -> Result<()> {
    let name = format!("..2026_{generation}");
    fs::create_dir_all(volume.join(&name))?;
    fs::write(volume.join(&name).join("password"), secret)?;
    std::os::unix::fs::symlink(&name, volume.join("..data_tmp"))?;
    fs::rename(volume.join("..data_tmp"), volume.join("..data"))?;
    if generation == 1 {
        std::os::unix::fs::symlink("..data/password", volume.join("password"))?;
    } else {
        fs::remove_dir_all(volume.join(format!("..2026_{}", generation - 1)))?;
    }
    Ok(())
}

fn problems(control: &Control) -> Result<Vec<String>> {
    let status = control.json(&["show", "status"])?;
    let list = status["problems"].as_array().cloned().unwrap_or_default();
    Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn events(control: &Control, name: &str, object: &str) -> Result<usize> {
    let events = control.json(&["events"])?;
    let events = events.as_array().context("events: not a list")?;
    let is_it = |event: &&Value| {
        event["event"] == name && event["object"].as_str().is_some_and(|o| o.contains(object))
    };
    Ok(events.iter().filter(is_it).count())
}

/// Since when a session is established.
fn established(control: &Control, far: &Host) -> Result<String> {
    let peer = control.peer(far.v4())?;
    ensure!(peer["state"] == "Established", "{}", peer["state"]);
    Ok(peer["since"].to_string())
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn a_changed_file_rekeys_its_peer_alone() -> Result<()> {
    lab::run_margay("secrets", &[Kind::Bird2], &[], |lab| {
        let (host, one, two) = (lab.host("a")?, lab.host("b")?, lab.host("c")?);
        let folder = host.file("secrets");
        let (volume, plain) = (folder.join("volume"), folder.join("plain"));
        for folder in [&volume, &plain] {
            fs::create_dir_all(folder)?;
        }
        swap(&volume, 1, "first\n")?;
        fs::write(plain.join("two"), "other\n")?;
        let mut text = format!(
            "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:{PORT}\"]\n\n{}{}{}",
            host.router_id(),
            margay::control_section(&host),
            peer(&one.v4().to_string(), &volume.join("password")),
            peer(&two.v4().to_string(), &plain.join("two")),
        );
        for n in 0..OTHERS {
            let file = plain.join(format!("{n}"));
            fs::write(&file, format!("secret {}\n", n / 500))?;
            let _ = writeln!(
                text,
                "{}passive = true",
                peer(&format!("10.77.{}.{}", n / 250, n % 250 + 1), &file)
            );
        }
        // A key for each of a thousand peers.
        host.shell("sysctl -qw net.core.optmem_max=1048576 || true")?;
        let mut far = Bird2::start(&one, &bird_config(&one, &host, "first"))?;
        let _steady = Bird2::start(&two, &bird_config(&two, &host, "other"))?;
        let (_daemon, control) = margay::start_text(&host, &text)?;
        control.expect_established(one.v4())?;
        control.expect_established(two.v4())?;
        let steady = established(&control, &two)?;

        far.reconfigure(&bird_config(&one, &host, "second"))?;
        let began = Instant::now();
        swap(&volume, 2, "second\n")?;
        wait_until(PATIENCE, "the new secret", || {
            ensure!(events(&control, "secret-changed", "volume/password")? == 1, "no event");
            Ok(())
        })?;
        println!("1,000 files, one changed: in force after {:?}", began.elapsed());
        control.expect_established(one.v4())?;
        ensure!(established(&control, &two)? == steady, "the other session was reset");

        // What is lost or empty stays in force, and is named.
        for (loss, name) in [("gone", "plain/two"), ("empty", "plain/two")] {
            if loss == "gone" {
                fs::remove_file(plain.join("two"))?;
            } else {
                fs::write(plain.join("two"), "")?;
            }
            wait_until(PATIENCE, loss, || {
                let named = problems(&control)?;
                ensure!(named.iter().any(|text| text.contains(name)), "{named:?}");
                Ok(())
            })?;
            ensure!(events(&control, "secret-lost", name)? >= 1, "no event: {loss}");
            fs::write(plain.join("two"), "other\n")?;
            wait_until(PATIENCE, "restored", || {
                let named = problems(&control)?;
                ensure!(!named.iter().any(|text| text.contains(name)), "{named:?}");
                Ok(())
            })?;
        }
        holds_for(WATCH, "no session is reset", || {
            ensure!(established(&control, &two)? == steady, "it was reset");
            Ok(())
        })?;

        // The whole volume goes, and comes back with another secret.
        let before = established(&control, &one)?;
        fs::remove_dir_all(&volume)?;
        wait_until(PATIENCE, "a volume that has gone", || {
            ensure!(events(&control, "secret-lost", "volume/password")? >= 1, "no event");
            Ok(())
        })?;
        ensure!(established(&control, &one)? == before, "a lost file reset its session");
        far.reconfigure(&bird_config(&one, &host, "third"))?;
        fs::create_dir_all(&volume)?;
        swap(&volume, 1, "third\n")?;
        wait_until(PATIENCE, "a session with the third secret", || {
            ensure!(events(&control, "secret-changed", "volume/password")? == 2, "no event");
            established(&control, &one).map(drop)
        })?;
        ensure!(established(&control, &two)? == steady, "the other session was reset");
        ensure!(problems(&control)?.iter().all(|text| !text.contains("secret")), "a problem left");
        Ok(())
    })
}
