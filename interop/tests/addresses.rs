//! What a change of one address costs where there are very many of them, and of next hops.

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

/// Addresses of the node, and next hops of its routes.
const MANY: u32 = 10_000;
/// Addresses that come and go, one after the other: two events each.
const FLAPS: u32 = 1_000;
/// CPU time in microseconds that one event may take. On a machine that does nothing else it is under 100;
/// reading the kernel again, or looking at all addresses each time, takes a thousand.
const BUDGET: u64 = 300;
/// The addresses, the next hops and the destinations behind those.
const ADDRESSES: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 0);
const NEXT_HOPS: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 0);
const DESTINATIONS: Ipv4Addr = Ipv4Addr::new(10, 202, 0, 0);

fn nth(base: Ipv4Addr, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(base) + n)
}

/// Like kube-proxy's services, on an interface that is ours.
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
        wait_until(PATIENCE, "silence", || {
            let before = used()?;
            std::thread::sleep(Duration::from_secs(2));
            let cpu = used()? - before;
            ensure!(cpu <= 10, "{cpu} ms in 2 s");
            Ok(())
        })?;
        let before = used()?;
        // One process for each change, so that margay hears of one after the other; on the interface
        // that all routes use.
        let flap = nth(ADDRESSES, MANY);
        host.shell(&format!(
            "for n in $(seq {FLAPS}); do \
             ip addr add {flap}/32 dev eth0; ip addr del {flap}/32 dev eth0; done"
        ))?;
        // What is put off belongs to it.
        std::thread::sleep(Duration::from_secs(3));
        let cpu = used()? - before;
        let each = cpu * 1000 / u64::from(2 * FLAPS);
        println!("{each} µs of CPU for each of {} address events", 2 * FLAPS);
        ensure!(each <= BUDGET, "{each} µs of CPU for one event");
        let status = control.json(&["show", "peers"])?.to_string();
        ensure!(status.contains("Established"), "{status}");
        // And it is still listening: the next hop's route goes away, and every route with it.
        host.shell(&format!("ip route del {NEXT_HOPS}/16"))?;
        wait_until(PATIENCE, "no route in the kernel", || holds(0))
    })
}
