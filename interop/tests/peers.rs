//! The subject with each of the other daemons. A list omits what its daemon does not support.

use interop::peer_tests;

peer_tests!(bird2: Bird2 {
    ebgp,
    ibgp,
    ebgp_over_ipv6,
    ibgp_over_ipv6,
    both_families_and_rfc8950_over_ipv6,
    hears_both_families_over_ipv4,
    md5,
    md5_mismatch,
    gtsm,
    gtsm_violated,
    add_path,
    refresh,
    subject_passive_on_port_179,
    peer_passive,
    prefix_limit,
    hold_timer_loss,
    passes_on_communities,
    peer_helps_a_restart_of_the_subject,
    subject_helps_a_restart_of_the_peer,
});

// BIRD 1.6.8, which Calico's nodes run: one process for each family.
peer_tests!(bird16: Bird16 {
    ebgp,
    ibgp,
    ebgp_over_ipv6,
    ibgp_over_ipv6,
    md5,
    md5_mismatch,
    gtsm,
    gtsm_violated,
    add_path,
    refresh_of_ipv6,
    subject_passive_on_port_179,
    peer_passive,
    prefix_limit,
    hold_timer_loss,
    passes_on_communities,
    peer_helps_a_restart_of_the_subject,
});

peer_tests!(frr: Frr {
    ebgp,
    ibgp,
    ebgp_over_ipv6,
    ibgp_over_ipv6,
    both_families_and_rfc8950_over_ipv6,
    hears_both_families_over_ipv4,
    md5,
    md5_mismatch,
    gtsm,
    gtsm_violated,
    add_path,
    refresh,
    subject_passive_on_port_179,
    peer_passive,
    prefix_limit,
    hold_timer_loss,
    passes_on_communities,
    peer_helps_a_restart_of_the_subject,
    subject_keeps_routes_of_a_crashed_peer,
});

peer_tests!(gobgp: Gobgp {
    ebgp,
    ibgp,
    ebgp_over_ipv6,
    ibgp_over_ipv6,
    both_families_and_rfc8950_over_ipv6,
    hears_both_families_over_ipv4,
    md5,
    md5_mismatch,
    gtsm,
    gtsm_violated,
    add_path,
    subject_passive_on_port_179,
    peer_passive,
    prefix_limit,
    hold_timer_loss,
    passes_on_communities,
    peer_helps_a_restart_of_the_subject,
    subject_keeps_routes_of_a_crashed_peer,
});

// Without RFC 8950.
peer_tests!(openbgpd: Openbgpd {
    ebgp,
    ibgp,
    ebgp_over_ipv6,
    ibgp_over_ipv6,
    hears_both_families_over_ipv4,
    md5,
    md5_mismatch,
    gtsm,
    gtsm_violated,
    add_path,
    refresh_of_ipv4,
    subject_passive_on_port_179,
    peer_passive,
    prefix_limit,
    hold_timer_loss,
    passes_on_communities,
    peer_helps_a_restart_of_the_subject,
});

// Without ADD-PATH between real routes, and without graceful restart.
peer_tests!(exabgp: Exabgp {
    ebgp,
    ibgp,
    ebgp_over_ipv6,
    ibgp_over_ipv6,
    both_families_and_rfc8950_over_ipv6,
    hears_both_families_over_ipv4,
    md5,
    md5_mismatch,
    gtsm,
    gtsm_violated,
    refresh,
    subject_passive_on_port_179,
    peer_passive,
    prefix_limit,
    hold_timer_loss,
    passes_on_communities,
});

// What only two margays negotiate with each other.
peer_tests!(margay: Margay {
    both_families_secured_over_ipv6,
    both_dial_at_once,
    subject_helps_an_ibgp_restart_of_the_peer,
});
