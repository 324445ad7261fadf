//! Packets keep flowing whatever happens to margay.
//!
//! `MARGAY_RESTARTS=N` sets the number of restarts and of crashes, default 3.

use std::time::Duration;

use anyhow::{Result, ensure};
use interop::calico::Stream;
use interop::kernel::{self, RouteMonitor};
use interop::lab::{self, Host, Lab};
use interop::margay::Margay;
use interop::matrix::Case;
use interop::ping::Ping;
use interop::speaker::{Kind, Speaker, wait_established, wait_paths};
use interop::wait::{PATIENCE, wait_until};

const OURS: &str = "192.0.2.0/24";
const OUR_ADDRESS: &str = "192.0.2.1";
const THEIRS: &str = "198.51.100.0/24";
const THEIR_ADDRESS: &str = "198.51.100.1";

/// margay and BIRD, each with a route to the other's address.
struct Ends {
    hosts: [Host; 2],
    margay: Margay,
    bird: Box<dyn Speaker>,
}

impl Ends {
    fn start(lab: &mut Lab) -> Result<Self> {
        let (host, bird_host) = (lab.host("a")?, lab.host("b")?);
        let case = Case::ebgp(Kind::Bird2).graceful_restart().hold_time(60);
        let (config, bird_config) = case.configs(&host, &bird_host);
        host.shell(&format!("ip addr add {OUR_ADDRESS}/32 dev lo"))?;
        bird_host.shell(&format!("ip addr add {THEIR_ADDRESS}/32 dev lo"))?;
        let margay = Margay::start(&host, &config)?;
        let bird = Kind::Bird2.start(&bird_host, &bird_config)?;
        let ends = Ends { hosts: [host, bird_host], margay, bird };
        ends.wait_whole()?;
        let [host, bird_host] = &ends.hosts;
        for (host, other, prefix) in [(host, bird_host, THEIRS), (bird_host, host, OURS)] {
            kernel::wait_gateways(host, prefix, &[other.v4().to_string()])?;
        }
        Ok(ends)
    }

    /// Waits until both ends have each other's routes again and the start-up is complete.
    fn wait_whole(&self) -> Result<()> {
        let Ends { hosts: [host, bird_host], margay, bird } = self;
        wait_established(margay, bird_host.v4())?;
        wait_established(bird.as_ref(), host.v4())?;
        wait_paths(margay, THEIRS, 1)?;
        wait_paths(bird.as_ref(), OURS, 1)?;
        wait_until(PATIENCE, "the start to be over", || {
            margay.control().text(&["health"]).map(drop)
        })
    }
}

#[test]
#[ignore = "needs root, BIRD 2 and BIRD 1.6"]
fn restarts_crashes_and_a_freeze_cost_no_packet() -> Result<()> {
    let rounds: u32 = std::env::var("MARGAY_RESTARTS").map_or(Ok(3), |text| text.parse())?;
    lab::run_margay("forwarding", &[Kind::Bird2], &["python3"], |lab| {
        let mut ends = Ends::start(lab)?;
        let [host, bird_host] = ends.hosts.clone();
        let table = |host: &Host| host.run("ip", &["route", "show", "table", "main"]);
        let before = [table(&host)?, table(&bird_host)?];
        let monitors = [RouteMonitor::start(&host)?, RouteMonitor::start(&bird_host)?];
        let mut stream = Stream::between((&host, OUR_ADDRESS), (&bird_host, THEIR_ADDRESS))?;
        let ping = Ping::start(&host, OUR_ADDRESS, THEIR_ADDRESS)?;
        for round in 0..2 * rounds {
            match round % 2 {
                0 => {
                    ends.margay.daemon().signal("TERM")?;
                    ends.margay.daemon().wait(Duration::from_secs(10))?;
                }
                _ => ends.margay.daemon().crash()?,
            }
            ends.margay.restart()?;
            ends.wait_whole()?;
        }
        ends.margay.daemon().signal("STOP")?;
        std::thread::sleep(Duration::from_secs(20));
        ends.margay.daemon().signal("CONT")?;
        ends.wait_whole()?;
        stream.expect_flow(Duration::from_secs(1))?;
        let (sent, lost) = ping.finish()?;
        // The last one may be in flight.
        ensure!(lost <= 1, "{lost} of {sent} packets are lost");
        ensure!([table(&host)?, table(&bird_host)?] == before, "the tables differ");
        for (monitor, prefix) in monitors.iter().zip([THEIRS, OURS]) {
            let changes = monitor.changes()?;
            ensure!(!changes.contains(prefix), "{prefix} was written: {changes}");
        }
        println!("{rounds} restarts, {rounds} crashes, 20 s frozen: {lost} of {sent} packets lost");
        Ok(())
    })
}

/// Restarts with the other value of `fib.next-hop-objects` replace routes in place.
#[test]
#[ignore = "needs root and BIRD 2"]
fn routes_change_to_next_hop_objects_and_back_without_a_lost_packet() -> Result<()> {
    lab::run_margay("objects", &[Kind::Bird2], &[], |lab| {
        let mut ends = Ends::start(lab)?;
        let host = ends.hosts[0].clone();
        let objects = || host.run("ip", &["nexthop", "show", "proto", kernel::PROTOCOL]);
        let routes = || host.run("ip", &["-o", "route", "show", "proto", kernel::PROTOCOL]);
        let without_ids = |routes: &str| {
            let words: Vec<&str> = routes.split_whitespace().collect();
            let is_id = |at: usize| {
                words[at] == "nhid"
                    || at.checked_sub(1).is_some_and(|before| words[before] == "nhid")
            };
            let kept = (0..words.len()).filter(|at| !is_id(*at)).map(|at| words[at]);
            kept.collect::<Vec<_>>().join(" ")
        };
        let before = routes()?;
        ensure!(before.contains(" nhid "), "no next-hop objects by default: {before}");
        ensure!(objects()?.lines().count() == 2, "not one next hop and one group: {}", objects()?);
        let ping = Ping::start(&host, OUR_ADDRESS, THEIR_ADDRESS)?;
        let monitor = RouteMonitor::start(&host)?;
        for (round, lines) in [
            "next-hop-objects = false\n",
            "",
            "next-hop-objects = false\n",
            "next-hop-objects = true\n",
        ]
        .into_iter()
        .enumerate()
        {
            match round {
                0 | 1 => {
                    ends.margay.daemon().signal("TERM")?;
                    ends.margay.daemon().wait(Duration::from_secs(10))?;
                }
                _ => ends.margay.daemon().crash()?,
            }
            ends.margay.restart_with_fib(lines)?;
            ends.wait_whole()?;
            let uses_objects = round % 2 == 1;
            wait_until(PATIENCE, "routes and objects of the new form", || {
                let (routes, objects) = (routes()?, objects()?);
                ensure!(routes.contains(" nhid ") == uses_objects, "{routes}");
                ensure!(objects.lines().count() == if uses_objects { 2 } else { 0 }, "{objects}");
                Ok(())
            })?;
            ensure!(without_ids(&routes()?) == without_ids(&before), "{} was {before}", routes()?);
        }
        let (sent, lost) = ping.finish()?;
        // The last one may be in flight.
        ensure!(lost <= 1, "{lost} of {sent} packets are lost");
        let changes = monitor.changes()?;
        let is_gap = |line: &str| line.contains("Deleted") && line.contains(THEIRS);
        ensure!(!changes.lines().any(is_gap), "the route was missing for a moment: {changes}");
        Ok(())
    })
}
