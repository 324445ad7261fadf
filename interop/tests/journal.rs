//! The log in a real journal: a systemd-journald of the test's own, in a mount namespace with its own
//! /run, read back by journalctl.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use interop::daemon::Daemon;
use interop::lab::{self, Host, Lab, run_command};
use interop::margay;
use interop::matrix::{PEER_AS, SUBJECT_AS};
use interop::wait::{PATIENCE, wait_until};
use serde_json::Value;

const JOURNALD: &str = "/lib/systemd/systemd-journald";

fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, &[], &[JOURNALD, "journalctl", "systemd-cat", "nsenter"], test)
}

/// A process that holds a mount namespace with an empty /run, and runs programs in it.
struct Room {
    holder: Daemon,
}

impl Room {
    fn start(host: &Host) -> Result<Self> {
        let mut command = host.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]).arg(
            // journald asks who sends, by cgroup; ip-netns(8) has mounted another /sys.
            "mount -t cgroup2 none /sys/fs/cgroup && mount -t tmpfs tmpfs /run && \
             mkdir -p /run/systemd/journal /run/log/journal && \
             exec sleep 600",
        );
        let holder = Daemon::start(command, &host.file("room.log"))?;
        let room = Room { holder };
        wait_until(PATIENCE, "the mount namespace", || {
            run_command(&mut room.command("test", &["-d", "/run/log/journal"]))
        })?;
        Ok(room)
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.pid().to_string(), "-m", "-n", program]).args(args);
        command
    }

    fn journald(&self, host: &Host) -> Result<Daemon> {
        let daemon = Daemon::start(self.command(JOURNALD, &[]), &host.file("journald.log"))?;
        wait_until(PATIENCE, "journald", || {
            run_command(&mut self.command("systemd-cat", &["true"]))
        })?;
        Ok(daemon)
    }

    /// The entries of margay with this field.
    fn entries(&self, matches: &[&str]) -> Result<Vec<Value>> {
        let fixed =
            ["-D", "/run/log/journal", "-o", "json", "--no-pager", "SYSLOG_IDENTIFIER=margay"];
        let text = run_command(&mut self.command("journalctl", &[&fixed, matches].concat()))?;
        text.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
    }

    /// Waits for an entry.
    fn entry(&self, matches: &[&str]) -> Result<Value> {
        wait_until(PATIENCE, &format!("an entry with {matches:?}"), || {
            self.entries(matches)?.pop().context("none")
        })
    }
}

fn config(host: &Host, log: &str) -> String {
    let peer = |name: &str, address: &str| {
        format!(
            "[[bgp.peers]]\nname = \"{name}\"\naddress = \"{address}\"\nremote-asn = {PEER_AS}\n\
             import = \"all\"\nexport = \"all\"\npassive = true\n\n"
        )
    };
    [
        format!("[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\n", host.router_id()),
        "listen = [\"0.0.0.0:1790\"]\n\n".to_owned(),
        peer("tor", "10.99.0.9"),
        peer("spine", "10.99.0.10"),
        format!("[log]\n{log}\n\n"),
        margay::control_section(host),
    ]
    .concat()
}

/// Starts margay in the room. `stream`: standard error is a stream to the journal, as systemd makes it.
fn start(room: &Room, host: &Host, log: &str, stream: bool) -> Result<Daemon> {
    let path = host.write("margay.toml", &config(host, log))?;
    let program = margay::binary()?.display().to_string();
    let margay = format!("exec {program} run --config {}", path.display());
    let script = if stream {
        // What systemd does for a service: systemd-cat makes the stream, the script says which it is.
        let script = host.write(
            "run.sh",
            &format!("export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/2)\n{margay}\n"),
        )?;
        format!("exec systemd-cat --identifier=margay sh {}", script.display())
    } else {
        margay
    };
    let daemon = Daemon::start(room.command("sh", &["-c", &script]), &host.file("margay.log"))?;
    let (daemon, _control) = margay::wait_answers(host, daemon)?;
    Ok(daemon)
}

