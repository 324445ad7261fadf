//! The status page, in a real Chromium, of a real margay between real neighbours.

use anyhow::{Result, ensure};
use interop::bird2::Bird2;
use interop::lab::{self, Host};
use interop::margay;
use interop::matrix::{self, PEER_AS, SUBJECT_AS};
use interop::page::{self, Browser};
use interop::speaker::Kind;
use interop::wait::{PATIENCE, wait_until};

const PORT: u16 = 1790;

/// Two neighbours, whose routes are installed, and one that is absent and whose name is markup.
fn config(host: &Host, tors: [&Host; 2]) -> Result<String> {
    let peer = |name: &str, address: &str, import: &str| {
        format!(
            "[[bgp.peers]]\nname = \"{name}\"\naddress = \"{address}\"\nport = {PORT}\n\
             remote-asn = {PEER_AS}\nimport = \"{import}\"\nexport = \"all\"\n\
             connect-retry-time = 1\n\n"
        )
    };
    Ok([
        format!("[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\n", host.router_id()),
        format!("listen = [\"0.0.0.0:{PORT}\"]\n\n"),
        peer("tor-1", &tors[0].v4().to_string(), "first"),
        peer("tor-2", &tors[1].v4().to_string(), "all"),
        peer("<img/src=x/onerror=alert(1)>", "10.99.0.250", "all"),
        "[[policy]]\nname = \"first\"\n[[policy.rules]]\nset = { local-pref = 200 }\n\
         then = \"accept\"\n\n"
            .to_owned(),
        page::section(host)?,
        margay::control_section(host),
    ]
    .concat())
}

/// What happens is seen, without a reload of the page: a session that goes and comes back, a neighbour's
/// words, an explained destination, clients that say nothing, another run of margay. axe-core finds
/// nothing, nothing else is requested, and what peers send stays text.
#[test]
#[ignore = "needs root, BIRD 2 and Chromium"]
fn a_page_follows_what_happens() -> Result<()> {
    let programs = [&page::PROGRAMS[..], &["python3"]].concat();
    lab::run_margay("status-page", &[Kind::Bird2], &programs, |lab| {
        let (r, a, b) = (lab.host("r")?, lab.host("a")?, lab.host("b")?);
        let start = |host: &Host| {
            let config = matrix::config(host, PEER_AS, &[(&r, SUBJECT_AS)], &["203.0.113.0/24"]);
            Bird2::start(host, &config)
        };
        let (first, _second) = (start(&a)?, start(&b)?);
        let text = config(&r, [&a, &b])?;
        let (mut daemon, control) = margay::start_text(&r, &text)?;
        let established = |control: &margay::Control| {
            wait_until(PATIENCE, "both neighbours and their routes", || {
                let paths = control.paths("203.0.113.0/24")?;
                ensure!(paths.len() == 2, "{paths:?}");
                Ok(())
            })
        };
        established(&control)?;
        wait_until(2 * PATIENCE, "the route in the kernel", || {
            let status = control.json(&["show", "status"])?;
            ensure!(status["fib"]["installed"] == 1, "{status}");
            Ok(())
        })?;
        let folder = page::screenshots(&r)?;
        let mut browser = Browser::start(&r, "look", &[&folder.to_string_lossy()])?;
        browser.wait_line("want down")?;
        first.ask("disable n0 \"<b>maintenance</b>\"")?;
        browser.wait_line("want up")?;
        first.ask("enable n0")?;
        browser.wait_line("want idle")?;
        r.shell(&format!("ulimit -n 11000; python3 -c '{IDLE}' {}", interop::monitor::PORT))?;
        browser.wait_line("want stop")?;
        daemon.crash()?;
        browser.wait_line("want start")?;
        let (_daemon, control) = margay::start_text(&r, &text)?;
        established(&control)?;
        browser.finish()?;
        let log = daemon.output();
        ensure!(!log.contains(page::TOKEN), "the log shows the token: {log}");
        ensure!(!control.text(&["show", "config"])?.contains(page::TOKEN), "shown");
        Ok(())
    })
}

/// Opens 10,000 connections that say nothing, and closes them after a while.
const IDLE: &str = "import socket, sys, time\n\
     all = []\n\
     for _ in range(10000): all.append(socket.create_connection((\"127.0.0.1\", int(sys.argv[1]))))\n\
     time.sleep(3)\n";
