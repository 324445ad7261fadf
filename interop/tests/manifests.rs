//! Runs the two `margay.toml` of `examples/kubernetes` with what their pods have: one capability,
//! no new privileges, a read-only root file system.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use interop::daemon::Daemon;
use interop::lab::{self, Host, Lab};
use interop::margay::binary;
use interop::speaker::{Config, Family, Kind, Neighbor, Origin, Speaker};
use interop::wait::{PATIENCE, holds_for, wait_until};

/// CAP_NET_BIND_SERVICE, as `/proc/PID/status` has it.
const NET_BIND_SERVICE: &str = "0000000000000400";

/// Password of the reflector's sessions: TCP MD5 needs no further capability.
const PASSWORD: &str = "s3cret";

/// Starts margay as kubelet starts the container.
fn start(host: &Host, name: &str, changes: &[(&str, &str)]) -> Result<Daemon> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/kubernetes");
    let mut text = std::fs::read_to_string(Path::new(root).join(name).join("margay.toml"))?;
    for (from, to) in changes {
        ensure!(text.contains(from), "no {from}");
        text = text.replace(from, to);
    }
    let config = host.write("margay.toml", &text)?;
    let script = "mount -t tmpfs tmpfs /run; mkdir /run/margay; mount -o remount,bind,ro /\n\
                  exec setpriv --bounding-set=-all,+net_bind_service --inh-caps=-all --no-new-privs \"$@\"";
    let mut command = host.command("unshare");
    command.args(["--mount", "sh", "-ec", script, "sh"]).arg(binary()?);
    command.args(["run", "--config"]).arg(config).env("HOST_IP", host.v4().to_string());
    let daemon = Daemon::start(command, &host.file("margay.log"))?;
    wait_until(PATIENCE, "the start-up probe", || {
        let mut probe = Command::new("nsenter");
        probe.args(["--mount", "--target", &daemon.pid().to_string()]).arg(binary()?);
        lab::run_command(probe.args(["health", "--live"])).context(daemon.output())
    })?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    for line in ["CapEff", "CapPrm", "CapBnd"] {
        ensure!(status.contains(&format!("{line}:\t{NET_BIND_SERVICE}\n")), "{status}");
    }
    ensure!(status.contains("NoNewPrivs:\t1\n"), "{status}");
    Ok(daemon)
}

/// A speaker with margay as its only neighbour.
fn speaker(host: &Host, asn: u32, margay: &Host, origin: Option<&str>) -> Result<Box<dyn Speaker>> {
    let is_external = asn != 64512;
    let neighbor = Neighbor {
        address: margay.v4(),
        local: host.v4(),
        asn: 64512,
        port: 179,
        families: vec![Family::V4],
        password: (!is_external).then(|| PASSWORD.to_owned()),
        ttl_security: is_external,
        add_path: false,
        passive: false,
        extended_next_hop: false,
        graceful_restart: false,
        reflector_client: false,
        hold_time: 90,
        only: None,
        long_lived: None,
        prefixes_max: None,
    };
    let config = Config {
        asn,
        router_id: host.router_id(),
        port: 179,
        neighbors: vec![neighbor],
        origins: origin.iter().map(|prefix| Origin::plain(prefix)).collect(),
    };
    Kind::Bird2.start(host, &config)
}

fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    lab::run_margay(name, &[Kind::Bird2], &["unshare", "nsenter", "setpriv"], test)
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn a_reflector_needs_one_capability() -> Result<()> {
    run("m-reflector", |lab| {
        let (reflector, a, b) = (lab.host("rr")?, lab.host("a")?, lab.host("b")?);
        let password = format!("route-reflector-client = true\npassword = \"{PASSWORD}\"");
        let changes =
            [("10.0.0.0/16", "10.99.0.0/16"), ("route-reflector-client = true", &password)];
        let _daemon = start(&reflector, "route-reflector", &changes)?;
        let na = speaker(&a, 64512, &reflector, Some("10.65.1.0/26"))?;
        let nb = speaker(&b, 64512, &reflector, Some("10.65.2.0/26"))?;
        for (node, prefix, from) in [(&na, "10.65.2.0/26", &b), (&nb, "10.65.1.0/26", &a)] {
            wait_until(PATIENCE, prefix, || {
                let paths = node.paths(prefix)?;
                let hop = Some(from.v4().to_string());
                ensure!(paths.len() == 1 && paths[0].next_hop == hop, "{paths:?}");
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// The node's blocks are announced to the router, and nothing else that Felix writes.
#[test]
#[ignore = "needs root and BIRD 2"]
fn a_speaker_announces_only_blocks_to_its_router() -> Result<()> {
    run("m-speaker", |lab| {
        let (node, router) = (lab.host("node")?, lab.host("tor")?);
        let address = router.v4().to_string();
        // A block of the node's, a pod in it, another node's block.
        node.shell(&format!(
            "ip route add blackhole 10.65.1.0/26 proto 80\n\
             ip route add 10.65.1.7/32 dev eth0 scope link proto 80\n\
             ip route add 10.65.2.0/26 via {address} dev eth0 proto 80"
        ))?;
        let tor = speaker(&router, 65001, &node, Some("203.0.113.0/24"))?;
        let _daemon = start(&node, "tor-speaker", &[("192.0.2.1", &address)])?;
        let told = |prefix: &str| Ok::<_, anyhow::Error>(!tor.paths(prefix)?.is_empty());
        wait_until(PATIENCE, "the block", || {
            ensure!(told("10.65.1.0/26")?, "not announced");
            Ok(())
        })?;
        node.shell("ip route add blackhole 10.65.9.0/26 proto 80")?;
        wait_until(PATIENCE, "another block", || {
            ensure!(told("10.65.9.0/26")?, "not announced");
            Ok(())
        })?;
        holds_for(std::time::Duration::from_secs(1), "no other prefix", || {
            ensure!(!told("10.65.1.7/32")? && !told("10.65.2.0/26")?, "announced");
            Ok(())
        })?;
        // It writes nothing into the kernel.
        let routes = node.run("ip", &["route"])?;
        ensure!(!routes.contains("203.0.113.0") && !routes.contains("proto bird"), "{routes}");
        Ok(())
    })
}