/// Causes events of a peer.
fn stop_peer(host: &Host, peer: &str, text: &str) -> Result<()> {
    let control = margay::Control::of(host);
    control.text(&["peer", "stop", peer, "--message", text])?;
    control.text(&["peer", "start", peer]).map(drop)
}

#[test]
#[ignore = "needs root, systemd-journald and nsenter"]
fn entries_have_fields_and_wait_for_a_frozen_journal() -> Result<()> {
    run("journal_native", |lab| {
        let host = lab.host("a")?;
        let room = Room::start(&host)?;
        let mut journald = room.journald(&host)?;
        // No format is given: it follows from JOURNAL_STREAM.
        let daemon = start(&room, &host, "level = \"info\"", true)?;
        stop_peer(&host, "tor", "maintenance")?;
        let entry = room.entry(&["EVENT=peer-command", "PEER=tor"])?;
        ensure!(entry["_TRANSPORT"] == "journal" && entry["PRIORITY"] == "6", "{entry:#}");
        ensure!(entry["TARGET"].as_str().is_some_and(|t| t.starts_with("margay")), "{entry:#}");
        let message = entry["MESSAGE"].as_str().context("MESSAGE")?;
        ensure!(!message.contains("INFO") && message.contains("tor"), "{message}");

        // Away: the text goes to standard error, whose other end has gone with it. Back: entries again, and one says so.
        journald.terminate()?;
        stop_peer(&host, "tor", "unseen")?;
        let mut journald = room.journald(&host)?;
        let again =
            |e: &&Value| e["MESSAGE"].as_str().is_some_and(|m| m.contains("takes entries again"));
        wait_until(PATIENCE, "the entry that says so", || {
            stop_peer(&host, "tor", "seen")?;
            let all = room.entries(&[])?;
            ensure!(all.iter().filter(again).count() == 1, "{all:#?}");
            Ok(())
        })?;

        // Frozen: answers go on, and entries wait in its socket. Events of another peer: those of the first
        // one may be more than the log takes in that time.
        let commands = || Ok::<_, anyhow::Error>(room.entries(&["PEER=spine"])?.len());
        ensure!(commands()? == 0, "nothing has happened to it");
        journald.signal("STOP")?;
        for _ in 0..20 {
            stop_peer(&host, "spine", "frozen")?;
        }
        journald.signal("CONT")?;
        wait_until(PATIENCE, "the entries of that time", || {
            ensure!(commands()? > 0, "no entry");
            Ok(())
        })?;
        drop(daemon);
        journald.terminate().map(drop)
    })
}

#[test]
#[ignore = "needs root, systemd-journald and nsenter"]
fn lines_of_text_for_the_journal_have_their_priority() -> Result<()> {
    run("journal_text", |lab| {
        let host = lab.host("a")?;
        let room = Room::start(&host)?;
        let _journald = room.journald(&host)?;
        let _daemon = start(&room, &host, "format = \"json\"\nlevel = \"debug\"", true)?;
        stop_peer(&host, "tor", "maintenance")?;
        for (priority, level) in [("6", "INFO"), ("7", "DEBUG")] {
            let priority = format!("PRIORITY={priority}");
            let entry = room.entry(&["_TRANSPORT=stdout", &priority])?;
            let message = entry["MESSAGE"].as_str().context("MESSAGE")?;
            let line: Value = serde_json::from_str(message).context(message.to_owned())?;
            ensure!(line["level"] == level, "{line}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root, systemd-journald and nsenter"]
fn without_a_journal_the_text_is_on_standard_error() -> Result<()> {
    run("journal_none", |lab| {
        let host = lab.host("a")?;
        let room = Room::start(&host)?;
        let daemon = start(&room, &host, "format = \"journal\"", false)?;
        stop_peer(&host, "tor", "maintenance")?;
        wait_until(PATIENCE, "the text of an entry", || {
            let text = daemon.output();
            let told = text.lines().filter(|l| l.contains("the journal takes no entries")).count();
            ensure!(told == 1 && text.contains("tor"), "{text}");
            Ok(())
        })?;
        Ok(())
    })
}
