//! What the kernel really does with packets to an address.

use std::net::IpAddr;

use super::sources::Sources;
use crate::ctl::item::{Gateway, KernelAnswer};
use crate::daemon::source_text;
use crate::kernel::{KernelAnswer as Answer, SeenKind, kernel_route_to};

/// Asks the kernel, in the table of a VRF or by the rules of the machine.
pub(super) async fn kernel_answer(
    sources: &Sources,
    address: IpAddr,
    vrf: Option<&str>,
) -> KernelAnswer {
    let links = sources.kernel.links();
    let device = vrf.and_then(|vrf| links.iter().find(|link| &*link.name == vrf));
    let device = device.map(|link| link.index);
    // The socket blocks until the kernel answers, and files the disk.
    let ask = move || {
        let answer = kernel_route_to(address, device, &links)?;
        let owner = match &answer {
            Answer::Uses(used) => Some(used.owner()),
            Answer::Drops(_) | Answer::NoRoute => None,
        };
        Ok::<_, crate::kernel::Error>((answer, owner))
    };
    let asked = tokio::task::spawn_blocking(ask);
    let mut answer = KernelAnswer {
        address,
        prefix: None,
        ours: false,
        protocol: None,
        table: None,
        metric: None,
        kind: None,
        gateways: Vec::new(),
        object: None,
        error: None,
    };
    match asked.await {
        Ok(Ok((Answer::Uses(found), owner))) => {
            let fib = &sources.state().config.fib;
            let table = match vrf.and_then(|vrf| sources.vrfs.get(vrf)) {
                Some(shown) => shown.routes_in,
                None => fib.table,
            };
            answer.ours = found.table == table && found.route.protocol == fib.protocol;
            answer.prefix = Some(found.route.prefix);
            answer.protocol = owner;
            (answer.table, answer.metric) = (Some(found.table), Some(found.route.metric));
            let kind = match found.route.kind {
                SeenKind::Unicast => "unicast",
                SeenKind::Blackhole => "blackhole",
                SeenKind::Unreachable => "unreachable",
                SeenKind::Other => "other",
            };
            answer.kind = Some(kind.to_owned());
            answer.object = found.object;
            let gateways = found.route.gateways.into_iter();
            let gateway = gateways.map(|gateway| Gateway {
                via: gateway.via,
                interface: gateway.interface,
                onlink: gateway.onlink,
            });
            answer.gateways = gateway.collect();
        }
        Ok(Ok((Answer::Drops(how), _))) => answer.kind = Some(how.name().to_owned()),
        Ok(Ok((Answer::NoRoute, _))) => {}
        Ok(Err(error)) => answer.error = Some(format!("{error}{}", source_text(&error))),
        Err(error) => answer.error = Some(error.to_string()),
    }
    answer
}
