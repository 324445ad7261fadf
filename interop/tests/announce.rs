//! `margay announce`: routes that operators announce at run time, as BIRD 2 sees them; and who may ask.

use anyhow::{Context, Result, bail, ensure};
use interop::bird2::Bird2;
use interop::lab;
use interop::margay::{Control, Margay, start_text};
use interop::matrix::Case;
use interop::speaker::{Kind, Path, Speaker, wait_established, wait_paths};
use interop::wait::{PATIENCE, wait_until};

/// What the configuration of the case originates.
const OWN_ROUTE: &str = "192.0.2.0/24";
const HOST_ROUTE: &str = "203.0.113.7/32";

fn refused(control: &Control, args: &[&str]) -> Result<String> {
    match control.text(args) {
        Ok(answer) => bail!("{args:?} was not refused: {answer}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Announced with attributes, replaced, withdrawn by its time and by command; in status, explain and
/// events; refused where the configuration originates the prefix; forgotten by a restart.
#[test]
#[ignore = "needs root and BIRD 2"]
fn an_announced_route_is_a_route_until_its_end() -> Result<()> {
    lab::run_margay("announce", &[Kind::Bird2], &[], |lab| {
        let (host, bird_host) = (lab.host("a")?, lab.host("b")?);
        let (config, bird_config) = Case::ebgp(Kind::Bird2).configs(&host, &bird_host);
        let mut margay = Margay::start(&host, &config)?;
        let bird = Bird2::start(&bird_host, &bird_config)?;
        wait_established(&margay, bird_host.v4())?;
        wait_paths(&bird, OWN_ROUTE, 1)?;
        let control = margay.control();
        let one = |prefix: &str, next_hop: &str, communities: &[&str]| {
            wait_until(PATIENCE, "the announced route", || {
                let paths = bird.paths(prefix)?;
                let [Path { next_hop: hop, communities: found, .. }] = &paths[..] else {
                    bail!("{paths:?}")
                };
                ensure!(hop.as_deref() == Some(next_hop) && found == communities, "{paths:?}");
                Ok(())
            })
        };

        let said = control.text(&["announce", HOST_ROUTE, "--community", "64512:666"])?;
        ensure!(said.contains("is announced, until it is withdrawn or the daemon ends"), "{said}");
        one(HOST_ROUTE, &host.v4().to_string(), &["64512:666"])?;
        let status = control.json(&["show", "status"])?;
        ensure!(status["announced"] == 1, "{status}");
        let told = control.text(&["explain", HOST_ROUTE])?;
        ensure!(told.contains("announced by command (margay announce) since"), "{told}");
        let routes = control.text(&["show", "routes", "--source", "announced"])?;
        ensure!(routes.contains(HOST_ROUTE) && !routes.contains(OWN_ROUTE), "{routes}");

        // Again: it changes, with another next hop, and for a limited time.
        let third = "10.99.0.77";
        let said = control.json(&["announce", HOST_ROUTE, "--next-hop", third, "--for", "3s"])?;
        ensure!(said["effect"] == "replaced" && said["seconds_left"] == 3, "{said}");
        one(HOST_ROUTE, third, &[])?;
        wait_paths(&bird, HOST_ROUTE, 0)?;
        ensure!(control.json(&["show", "announced"])? == serde_json::json!([]));

        let why = refused(control, &["announce", OWN_ROUTE])?;
        ensure!(why.contains("is not announced: the configuration originates it"), "{why}");
        let why = refused(control, &["withdraw", HOST_ROUTE])?;
        ensure!(why.contains("is not announced by command"), "{why}");
        control.text(&["announce", HOST_ROUTE])?;
        control.text(&["withdraw", "--all"])?;
        wait_paths(&bird, HOST_ROUTE, 0)?;
        let events = control.json(&["events"])?;
        let events = events.as_array().context("no list")?;
        let names: Vec<&str> = events
            .iter()
            .filter(|event| event["prefix"] == HOST_ROUTE)
            .filter_map(|event| event["event"].as_str())
            .collect();
        let wanted =
            ["announced", "announced", "announcement-ended", "announced", "announcement-ended"];
        ensure!(names == wanted, "{names:?}");

        control.text(&["announce", HOST_ROUTE])?;
        wait_paths(&bird, HOST_ROUTE, 1)?;
        margay.daemon().terminate()?;
        margay.restart()?;
        wait_established(&margay, bird_host.v4())?;
        wait_paths(&bird, HOST_ROUTE, 0).map(drop)
    })
}

/// A user who may open the read-only socket asks for everything, and changes nothing; a group owns the
/// other one.
#[test]
#[ignore = "needs root"]
fn a_read_only_socket_is_for_everybody() -> Result<()> {
    lab::run_margay("read-only", &[], &[], |lab| {
        let host = lab.host("a")?;
        let (full, read) = (host.file("margay.sock"), host.file("read.sock"));
        let text = format!(
            "[bgp]\nasn = 64512\nrouter-id = \"10.99.0.1\"\n[[originate]]\nprefix = \"{OWN_ROUTE}\"\n\
             [control]\nsocket = \"{}\"\ngroup = \"daemon\"\nread-only-socket = \"{}\"\n",
            full.display(),
            read.display()
        );
        let (_daemon, _) = start_text(&host, &text)?;
        let owner = host.run("stat", &["-c", "%G %a", &full.display().to_string()])?;
        ensure!(owner.trim() == "daemon 660", "{owner}");
        let program = interop::margay::binary()?;
        let as_nobody = |socket: &std::path::Path, args: &[&str]| {
            let mut command = host.command("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            command.arg(&program).args(args).arg("--socket").arg(socket);
            command.output().context("setpriv")
        };
        let shown = as_nobody(&read, &["show", "routes"])?;
        let routes = String::from_utf8_lossy(&shown.stdout).into_owned();
        ensure!(shown.status.success() && routes.contains(OWN_ROUTE), "{shown:?}");
        let refused = as_nobody(&read, &["stop", "--shutdown"])?;
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        let wanted = format!("ask with --socket {}", full.display());
        ensure!(refused.status.code() == Some(1) && why.contains(&wanted), "{refused:?}");
        let denied = as_nobody(&full, &["show", "status"])?;
        let why = String::from_utf8_lossy(&denied.stderr).into_owned();
        ensure!(why.contains("control.read-only-socket"), "{denied:?}");
        Control::of(&host).text(&["show", "status"]).map(drop)
    })
}
