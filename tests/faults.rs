//! Every part of the real program dies once, and once it hangs: what neighbours, the kernel and
//! whoever started margay see of it.

#![cfg(any(debug_assertions, feature = "fault-injection"))]

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
use interop::wait::{PATIENCE, wait_until};

const PEER_ROUTE: &str = "198.51.100.0/24";
/// `EX_SOFTWARE`: the exit code of a process whose part has died.
const DIED: i32 = 70;
/// How long the death of a part may take to be the death of the process.
const DEATH: Duration = Duration::from_secs(5);

/// margay with faults, and BIRD 2 as its neighbour with graceful restart.
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
        let (host, bird_host) = (lab.host("a")?, lab.host("b")?);
        let order = host.write("fault", "")?;
        let program = Path::new(env!("CARGO_BIN_EXE_margay"));
        let text = config(form, &host, &bird_host)?;
        let mut command = margay::run_command_of(&host, program, &text)?;
        command.env("MARGAY_FAULT_FILE", &order).env_remove("RUST_BACKTRACE");
        let margay = Daemon::start(command, &host.file("margay.log"))?;
        let (margay, control) = margay::wait_answers(&host, margay)?;
        let case = Case::ebgp(Kind::Bird2).graceful_restart().hold_time(30);
        let (_, bird_config) = case.configs(&host, &bird_host);
        let bird = Bird2::start(&bird_host, &bird_config)?;
        wait_established(&bird, host.v4())?;
        kernel::wait_gateways(&host, PEER_ROUTE, &[bird_host.v4().to_string()])?;
        Ok(Self { host, margay, control, bird, order })
    }

    /// Gives the order, and gives every part something to do.
    fn order(&self, order: &str) -> Result<()> {
        std::fs::write(&self.order, order)?;
        std::thread::sleep(Duration::from_millis(100));
        let _ = self.control.text(&["health", "--live"]);
        // Somebody connects to BGP's port, and to HTTP's.
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

macro_rules! parts {
    ($($name:ident: $part:literal, $form:expr;)*) => {
        $(#[test]
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
