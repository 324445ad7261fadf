//! `margay top` in a real terminal, beside a real neighbour: what is on the screen, and what is left of
//! the terminal when it ends.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interop::bird2::Bird2;
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Control};
use interop::matrix::{self, PEER_AS, SUBJECT_AS};
use interop::speaker::{Kind, Origin, Speaker as _};
use interop::tmux::Top;
use interop::wait::holds_for;

const PORT: u16 = 1790;
const PREFIX: &str = "203.0.113.0/24";
const WIDE: (u16, u16) = (80, 24);

fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, &[Kind::Bird2], &["tmux", "stty"], test)
}

/// margay with a neighbour, and with what is in `more`.
fn config(host: &Host, far: &Host, more: &str) -> String {
    format!(
        "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:{PORT}\"]\n\n\
         [[bgp.peers]]\nname = \"tor\"\naddress = \"{}\"\nport = {PORT}\nremote-asn = {PEER_AS}\n\
         import = \"all\"\nexport = \"all\"\nconnect-retry-time = 1\n\n{more}\n{}",
        host.router_id(),
        far.v4(),
        margay::control_section(host)
    )
}

const ABSENT: &str = "[[bgp.peers]]\nname = \"absent\"\naddress = \"10.99.0.77\"\nremote-asn = 64999\n\
                      import = \"all\"\nexport = \"all\"\npassive = true\n";

#[test]
#[ignore = "needs root, BIRD 2 and tmux"]
fn states_routes_and_the_daemon_come_and_go_on_the_screen() -> Result<()> {
    run("top_live", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let text = config(&host, &far, ABSENT);
        let (mut daemon, _) = margay::start_text(&host, &text)?;
        let top = Top::start(&host, "live", &margay::binary()?, "--interval 300ms", WIDE)?;
        let tmux = &top.tmux;
        tmux.expect(&["peers 0/2 up", "tor", "absent", "fib 0", "by changes"])?;

        // A session comes up, with routes; then it ends, with the reason.
        let bird_config = matrix::config(&far, PEER_AS, &[(&host, SUBJECT_AS)], &[PREFIX]);
        let mut bird = Bird2::start(&far, &bird_config)?;
        tmux.expect(&["peers 1/2 up", "Established", "routes 1 ipv4"])?;
        bird.announce(&Origin::plain("198.51.100.0/24"))?;
        tmux.expect(&["routes 2 ipv4"])?;
        bird.daemon().terminate()?;
        tmux.expect(&["peers 0/2 up"])?;
        bird.recover()?;
        tmux.expect(&["peers 1/2 up", "routes 2 ipv4"])?;

        // Drawn again, as after a message of another program.
        tmux.press(&["C-l"])?;
        tmux.expect(&["peers 1/2 up", "routes 2 ipv4"])?;

        // To the peer, its routes, and why one is as it is.
        tmux.press(&["/", "t", "o", "r", "Enter"])?;
        tmux.expect(&["1/1 \"tor\""])?;
        tmux.press(&["Enter"])?;
        tmux.expect(&["Established", "router id", "Esc back"])?;
        tmux.press(&["Enter"])?;
        tmux.expect(&[PREFIX, "198.51.100.0/24", "AS PATH", "Enter explain"])?;
        tmux.press(&["/", "2", "0", "3", ".", "Enter"])?;
        let screen = tmux.expect(&["1/1 \"203.\""])?;
        ensure!(!screen.contains("198.51.100.0/24"), "{screen}");
        tmux.press(&["Enter"])?;
        tmux.expect(&[&format!("explain {PREFIX}"), "Esc back", "tor"])?;
        tmux.press(&["q", "Escape"])?;

        // A small terminal and back.
        tmux.resize((40, 12))?;
        let screen = tmux.expect(&["Enter explain"])?;
        ensure!(screen.lines().all(|line| line.chars().count() <= 40), "{screen}");
        tmux.resize(WIDE)?;

        // The peer is removed while it is looked at.
        host.write("margay.toml", &text.replace("name = \"tor\"", "name = \"leaf\""))?;
        Control::of(&host).text(&["reload"])?;
        tmux.expect(&["there is no peer \"tor\""])?;
        tmux.press(&["Escape"])?;
        tmux.expect(&["no peer matches"])?;
        tmux.press(&["Escape"])?;
        tmux.expect(&["leaf", "absent"])?;

        // The daemon dies, which is said, and comes back.
        daemon.crash()?;
        tmux.expect(&["no answer for", "is it running?"])?;
        let (_daemon, _) = margay::start_text(&host, &text)?;
        tmux.expect(&["peers 1/2 up", "tor"])?;
        ensure!(!tmux.screen()?.contains("no answer"), "{}", tmux.screen()?);
        tmux.press(&["q"])?;
        top.expect_end(0).map(drop)
    })
}

#[test]
#[ignore = "needs root, BIRD 2 and tmux"]
fn however_it_ends_the_terminal_is_as_before() -> Result<()> {
    run("top_ends", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let (_daemon, _control) = margay::start_text(&host, &config(&host, &far, ""))?;
        let start = |name: &str| -> Result<Top> {
            let top = Top::start(&host, name, &margay::binary()?, "", WIDE)?;
            top.tmux.expect(&["peers 0/1 up"])?;
            Ok(top)
        };
        let ways: [(&str, i32); 4] = [("TERM", 143), ("INT", 130), ("HUP", 129), ("QUIT", 131)];
        for (signal, code) in ways {
            let top = start(signal)?;
            top.signal(signal)?;
            top.expect_end(code).context(signal)?;
        }
        let top = start("key")?;
        top.tmux.press(&["C-c"])?;
        top.expect_end(0)?;

        // Continued, it has the terminal again.
        let top = start("continued")?;
        top.signal("STOP")?;
        top.signal("CONT")?;
        top.tmux.press(&["?"])?;
        top.tmux.expect(&["any key: back"])?;
        top.tmux.press(&["q", "q"])?;
        top.expect_end(0)?;

        // Stopped, it ends as soon as it is continued.
        let top = start("stopped")?;
        top.signal("STOP")?;
        top.signal("TERM")?;
        holds_for(Duration::from_millis(300), "a stopped top", || {
            ensure!(!top.file("code").exists(), "it has ended");
            Ok(())
        })?;
        top.signal("CONT")?;
        top.expect_end(143).map(drop)
    })
}

#[test]
#[ignore = "needs root, BIRD 2 and tmux"]
fn without_a_terminal_it_says_what_to_use() -> Result<()> {
    run("top_script", |lab| {
        let host = lab.host("a")?;
        let top = |term: &str| -> Result<String> {
            let mut command = Command::new(margay::binary()?);
            command.args(["top", "--socket"]).arg(host.file("margay.sock")).env("TERM", term);
            let output = command.stdin(Stdio::null()).output()?;
            ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{output:?}");
            Ok(String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let said = top("xterm")?;
        ensure!(said.contains("top needs a terminal; for scripts: show status --json"), "{said}");
        Ok(())
    })
}
