//! A session ends without waiting for a timer when its link loses carrier or its local address is
//! removed.

use std::time::Duration;

use anyhow::{Result, ensure};
use interop::bird2::Bird2;
use interop::lab::{self, Host, Lab};
use interop::margay::{self, Control};
use interop::matrix::{PEER_AS, SUBJECT_AS, neighbor};
use interop::speaker::{Config, Kind};
use interop::wait::{PATIENCE, holds_for, wait_until};

const PORT: u16 = 1790;
/// Far below the hold time.
const SOON: Duration = Duration::from_secs(5);

fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, &[Kind::Bird2], &[], test)
}

fn config(host: &Host, far: &Host, more: &str) -> String {
    format!(
        "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:{PORT}\"]\n\n\
         [[bgp.peers]]\naddress = \"{}\"\nport = {PORT}\nremote-asn = {PEER_AS}\nimport = \"all\"\n\
         export = \"all\"\nconnect-retry-time = 1\n{more}\n{}",
        host.router_id(),
        far.v4(),
        margay::control_section(host)
    )
}

fn ended_because(control: &Control, far: &Host, reason: &str) -> Result<()> {
    let peer = control.peer(far.v4())?;
    ensure!(peer["state"] != "Established", "{}", peer["state"]);
    let text = control.text(&["show", "peer", &far.v4().to_string()])?;
    ensure!(text.contains(reason), "no \"{reason}\" in {text}");
    Ok(())
}

fn bird(far: &Host, host: &Host) -> Result<Bird2> {
    Bird2::start(
        far,
        &Config {
            asn: PEER_AS,
            router_id: far.router_id(),
            port: PORT,
            neighbors: vec![neighbor(host.v4(), far.v4(), SUBJECT_AS)],
            origins: Vec::new(),
        },
    )
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn a_link_without_carrier_and_a_lost_address_end_the_session() -> Result<()> {
    run("fallover", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let _bird = bird(&far, &host)?;
        let (_daemon, control) = margay::start_text(&host, &config(&host, &far, ""))?;
        wait_until(PATIENCE, "the session", || control.expect_established(far.v4()))?;
        // Only a link that margay has seen with a carrier can lose it, and the session is up within a
        // millisecond of the start, which may be before the kernel was read.
        holds_for(Duration::from_secs(1), "the session", || control.expect_established(far.v4()))?;
        lab.unplug(&host)?;
        wait_until(SOON, "the end", || ended_because(&control, &far, "eth0 has no carrier"))?;
        lab.plug(&host)?;
        wait_until(PATIENCE, "the session again", || control.expect_established(far.v4()))?;
        let address = format!("{}/24", host.v4());
        host.run("ip", &["addr", "del", &address, "dev", "eth0"])?;
        wait_until(SOON, "the end", || ended_because(&control, &far, "was removed"))?;
        host.run("ip", &["addr", "add", &address, "dev", "eth0"])?;
        wait_until(PATIENCE, "the session once more", || control.expect_established(far.v4()))
    })
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn without_fast_fallover_the_hold_time_decides() -> Result<()> {
    run("fallover_off", |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let _bird = bird(&far, &host)?;
        let text = config(&host, &far, "fast-fallover = false\n");
        let (_daemon, control) = margay::start_text(&host, &text)?;
        wait_until(PATIENCE, "the session", || control.expect_established(far.v4()))?;
        lab.unplug(&host)?;
        holds_for(Duration::from_secs(3), "the session", || control.expect_established(far.v4()))
    })
}
