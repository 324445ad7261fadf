//! Every part of the real program is made to panic, and the table to hang: checks what neighbours,
//! the kernel and the supervisor see.

#![cfg(any(debug_assertions, feature = "fault-injection"))]

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use interop::bird2::Bird2;
use interop::daemon::Daemon;
use interop::kernel;
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Control};
use interop::matrix::{Case, PEER_AS, SUBJECT_AS};
use interop::speaker::{Kind, wait_established, wait_paths};
use interop::tmux::Top;
use interop::wait::{PATIENCE, wait_until};

const PEER_ROUTE: &str = "198.51.100.0/24";
/// `EX_SOFTWARE`: the exit code after a part has died.
const DIED: i32 = 70;
/// Maximum time from the death of a part to the exit of the process.
const DEATH: Duration = Duration::from_secs(5);

/// margay with fault injection, and BIRD 2 as its neighbour with graceful restart.
struct Pair {
    host: Host,
    margay: Daemon,
    control: Control,
    bird: Bird2,
    order: PathBuf,
}

/// How margay is configured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Own,
    Calico,
}

fn config(form: Form, host: &Host, bird: &Host) -> Result<String> {
    let http = "[http]\nlisten = \"127.0.0.1:9479\"\n\n";
    let control = margay::control_section(host);
    if form == Form::Own {
        return Ok(format!(
            "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:1790\"]\n\n\
             [[bgp.peers]]\naddress = \"{}\"\nport = 1790\nremote-asn = {PEER_AS}\nimport = \"all\"\n\
             export = \"all\"\nconnect-retry-time = 1\n\n[[originate]]\nprefix = \"192.0.2.0/24\"\n\n\
             {http}{control}",
            host.router_id(),
            bird.v4()
        ));
    }
    let objects = format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{name: default}}\n\
         spec: {{asNumber: {SUBJECT_AS}, nodeToNodeMeshEnabled: false, listenPort: 1790}}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: a}}\n\
         spec: {{bgp: {{ipv4Address: {}/24}}}}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: pods}}\n\
         spec: {{cidr: 192.0.2.0/24, ipipMode: Never}}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: bird}}\n\
         spec: {{peerIP: \"{}:1790\", asNumber: {PEER_AS}}}\n",
        host.v4(),
        bird.v4()
    );
    let objects = host.write("objects.yaml", &objects)?;
    Ok(format!(
        "[calico]\nnode = \"a\"\ndatastore = \"file\"\npath = [\"{}\"]\n\
         endpoint-status = \"{}\"\nbird-sockets = [\"{}\", \"{}\"]\n\n{http}{control}",
        objects.display(),
        host.file("status").display(),
        host.file("bird4.ctl").display(),
        host.file("bird6.ctl").display(),
    ))
}

impl Pair {
    fn start(lab: &mut Lab, form: Form) -> Result<Self> {
        let hosts = (lab.host("a")?, lab.host("b")?);
        Self::start_with(hosts, form, &[])
    }

    fn start_with(hosts: (Host, Host), form: Form, environment: &[(&str, &str)]) -> Result<Self> {
        let (host, bird_host) = hosts;
        let order = host.write("fault", "")?;
        let program = Path::new(env!("CARGO_BIN_EXE_margay"));
        let text = config(form, &host, &bird_host)?;
        let mut command = margay::run_command_of(&host, program, &text)?;
        command.env("MARGAY_FAULT_FILE", &order).env_remove("RUST_BACKTRACE");
        command.envs(environment.iter().copied());
        let margay = Daemon::start(command, &host.file("margay.log"))?;
        let (margay, control) = margay::wait_answers(&host, margay)?;
        let case = Case::ebgp(Kind::Bird2).graceful_restart().hold_time(30);
        let (_, bird_config) = case.configs(&host, &bird_host);
        let bird = Bird2::start(&bird_host, &bird_config)?;
        wait_established(&bird, host.v4())?;
        kernel::wait_gateways(&host, PEER_ROUTE, &[bird_host.v4().to_string()])?;
        if form == Form::Own {
            // BIRD must have received the route that it is to keep: our initial update may still be
            // pending.
            wait_paths(&bird, "192.0.2.0/24", 1)?;
        }
        Ok(Self { host, margay, control, bird, order })
    }

    /// Orders a fault, and gives every part something to do.
    fn order(&self, order: &str) -> Result<()> {
        std::fs::write(&self.order, order)?;
        std::thread::sleep(Duration::from_millis(100));
        let _ = self.control.text(&["health", "--live"]);
        // Connects to the ports of BGP and HTTP.
        let connect = "for to in 10.99.0.1/1790 127.0.0.1/9479; do \
                       timeout 2 bash -c \"exec 3<>/dev/tcp/$to\" || true; done";
        self.host.run("bash", &["-c", connect])?;
        Ok(())
    }
}

