//! The cases of [`matrix`](crate::matrix) by name, and the macro that turns them into tests.

use anyhow::Result;

use crate::lab::Lab;
use crate::matrix::{self, Case, Passive};
use crate::speaker::Kind;

/// `peer_tests!(bird2: Bird2 { ebgp, md5 })` creates a module of tests, one for each case of
/// [`cases`](crate::cases), with that [`Kind`] of peer.
#[macro_export]
macro_rules! peer_tests {
    ($name:ident: $kind:ident { $($case:ident),+ $(,)? }) => {
        mod $name {
            $(
                #[test]
                #[ignore = "needs root and the daemons of interop/setup.sh peers"]
                fn $case() -> ::anyhow::Result<()> {
                    const NAME: &str = concat!(stringify!($name), "-", stringify!($case));
                    const PEER: $crate::speaker::Kind = $crate::speaker::Kind::$kind;
                    $crate::lab::run(NAME, &[PEER], |lab| $crate::cases::$case(lab, PEER))
                }
            )+
        }
    };
}

macro_rules! cases {
    ($($(#[$doc:meta])* $name:ident($lab:ident, $peer:ident) $body:block)+) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// When a condition of the case is not met.
            pub fn $name($lab: &mut Lab, $peer: Kind) -> Result<()> $body
        )+
    };
}

cases! {
    /// IPv4 routes in both directions, and their changes.
    ebgp(lab, peer) { matrix::exchange(lab, Case::ebgp(peer)) }

    /// As [`ebgp`], within one AS.
    ibgp(lab, peer) { matrix::exchange(lab, Case::ibgp(peer)) }

    /// IPv6 routes over IPv6.
    ebgp_over_ipv6(lab, peer) { matrix::exchange(lab, Case::ebgp(peer).over_v6()) }

    /// As [`ebgp_over_ipv6`], within one AS.
    ibgp_over_ipv6(lab, peer) { matrix::exchange(lab, Case::ibgp(peer).over_v6()) }

    /// Routes of both families over IPv6, those of IPv4 with IPv6 next hops.
    both_families_and_rfc8950_over_ipv6(lab, peer) {
        matrix::exchange(lab, Case::ebgp(peer).both_families_over_v6())
    }

    /// As [`both_families_and_rfc8950_over_ipv6`], with MD5 and GTSM, for our routes to the peer.
    both_families_secured_over_ipv6(lab, peer) {
        let case = Case::ebgp(peer).both_families_over_v6();
        case.password("s3cret").ttl_security().establish(lab)?.peer_has_subject_routes()
    }

    /// IPv6 routes received over IPv4 are accepted.
    hears_both_families_over_ipv4(lab, peer) { matrix::hears_both_families_over_v4(lab, peer) }

    /// TCP MD5 (RFC 2385).
    md5(lab, peer) { matrix::comes_up(lab, Case::ebgp(peer).password("s3cret").over_v6()) }

    /// Different keys: no session.
    md5_mismatch(lab, peer) {
        matrix::stays_down(lab, Case::ebgp(peer).mismatched_passwords(), "TCPMD5Failure")
    }

    /// GTSM (RFC 5082), with a key as well.
    gtsm(lab, peer) {
        matrix::comes_up(lab, Case::ebgp(peer).ttl_security().password("s3cret"))
    }

    /// A peer that sends with a TTL of 1: no session.
    gtsm_violated(lab, peer) {
        matrix::stays_down(lab, Case::ebgp(peer).ttl_security_violated(), "TCPMinTTLDrop")
    }

    /// Two paths of one prefix (RFC 7911).
    add_path(lab, peer) { matrix::add_path_both_ways(lab, peer) }

    /// ROUTE-REFRESH (RFC 2918) for both families.
    refresh(lab, peer) { matrix::refresh(lab, Case::ibgp(peer).both_families_over_v6()) }

    /// As [`refresh`], for a peer without RFC 8950.
    refresh_of_ipv4(lab, peer) { matrix::refresh(lab, Case::ibgp(peer)) }

    /// As [`refresh`], for a peer with one family per process.
    refresh_of_ipv6(lab, peer) { matrix::refresh(lab, Case::ibgp(peer).over_v6()) }

    /// The peer opens the connection.
    subject_passive_on_port_179(lab, peer) {
        matrix::comes_up(lab, Case::ebgp(peer).passive(Passive::Subject).port(179))
    }

    /// The subject opens the connection.
    peer_passive(lab, peer) { matrix::comes_up(lab, Case::ebgp(peer).passive(Passive::Peer)) }

    /// Both open a connection: collision detection (RFC 4271 §6.8).
    both_dial_at_once(lab, peer) {
        Case::ibgp(peer).passive(Passive::Neither).establish(lab)?.peer_has_subject_routes()
    }

    /// More prefixes than allowed end the session.
    prefix_limit(lab, peer) { matrix::prefix_limit(lab, peer).map(drop) }

    /// A cut link ends the session by the hold timer.
    hold_timer_loss(lab, peer) {
        let pair = matrix::hold_timer_loss(lab, peer)?;
        matrix::returns(lab, &pair)
    }

    /// Communities of a third speaker reach the peer.
    passes_on_communities(lab, peer) { matrix::passes_on(lab, peer) }

    /// Graceful restart of the subject (RFC 4724 §4.2 on the peer's side).
    peer_helps_a_restart_of_the_subject(lab, peer) { matrix::is_helped(lab, peer) }

    /// Graceful restart of the peer (RFC 4724 §4.2 on the subject's side).
    subject_helps_a_restart_of_the_peer(lab, peer) {
        matrix::helps_a_restart(lab, Case::ebgp(peer))
    }

    /// As [`subject_helps_a_restart_of_the_peer`], within one AS.
    subject_helps_an_ibgp_restart_of_the_peer(lab, peer) {
        matrix::helps_a_restart(lab, Case::ibgp(peer))
    }

    /// As [`subject_helps_a_restart_of_the_peer`], for a peer that may send End-of-RIB before its
    /// own routes: GoBGP's are added later, and FRR 8.4 on a busy machine ends its deferral with
    /// the routes received so far and sends its networks after End-of-RIB.
    subject_keeps_routes_of_a_crashed_peer(lab, peer) {
        matrix::keeps_routes_of_the_dead(lab, Case::ebgp(peer)).map(drop)
    }
}
