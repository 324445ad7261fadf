//! The cost of one address change on a node with very many addresses and next hops.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Result, ensure};
use interop::calico::Usage;
use interop::kernel;
use interop::lab::{self, Host};
use interop::margay;
use interop::matrix::{PEER_AS, SUBJECT_AS};
use interop::message::{announcement, nlri, open};
use interop::raw::RawPeer;
use interop::speaker::Family;
use interop::wait::{PATIENCE, wait_until};

/// Number of the node's addresses, and of its routes' next hops.
const MANY: u32 = 10_000;
/// How often an address is added and deleted: two events each.
const FLAPS: u32 = 1_000;
/// Limit of the CPU time for one event, in microseconds. On an idle machine it takes less than 100;
/// dumping the kernel's tables, or iterating over all addresses each time, takes a thousand.
const BUDGET: u64 = 300;
/// First of the addresses, of the next hops, and of the destinations behind those.
const ADDRESSES: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 0);
const NEXT_HOPS: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 0);
const DESTINATIONS: Ipv4Addr = Ipv4Addr::new(10, 202, 0, 0);

fn nth(base: Ipv4Addr, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(base) + n)
}

/// Adds addresses as kube-proxy does for services, but to an interface that margay does not ignore.
fn add_addresses(host: &Host) -> Result<()> {
    let lines = (0..MANY).map(|n| format!("addr add {}/32 dev lo\n", nth(ADDRESSES, n)));
    let file = host.write("addresses", &lines.collect::<String>())?;
    host.run("ip", &["-batch", &file.display().to_string()]).map(drop)
}

#[test]
#[ignore = "needs root and python3"]
fn an_address_event_among_many_costs_little() -> Result<()> {
    lab::run_margay("addresses", &[], &["python3"], |lab| {
        let (host, other) = (lab.host("a")?, lab.host("b")?);
        let IpAddr::V4(id) = other.v4() else { anyhow::bail!("{}", other.v4()) };
        add_addresses(&host)?;
        host.shell(&format!("ip route add {NEXT_HOPS}/16 via {id}"))?;
        let text = format!(
            "[bgp]\nasn = {SUBJECT_AS}\nrouter-id = \"{}\"\nlisten = [\"0.0.0.0:1790\"]\n\n\
             [[bgp.peers]]\naddress = \"{id}\"\npassive = true\nremote-asn = {PEER_AS}\n\
             multihop-ttl = 2\nimport = \"all\"\nexport = \"none\"\n\n{}",
            host.router_id(),
            margay::control_section(&host)
        );
        let (daemon, control) = margay::start_text(&host, &text)?;
        let mut peer = RawPeer::start(&other)?;
        peer.establish(1, host.v4(), 1790, &open(PEER_AS, 240, id, &[])?)?;
        let mut updates = Vec::new();
        for n in 0..MANY {
            let prefix = nlri(nth(DESTINATIONS, n), 32);
            updates.extend(announcement(PEER_AS, nth(NEXT_HOPS, n), &[], &[prefix])?);
        }
        peer.send(1, &updates)?;
        let holds = |count: usize| -> Result<()> {
            let routes = kernel::routes(&host, Family::V4, kernel::PROTOCOL)?;
            ensure!(routes.len() == count, "{} routes", routes.len());
            Ok(())
        };
        wait_until(PATIENCE, "all routes in the kernel", || holds(MANY as usize))?;
        let used = || Ok::<_, anyhow::Error>(Usage::of(daemon.pid())?.cpu_millis);
        wait_until(PATIENCE, "an idle daemon", || {
            let before = used()?;
            std::thread::sleep(Duration::from_secs(2));
            let cpu = used()? - before;
            ensure!(cpu <= 10, "{cpu} ms in 2 s");
            Ok(())
        })?;
        let before = used()?;
        // One process for each change, so that margay receives the events one by one; on the
        // interface that all routes use.
        let flap = nth(ADDRESSES, MANY);
        host.shell(&format!(
            "for n in $(seq {FLAPS}); do \
             ip addr add {flap}/32 dev eth0; ip addr del {flap}/32 dev eth0; done"
        ))?;
        // Deferred work counts, too.
        std::thread::sleep(Duration::from_secs(3));
        let cpu = used()? - before;
        let each = cpu * 1000 / u64::from(2 * FLAPS);
        println!("{each} µs of CPU for each of {} address events", 2 * FLAPS);
        ensure!(each <= BUDGET, "{each} µs of CPU for one event");
        let status = control.json(&["show", "peers"])?.to_string();
        ensure!(status.contains("Established"), "{status}");
        // Events are still received: without the route to the next hops, every route is removed.
        host.shell(&format!("ip route del {NEXT_HOPS}/16"))?;
        wait_until(PATIENCE, "no route in the kernel", || holds(0))
    })
}