fn dies_loudly(part: &str, form: Form) -> Result<()> {
    let name = format!("fault-{}", part.replace(' ', "-"));
    lab::run(&name, &[Kind::Bird2], |lab| {
        let mut pair = Pair::start(lab, form)?;
        pair.order(&format!("panic {part}"))?;
        let status = pair.margay.wait(DEATH)?;
        let log = pair.margay.output();
        ensure!(status.code() == Some(DIED), "{status}: {log}");
        let last: Vec<&str> = log.lines().filter(|line| line.contains("has died")).collect();
        ensure!(last.len() == 1, "{log}");
        ensure!(last[0].contains(&format!("{part} has died")), "{log}");
        ensure!(last[0].contains("panic at src/"), "without its place: {log}");
        let bird = &pair.bird;
        wait_until(PATIENCE, "BIRD to help", || {
            let session = bird.session(pair.host.v4())?;
            // Not after a NOTIFICATION: BIRD would have dropped our routes.
            ensure!(session.contains("graceful restart active"), "{session}");
            Ok(())
        })?;
        if form == Form::Own {
            wait_paths(bird, "192.0.2.0/24", 1)?;
        }
        ensure!(kernel::route(&pair.host, PEER_ROUTE)?.is_some(), "the kernel's route is gone");
        Ok(())
    })
}

/// A hanging part is detected by calico-node's liveness probe, `/liveness` and systemd's watchdog.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_hanging_table_is_detected_by_every_probe() -> Result<()> {
    lab::run("fault-hang", &[Kind::Bird2], |lab| {
        let hosts = (lab.host("a")?, lab.host("b")?);
        // A path rather than an abstract name, which belongs to one network namespace.
        let socket = hosts.0.file("notify").to_string_lossy().into_owned();
        let manager = UnixDatagram::bind(&socket)?;
        manager.set_read_timeout(Some(PATIENCE))?;
        let received = || -> Result<String> {
            let mut text = [0; 64];
            let len = manager.recv(&mut text)?;
            Ok(String::from_utf8_lossy(&text[..len]).into_owned())
        };
        let environment = [("NOTIFY_SOCKET", socket.as_str()), ("WATCHDOG_USEC", "3000000")];
        let pair = Pair::start_with(hosts, Form::Calico, &environment)?;
        ensure!(received()? == "READY=1", "not ready first");
        ensure!(received()? == "WATCHDOG=1" && received()? == "WATCHDOG=1", "not alive");
        let bird_socket = pair.host.file("bird4.ctl").to_string_lossy().into_owned();
        let birdcl = pair.host.write("birdcl", "")?.with_file_name("birdcl");
        let _ = std::fs::remove_file(&birdcl);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_margay"), &birdcl)?;
        let ask = || {
            std::process::Command::new(&birdcl)
                .args(["-s", &bird_socket, "show", "status"])
                .output()
                .map(|output| {
                    let text = String::from_utf8_lossy(&output.stdout).into_owned();
                    (output.status.success(), text)
                })
        };
        let (is_alive, text) = ask()?;
        ensure!(is_alive && text.contains("Daemon is up and running"), "{text}");
        pair.order("hang table")?;
        let (is_alive, text) = ask()?;
        // If the table hangs on a thread that clients share, they get no answer at all.
        ensure!(!is_alive, "{text}");
        ensure!(text.is_empty() || text.contains("table: no answer"), "{text}");
        ensure!(pair.control.text(&["health", "--live"]).is_err(), "health --live says alive");
        // Messages sent before it hung may still arrive, but no others.
        manager.set_nonblocking(true)?;
        while received().is_ok() {}
        std::thread::sleep(Duration::from_secs(4));
        ensure!(received().is_err(), "the watchdog was notified although the table hangs");
        Ok(())
    })
}

macro_rules! parts {
    ($($name:ident: $part:literal, $form:expr;)*) => {
        $(#[test]
        #[ignore = "needs root and BIRD 2"]
        fn $name() -> Result<()> {
            dies_loudly($part, $form)
        })*
    };
}

parts! {
    the_table_dies_loudly: "table", Form::Own;
    the_kernel_writer_dies_loudly: "kernel writer", Form::Own;
    the_daemons_loop_dies_loudly: "daemon", Form::Own;
    the_listener_dies_loudly: "listener", Form::Own;
    the_control_socket_dies_loudly: "control socket", Form::Own;
    the_http_server_dies_loudly: "http", Form::Own;
    the_plan_dies_loudly: "plan", Form::Calico;
    the_datastore_dies_loudly: "datastore", Form::Calico;
}

/// The message of a panic is to be read after it, on a terminal that is as it was.
#[test]
#[ignore = "needs root and tmux"]
fn top_gives_the_terminal_back_when_it_panics() -> Result<()> {
    lab::run("fault-top", &[], |lab| {
        let host = lab.host("a")?;
        let program = Path::new(env!("CARGO_BIN_EXE_margay"));
        let top = Top::start(&host, "panic", program, "", (80, 24))?;
        top.tmux.expect(&["no answer for"])?;
        std::fs::write(top.file("fault"), "panic top")?;
        let screen = top.expect_end(101)?;
        ensure!(screen.contains("injected into top"), "{screen}");
        Ok(())
    })
}
