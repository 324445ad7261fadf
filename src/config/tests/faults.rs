//! Every fault, with its exact text and position.

use super::*;

/// The position of the first line after [`LEAST`].
const NEXT: &str = "m.toml:4:";

fn faults(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.as_slice().iter().map(ToString::to_string).collect(),
    }
}

/// Appends lines to [`LEAST`], and checks that they cause exactly this fault.
fn refused(lines: &str, fault: &str) {
    let text = format!("{LEAST}{lines}");
    let wanted = format!("m.toml:{fault}");
    assert_eq!(faults(&text), [wanted], "\n{text}");
}

/// Adds lines to an external peer that is valid without them.
fn refused_peer(lines: &str, fault: &str) {
    let peer = "[[bgp.peers]]\nremote-asn = 65001\nimport = \"all\"\nexport = \"none\"\n";
    let address = if lines.starts_with("address") { "" } else { "address = \"192.0.2.1\"\n" };
    refused(&format!("{peer}{lines}\n{address}"), fault);
}

/// Adds lines to a policy rule that is valid without them.
fn refused_rule(lines: &str, fault: &str) {
    refused(
        &format!("[[policy]]\nname = \"p\"\n[[policy.rules]]\nthen = \"accept\"\n{lines}\n"),
        fault,
    );
}

#[test]
fn every_fault_is_reported_at_its_position() {
    let text = "[bgp]\nasn = 0\nrouter-id = \"x\"\n\n[[bgp.peers]]\nadress = \"192.0.2.1\"\nremote-asn = 1\n\n[fib]\nprotocol = 4\n";
    assert_eq!(
        faults(text),
        [
            "m.toml:2:7: bgp.asn: 0 is reserved and cannot be used; use another AS number, 64512-65534 for private use",
            "m.toml:3:13: bgp.router-id: \"x\" is not valid; write an IPv4 address such as \"10.0.0.1\"",
            "m.toml:5:1: bgp.peers[1].address: is missing; set it to the neighbour's address",
            "m.toml:6:1: bgp.peers[1].adress: unknown key; did you mean \"address\"?",
            "m.toml:10:12: fib.protocol: 4 marks routes of the kernel or of the administrator; use 5-255: every route in the table with this number is taken for ours",
        ]
    );
}

#[test]
fn a_toml_error_is_one_line_and_never_quotes_the_file() {
    let text = format!("{LEAST}[[bgp.peers]]\npassword = \"hush-hush\n");
    let faults = faults(&text);
    assert!(!faults.is_empty());
    for fault in faults {
        assert!(fault.starts_with("m.toml:5:"), "{fault}");
        assert!(fault.ends_with("; correct the TOML"), "{fault}");
        assert!(!fault.contains('\n') && !fault.contains("hush"), "{fault}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let errors = Document::load(Path::new("/nonexistent/margay.toml")).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "/nonexistent/margay.toml: cannot be read: No such file or directory (os error 2); name a readable file with --config"
    );
}

#[test]
fn an_invalid_router_id_in_the_environment_is_named() {
    // Cargo sets the first variable for tests; the second is not set.
    for (name, what) in [
        (
            "CARGO_PKG_NAME",
            "CARGO_PKG_NAME is \"margay\" in the environment, which is no BGP Identifier",
        ),
        ("MARGAY_TEST_UNSET", "MARGAY_TEST_UNSET is not set in the environment"),
    ] {
        let text = format!("[bgp]\nasn = 64512\nrouter-id = \"env:{name}\"\n");
        let remedy = "set it to an IPv4 address of this machine, in a pod to status.hostIP";
        assert_eq!(faults(&text), [format!("m.toml:3:13: bgp.router-id: {what}; {remedy}")]);
    }
}

#[test]
fn faults_of_the_process() {
    assert_eq!(faults(""), ["m.toml:1:1: bgp: is missing; begin with asn and router-id"]);
    refused("asn = 1\n", "4:1: duplicate key; correct the TOML");
    refused("hold-tme = 3\n", "4:1: bgp.hold-tme: unknown key; did you mean \"hold-time\"?");
    refused("listen = 179\n", "4:10: bgp.listen: is an integer; write a string in quotes");
    refused(
        "listen = [\"0.0.0.0\"]\n",
        "4:11: bgp.listen[1]: \"0.0.0.0\" is not valid; write an address and port such as \"0.0.0.0:179\" or \"[::]:179\"",
    );
    refused(
        "listen = [\"0.0.0.0:0\"]\n",
        "4:11: bgp.listen[1]: port 0 is not a port; use 1-65535, usually 179",
    );
    refused(
        "listen = [\"[::]:1\", \"[::]:1\"]\n",
        "4:21: bgp.listen[2]: [::]:1 is listed twice; leave one out",
    );
    refused(
        "cluster-id = \"0.0.0.0\"\n",
        "4:14: bgp.cluster-id: 0.0.0.0 is not an identifier; use an IPv4 address of this machine",
    );
    refused("[bpg]\n", "4:2: bpg: unknown key; did you mean \"bgp\"?");
    refused(
        "[zebra]\n",
        "4:2: zebra: unknown key; known keys here: bgp, bmp, calico, control, fib, http, key-chains, log, mrt, originate, policy, redistribute, vrfs",
    );
}

#[test]
fn faults_of_key_chains() {
    let chain = |lines: &str, fault: &str| {
        let text = "[[key-chains]]\nname = \"c\"\n[[key-chains.keys]]\nid = 1\n";
        refused(&format!("{text}{lines}\n"), fault);
    };
    refused(
        "[[key-chains]]\nname = \"c\"\n",
        "4:1: key-chains[1].keys: has no key; write [[key-chains.keys]] with id and secret",
    );
    chain("", "6:1: key-chains[1].keys[1].secret: is missing; set secret or secret-file");
    chain(
        "secret = \"a\"\nsecret-file = \"b\"",
        "9:1: key-chains[1].keys[1].secret-file: excludes secret; keep one of them",
    );
    let long = "k".repeat(81);
    chain(
        &format!("secret = \"{long}\""),
        "8:10: key-chains[1].keys[1].secret: a secret of 81 octets cannot be used; use 1-80 octets",
    );
    chain(
        "secret = \"a\"\nalgorithm = \"hmac-sha2\"",
        "9:13: key-chains[1].keys[1].algorithm: \"hmac-sha2\" is not known here; did you mean \"hmac-sha1\"?",
    );
    chain(
        "secret = \"a\"\nsend = { from = 2027-01-02T00:00:00Z, until = 2027-01-01T00:00:00Z }",
        "9:8: key-chains[1].keys[1].send: ends before it begins; write a later time as until",
    );
    chain(
        "secret = \"a\"\naccept = { from = 2027-01-02T00:00:00 }",
        "9:19: key-chains[1].keys[1].accept.from: 2027-01-02T00:00:00 is not a time with an offset from UTC; write one such as 2026-12-01T00:00:00Z",
    );
    chain(
        "secret = \"a\"\n[[key-chains.keys]]\nid = 1\nreceive-id = 2\nsecret = \"b\"",
        "6:1: key-chains[1].keys: two keys have the id 1; give each its own (RFC 5925 §3.1)",
    );
    refused_peer(
        "tcp-ao = \"c\"",
        "8:10: bgp.peers[1].tcp-ao: there is no usable key chain \"c\" in this file; add [[key-chains]] with name = \"c\"",
    );
    refused_peer(
        "password = \"x\"\ntcp-ao = \"c\"",
        "9:1: bgp.peers[1].tcp-ao: excludes password: a connection is signed in one way; keep one of them",
    );
}

#[test]
fn a_peer_inside_a_range_with_a_key_chain_has_the_same_chain() {
    let text = |more: &str| {
        format!(
            "{LEAST}[[key-chains]]\nname = \"c\"\nkeys = [{{ id = 1, secret = \"s\" }}]\n\
             [[bgp.dynamic-peers]]\nprefix = \"192.0.2.0/24\"\nremote-asn = 64512\ntcp-ao = \"c\"\n\
             [[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = 64512\n{more}"
        )
    };
    assert_eq!(faults(&text("tcp-ao = \"c\"\n")), [""; 0]);
    for more in ["", "password = \"x\"\n"] {
        let wanted = "m.toml:12:11: bgp.peers[1].address: 192.0.2.1/32 lies in the dynamic-peers range \
                      192.0.2.0/24, and is not signed with its key chain \"c\", which Linux asks for from \
                      every address there; set tcp-ao = \"c\", or give the range another prefix";
        assert_eq!(faults(&text(more)), [wanted]);
    }
}

#[test]
fn faults_of_timers() {
    refused(
        "hold-time = 2\n",
        "4:13: bgp.hold-time: 1 and 2 seconds are not allowed; use 0 (off) or 3-65535",
    );
    refused("hold-time = 65536\n", "4:13: bgp.hold-time: 65536 is out of range; use 0-65535");
    refused("hold-time = -1\n", "4:13: bgp.hold-time: -1 is out of range; use 0-65535");
    refused("hold-time = \"9\"\n", "4:13: bgp.hold-time: is a string; write an integer, 0-65535");
    refused(
        "keepalive-time = 90\n",
        "4:18: bgp.keepalive-time: a keepalive every 90 s does not fit a hold time of 90 s; use a third of the hold time, or leave keepalive-time out",
    );
    refused(
        "send-hold-time = 90\n",
        "4:18: bgp.send-hold-time: a send hold time of 90 s is not longer than the hold time of 90 s; use 0 (off) or more than the hold time (RFC 9687)",
    );
    refused(
        "graceful-restart-time = 4096\n",
        "4:25: bgp.graceful-restart-time: 4096 is out of range; use 0-4095",
    );
    refused(
        "long-lived-graceful-restart = { time = 16777216 }\n",
        "4:40: bgp.long-lived-graceful-restart.time: 16777216 is out of range; use 0-16777215",
    );
    refused(
        "long-lived-graceful-restart = true\n",
        "4:31: bgp.long-lived-graceful-restart: true does not say for how long; write { time = SECONDS }",
    );
    refused(
        "connect-retry-time = 0\n",
        "4:22: bgp.connect-retry-time: 0 is out of range; use 1-65535",
    );
    // Inherited values must fit those that a peer sets.
    refused(
        "keepalive-time = 30\n[[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = 64512\nhold-time = 20\n",
        "8:13: bgp.peers[1].hold-time: a keepalive every 30 s does not fit a hold time of 20 s; use a third of the hold time, or leave keepalive-time out",
    );
}

#[test]
fn an_external_peer_needs_explicit_policies() {
    let peer = "[[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = 65001\n";
    for (given, fault) in [
        (
            "",
            "import: is missing, and so is export; an external peer needs both (RFC 8212); write import and export = \"all\", \"none\" or the name of a policy",
        ),
        (
            "import = \"all\"\n",
            "export: is missing, and an external peer needs one (RFC 8212); write export = \"all\", \"none\" or the name of a policy",
        ),
        (
            "export = \"none\"\n",
            "import: is missing, and an external peer needs one (RFC 8212); write import = \"all\", \"none\" or the name of a policy",
        ),
    ] {
        let wanted = format!("{NEXT}1: bgp.peers[1].{fault}");
        assert_eq!(faults(&format!("{LEAST}{peer}{given}")), [wanted]);
    }
    refused(
        &format!("{peer}import = \"all\"\nexport = \"pod\"\n[[policy]]\nname = \"pods\"\n"),
        "8:10: bgp.peers[1].export: policy \"pod\" does not exist; did you mean \"pods\"?",
    );
    refused(
        &format!("{peer}import = \"everything\"\nexport = \"none\"\n"),
        "7:10: bgp.peers[1].import: policy \"everything\" does not exist; define it as [[policy]], or use all, none",
    );
}

#[test]
fn faults_of_addresses() {
    for (address, fault) in [
        ("0.0.0.0", "is not an address of one machine; use the neighbour's address"),
        ("224.0.0.1", "is a multicast address; use the neighbour's address"),
        ("255.255.255.255", "is the broadcast address; use the neighbour's address"),
        ("::ffff:192.0.2.1", "is an IPv4 address in IPv6 form; use the neighbour's address"),
        (
            "fe80::1",
            "is link-local, and the link is not named; add interface = \"NAME\", or use a global or unique-local address",
        ),
        ("tor", "\"tor\" is not valid; write an address such as 192.0.2.1 or 2001:db8::1"),
    ] {
        refused_peer(
            &format!("address = \"{address}\""),
            &format!("8:11: bgp.peers[1].address: {fault}"),
        );
    }
    refused_peer(
        "source-address = \"2001:db8::1\"",
        "8:18: bgp.peers[1].source-address: 2001:db8::1 cannot reach an ipv4 neighbour; use an ipv4 address of ours",
    );
    refused_peer(
        "source-address = \"192.0.2.1\"",
        "8:18: bgp.peers[1].source-address: is the neighbour's address; use an address of ours",
    );
    refused(
        "listen = [\"127.0.0.1:179\"]\n[[bgp.peers]]\naddress = \"127.0.0.1\"\nremote-asn = 64512\n",
        "6:11: bgp.peers[1].address: 127.0.0.1:179 is our own listening address; use the neighbour's address",
    );
}

#[test]
fn a_description_is_one_line() {
    for wrong in ["", "a\\nb", &"x".repeat(256)] {
        refused_peer(
            &format!("description = \"{wrong}\""),
            "8:15: bgp.peers[1].description: is not one line; write at most 255 octets without line ends",
        );
    }
}

#[test]
fn peers_need_distinct_names_and_addresses() {
    let peer = |name: &str, address: &str| {
        format!("[[bgp.peers]]\nname = \"{name}\"\naddress = \"{address}\"\nremote-asn = 64512\n")
    };
    refused(
        &format!("{}{}", peer("a", "192.0.2.1"), peer("b", "192.0.2.1")),
        "10:11: bgp.peers[2].address: 192.0.2.1 is the address of bgp.peers[1] too; keep one peer for each address",
    );
    refused(
        &format!("{}{}", peer("a", "192.0.2.1"), peer("a", "192.0.2.2")),
        "9:8: bgp.peers[2].name: \"a\" is the name of bgp.peers[1] too; give each peer its own name",
    );
    // The second contains a direction mark, which would reverse the text after it.
    for name in ["a b", "a\u{202e}b"] {
        refused(
            &peer(name, "192.0.2.1"),
            "5:8: bgp.peers[1].name: must be one word; use letters, digits, \"-\", \"_\" and \".\"",
        );
    }
}

#[test]
fn faults_of_sessions() {
    refused_peer("port = 0", "8:8: bgp.peers[1].port: 0 is out of range; use 1-65535");
    refused_peer("port = 70000", "8:8: bgp.peers[1].port: 70000 is out of range; use 1-65535");
    refused_peer("passive = 1", "8:11: bgp.peers[1].passive: is an integer; write true or false");
    refused_peer(
        "ttl-security = 255",
        "8:16: bgp.peers[1].ttl-security: 255 is out of range; use 1-254",
    );
    refused_peer(
        "ttl-security = 1\nmultihop-ttl = 3",
        "9:1: bgp.peers[1].multihop-ttl: excludes ttl-security, which sends with 255; leave one of them out; ttl-security takes the number of hops",
    );
    refused_peer(
        "route-reflector-client = true",
        "8:1: bgp.peers[1].route-reflector-client: is for internal peers, and remote-asn is not our AS; leave it out (RFC 4456)",
    );
    refused_peer(
        "cluster-id = \"1.1.1.1\"",
        "8:1: bgp.peers[1].cluster-id: is for internal peers, and remote-asn is not our AS; leave it out (RFC 4456)",
    );
    refused_peer(
        "role-strict = true",
        "8:1: bgp.peers[1].role-strict: needs a role; set role, or leave it out (RFC 9234)",
    );
    refused(
        "[[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = 64512\nrole = \"peer\"\n",
        "7:1: bgp.peers[1].role: is for external peers; leave it out (RFC 9234)",
    );
    refused_peer(
        "next-hop = \"slef\"",
        "8:12: bgp.peers[1].next-hop: \"slef\" is not known here; did you mean \"self\"?",
    );
    refused_peer(
        "add-path = \"all\"",
        "8:12: bgp.peers[1].add-path: \"all\" is not known here; use \"none\" or \"receive\" or \"send\" or \"both\"",
    );
    refused_peer(
        "families = []",
        "8:12: bgp.peers[1].families: is empty; write [\"ipv4\"], [\"ipv6\"] or both",
    );
    refused_peer(
        "families = [\"ipv4\", \"ipv4\"]",
        "8:21: bgp.peers[1].families[2]: ipv4 is listed twice; leave one out",
    );
    refused(
        "listen = []\n[[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = 64512\npassive = true\n",
        "8:11: bgp.peers[1].passive: the peer can never connect, because bgp.listen is empty; listen somewhere, or dial the peer",
    );
}

#[test]
fn faults_of_passwords_do_not_show_them() {
    let long = "x".repeat(81);
    refused_peer(
        &format!("password = \"{long}\""),
        "8:12: bgp.peers[1].password: a password of 81 octets cannot be used; use 1-80 octets",
    );
    refused_peer(
        "password = \"\"",
        "8:12: bgp.peers[1].password: a password of 0 octets cannot be used; use 1-80 octets",
    );
    refused_peer(
        "password = 12345",
        "8:12: bgp.peers[1].password: is an integer; write a string in quotes",
    );
    refused_peer(
        "password = \"a\"\npassword-file = \"/b\"",
        "9:1: bgp.peers[1].password-file: excludes password; keep one of them",
    );
    refused_peer(
        "password-file = \"/nonexistent/key\"",
        "8:17: bgp.peers[1].password-file: /nonexistent/key cannot be read: No such file or directory (os error 2); name a readable file that holds the password",
    );
}

#[test]
fn faults_of_ranges() {
    let range = |lines: &str| format!("[[bgp.dynamic-peers]]\nremote-asn = 64512\n{lines}\n");
    refused(
        &range("prefix = \"10.1.0.0/8\""),
        "6:10: bgp.dynamic-peers[1].prefix: \"10.1.0.0/8\" has host bits set; did you mean 10.0.0.0/8?",
    );
    refused(
        &range("prefix = \"10.0.0.0/8\"\npeers-max = 0"),
        "7:13: bgp.dynamic-peers[1].peers-max: 0 is out of range; use 1-1000000",
    );
    refused(
        &range("prefix = \"10.0.0.0/8\"\nport = 179"),
        "7:1: bgp.dynamic-peers[1].port: does not apply to a range, which is never dialled; leave it out",
    );
    refused(
        &format!("{}{}", range("prefix = \"10.0.0.0/8\""), range("prefix = \"10.0.0.0/8\"")),
        "9:10: bgp.dynamic-peers[2].prefix: 10.0.0.0/8 is the range of bgp.dynamic-peers[1] too; keep one entry for each range",
    );
    refused(
        &format!("listen = []\n{}", range("prefix = \"10.0.0.0/8\"")),
        "5:1: bgp.dynamic-peers[1]: peers can never connect, because bgp.listen is empty; listen somewhere, or leave the range out",
    );
}

#[test]
fn faults_of_vrfs() {
    let vrf = |name: &str| format!("[[vrfs]]\nname = \"{name}\"\n");
    let blue = vrf("blue");
    let peer = |lines: &str| {
        format!(
            "[[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = 65001\nimport = \"all\"\nexport = \
             \"none\"\n{lines}\n"
        )
    };
    let range = |lines: &str| {
        format!("[[bgp.dynamic-peers]]\nprefix = \"10.0.0.0/8\"\nremote-asn = 64512\n{lines}\n")
    };
    refused(
        &vrf("default"),
        "5:8: vrfs[1].name: is what needs no entry: the default VRF has all that names none; leave the entry out",
    );
    refused(
        &vrf("sixteen-octets-1"),
        "5:8: vrfs[1].name: \"sixteen-octets-1\" cannot be the name of a device; use the name that `ip link add NAME type vrf table N` was given",
    );
    refused(
        &format!("{blue}{blue}"),
        "7:8: vrfs[2].name: blue is listed twice; keep one entry for each VRF",
    );
    refused(
        &peer("vrf = \"default\""),
        "9:7: bgp.peers[1].vrf: the default VRF is that of everything without vrf; leave vrf out",
    );
    refused(
        &peer("vrf = \"red\""),
        "9:7: bgp.peers[1].vrf: there is no VRF \"red\" in this file; add [[vrfs]] with name = \"red\"",
    );
    refused(
        &format!("{blue}listen = []\n{}", range("vrf = \"blue\"")),
        "7:1: bgp.dynamic-peers[1]: peers can never connect, because listen of VRF blue is empty; listen somewhere, or leave the range out",
    );
    refused(
        &format!("{blue}{}{}", range("name = \"rack\"\nvrf = \"blue\""), range("name = \"rack\"")),
        "14:8: bgp.dynamic-peers[2].name: peers of bgp.dynamic-peers[1], in another VRF, are called rack-… too; give each range its own name",
    );
    refused(
        "[[bgp.peers]]\ninterface = \"eth1\"\nremote-asn = 64512\nbind-interface = \"eth2\"\n",
        "7:1: bgp.peers[1].bind-interface: does not apply to a peer by interface, which is on its link; leave it out",
    );
    let import = |line: &str| format!("{blue}import-vrf = [{line}]\n");
    refused(
        &import("{ vrf = \"blue\", policy = \"all\" }"),
        "6:23: vrfs[1].import-vrf[1].vrf: a VRF does not import its own routes; leave the entry out",
    );
    refused(
        &import("{ vrf = \"red\", policy = \"all\" }"),
        "6:23: vrfs[1].import-vrf[1].vrf: there is no VRF \"red\" in this file; add [[vrfs]] with name = \"red\"",
    );
    refused(
        &import("{ vrf = \"default\" }"),
        "6:15: vrfs[1].import-vrf[1].policy: is missing; name the policy that selects routes, or \"all\"",
    );
    let policy = |set: &str| {
        let rule = format!("[[policy.rules]]\nset = {{ {set} }}\nthen = \"accept\"\n");
        import("{ vrf = \"default\", policy = \"p\" }") + "[[policy]]\nname = \"p\"\n" + &rule
    };
    refused(
        &policy("preference = 7"),
        "6:43: vrfs[1].import-vrf[1].policy: policy \"p\" has set.preference, which an import from a VRF ignores: imported routes lose to all others, and have the next hops of the VRF they come from; use a policy without set.preference",
    );
    refused(
        &policy("next-hop = \"192.0.2.9\""),
        "6:43: vrfs[1].import-vrf[1].policy: policy \"p\" has set.next-hop, which an import from a VRF ignores: imported routes lose to all others, and have the next hops of the VRF they come from; use a policy without set.next-hop",
    );
    // Nothing of one VRF is a duplicate of anything in another.
    let route = "[[originate]]\nprefix = \"203.0.113.0/24\"\n";
    let (both, ranges) = (peer("vrf = \"blue\"") + &peer(""), range("vrf = \"blue\"") + &range(""));
    let routes = format!("{route}vrf = \"blue\"\n{route}");
    let config = parse(&format!("{LEAST}{blue}{both}{ranges}{routes}")).unwrap();
    assert_eq!((config.originate.len(), config.vrfs[0].originate.len()), (1, 1));
    let names: Vec<&str> = config.peers.iter().map(|peer| &*peer.name).collect();
    assert_eq!(names, ["blue-192.0.2.1", "192.0.2.1"]);
    let raw = "CAP_NET_RAW (bind-interface in a VRF)";
    let bound = peer("vrf = \"blue\"\nbind-interface = \"eth1\"");
    assert!(parse(&format!("{LEAST}{blue}{bound}")).unwrap().to_string().contains(raw));
    assert!(!config.to_string().contains("CAP_NET_RAW"));
    let shown = config.to_string();
    for line in [
        "VRF blue: listens on 0.0.0.0:179, [::]:179",
        "originates 203.0.113.0/24 in VRF blue, blackhole in the kernel",
        "originates 203.0.113.0/24, blackhole in the kernel",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
}

#[test]
fn faults_of_local_routes() {
    refused(
        "[[originate]]\nprefix = \"10.65.1.1/26\"\n",
        "5:10: originate[1].prefix: \"10.65.1.1/26\" has host bits set; did you mean 10.65.1.0/26?",
    );
    refused(
        "[[originate]]\nprefix = \"::/0\"\n[[originate]]\nprefix = \"::/0\"\n",
        "7:10: originate[2].prefix: ::/0 is originate[1] too; keep one entry for each prefix",
    );
    refused(
        "[[originate]]\nprefix = \"::/0\"\nkind = \"drop\"\n",
        "6:8: originate[1].kind: \"drop\" is not known here; use \"blackhole\" or \"unreachable\" or \"none\"",
    );
    refused(
        "[[redistribute]]\n",
        "4:1: redistribute[1].from: is missing; write from = \"kernel\" or \"connected\"",
    );
    refused(
        "[[redistribute]]\nfrom = \"connected\"\nprotocols = [4]\n",
        "6:1: redistribute[1].protocols: does not apply to connected networks; leave it out",
    );
    refused(
        "[[redistribute]]\nfrom = \"kernel\"\nprotocols = [\"bird\"]\n",
        "6:14: redistribute[1].protocols[1]: 12 is the number of our own routes (fib.protocol); leave it out: they are never learned",
    );
    refused(
        "[[redistribute]]\nfrom = \"kernel\"\nprotocols = [256]\n",
        "6:14: redistribute[1].protocols[1]: 256 is out of range; use 0-255",
    );
    refused(
        "[[redistribute]]\nfrom = \"kernel\"\nprefixes = []\n",
        "6:12: redistribute[1].prefixes: is empty; leave the key out to select everything",
    );
}

#[test]
fn faults_of_the_host() {
    refused(
        "[fib]\ntable = 255\n",
        "5:9: fib.table: 255 is the kernel's own table \"local\"; use 254 (main) or another",
    );
    refused(
        "[fib]\nnext-hop-objects = false\nbackup-paths = true\n",
        "6:16: fib.backup-paths: needs next-hop objects; leave out next-hop-objects = false",
    );
    refused(
        "[fib]\nmultipath-max = 257\n",
        "5:17: fib.multipath-max: 257 is out of range; use 1-256",
    );
    refused(
        "[fib]\npolicy = \"x\"\n",
        "5:10: fib.policy: policy \"x\" does not exist; define it as [[policy]], or use all, none",
    );
    refused(
        "[control]\nsocket = \"m.sock\"\n",
        "5:10: control.socket: is not an absolute path; begin it with /",
    );
    let long = format!("/{}", "x".repeat(107));
    refused(
        &format!("[control]\nsocket = \"{long}\"\n"),
        "5:10: control.socket: is 108 octets long; use at most 107, a limit of the system",
    );
    refused("[http]\n", "4:1: http.listen: is missing; write listen = \"127.0.0.1:9479\"");
    refused(
        "[http]\nlisten = \"127.0.0.1:0\"\n",
        "5:10: http.listen: port 0 is not a port; use 1-65535, for example 9479",
    );
    refused(
        "[http]\nlisten = \"127.0.0.1:9479\"\npeer-series = \"al\"\n",
        "6:15: http.peer-series: \"al\" is not known here; did you mean \"all\"?",
    );
    refused(
        "[http]\nlisten = \"127.0.0.1:9479\"\npeer-series-max = 0\n",
        "6:19: http.peer-series-max: 0 is out of range; use 1-10000",
    );
    refused(
        "[log]\nlevel = \"wran\"\n",
        "5:9: log.level: \"wran\" is not known here; did you mean \"warn\"?",
    );
}

#[test]
fn faults_of_policies() {
    refused(
        "[[policy]]\nname = \"all\"\n",
        "5:8: policy[1].name: is the name of a built-in policy; use another name",
    );
    refused(
        "[[policy]]\nname = \"p\"\n[[policy]]\nname = \"p\"\n",
        "7:8: policy[2].name: is the name of another policy too; use another name",
    );
    refused(
        "[[policy]]\nname = \"p\"\n[[policy.rules]]\nmatch.source = \"bgp\"\n",
        "6:1: policy[1].rules[1].then: is missing; write then = \"accept\", \"reject\" or \"next\"",
    );
    refused(
        "[[policy]]\nname = \"p\"\n[[policy.rules]]\nset.med = 1\nthen = \"reject\"\n",
        "6:1: policy[1].rules[1]: changes a route that it rejects; leave the changes out, or write then = \"next\"",
    );
    let at = "policy[1].rules[1]";
    for (lines, fault) in [
        ("match = {}", "8:9: @.match: has no conditions; leave it out, or name a condition"),
        ("match.prefix = \"::/0\"", "8:7: @.match.prefix: unknown key; did you mean \"prefixes\"?"),
        (
            "match.prefixes = []",
            "8:18: @.match.prefixes: is an empty list, which nothing matches; leave the key out",
        ),
        (
            "match.prefixes = [\"10.0.0.1/8\"]",
            "8:19: @.match.prefixes[1]: \"10.0.0.1/8\" has host bits set; did you mean 10.0.0.0/8?; write \"10.0.0.0/8\" or \"10.0.0.0/8 ge 24 le 26\"",
        ),
        (
            "match.prefixes = \"10.0.0.0/8 gt 9\"",
            "8:18: @.match.prefixes: \"10.0.0.0/8 gt 9\" is not a range of prefixes; write \"10.0.0.0/8 ge 24 le 26\" or \"10.0.0.0/8 or-longer\"",
        ),
        (
            "match.prefixes = \"10.0.0.0/8 ge 7\"",
            "8:18: @.match.prefixes: lengths 7 to 32 do not fit 10.0.0.0/8; use lengths from 8 to 32, the lower one first",
        ),
        (
            "match.prefixes = \"10.0.0.0/8 le 33\"",
            "8:18: @.match.prefixes: lengths 8 to 33 do not fit 10.0.0.0/8; use lengths from 8 to 32, the lower one first",
        ),
        (
            "match.communities = \"1:2:3:4\"",
            "8:21: @.match.communities: \"1:2:3:4\" is not a community; write \"64512:100\", \"no-export\", \"64512:1:2\", \"rt:64512:100\" or \"0x\" with 16 digits",
        ),
        (
            "match.as-path-length = \"5-4\"",
            "8:24: @.match.as-path-length: \"5-4\" is not a range; write 100, \"100-200\", \"100-\" or \"-200\"",
        ),
        (
            "match.local-pref = \"-\"",
            "8:20: @.match.local-pref: \"-\" is not a range; write 100, \"100-200\", \"100-\" or \"-200\"",
        ),
        (
            "match.peer-type = \"ibgp\"",
            "8:19: @.match.peer-type: \"ibgp\" is not known here; use \"internal\" or \"external\"",
        ),
        ("set.med = \"off\"", "8:11: @.set.med: \"off\" is not known here; use \"none\""),
        (
            "set = { link-bandwidth = 1, link-bandwidth-percent = 50 }",
            "8:29: @.set.link-bandwidth-percent: has no effect beside link-bandwidth; leave one of them out",
        ),
        (
            "set = { link-bandwidth-type = \"transitive\" }",
            "8:9: @.set.link-bandwidth-type: has no effect without link-bandwidth; set link-bandwidth too",
        ),
        (
            "set.link-bandwidth = 0",
            "8:22: @.set.link-bandwidth: 0 is out of range; use 1-1000000000000000",
        ),
        ("set.preference = 65536", "8:18: @.set.preference: 65536 is out of range; use 1-65535"),
        (
            "set.next-hop = \"0.0.0.0\"",
            "8:16: @.set.next-hop: 0.0.0.0 cannot be a next hop; use an address of a router",
        ),
        (
            "prepend = { asn = 1, count = 17 }",
            "8:30: @.prepend.count: 17 is out of range; use 1-16",
        ),
        ("prepend = { count = 1 }", "8:11: @.prepend.asn: is missing; name the AS to prepend"),
    ] {
        refused_rule(lines, &fault.replace('@', at));
    }
}

#[test]
fn faults_of_bfd() {
    for (lines, fault) in [
        ("bfd = 1\n", "8:7: bgp.peers[1].bfd: is an integer; write a table"),
        (
            "bfd = { min-tx = 5 }\n",
            "8:18: bgp.peers[1].bfd.min-tx: 5 is out of range; use 10-60000",
        ),
        (
            "bfd = { multiplier = 0 }\n",
            "8:22: bgp.peers[1].bfd.multiplier: 0 is out of range; use 1-255",
        ),
        (
            "bfd = { min-rxx = 50 }\n",
            "8:9: bgp.peers[1].bfd.min-rxx: unknown key; did you mean \"min-rx\"?",
        ),
        (
            "bfd = { multihop = false }\nmultihop-ttl = 2\n",
            "8:9: bgp.peers[1].bfd.multihop: excludes multihop-ttl: a BFD session over one hop takes packets with TTL 255 alone; leave it out, or leave multihop-ttl out",
        ),
        (
            "bfd = { auth = { type = \"md5\", key-id = 1, password = \"hidden\" } }\n",
            "8:25: bgp.peers[1].bfd.auth.type: \"md5\" is not known here; use \"simple\" or \"sha1\" or \"meticulous-sha1\"",
        ),
        (
            "bfd = { auth = { type = \"sha1\", key-id = 1, password = \"hidden-hidden-hidden-\" } }\n",
            "8:56: bgp.peers[1].bfd.auth.password: a key of 21 octets cannot be used; use 1-20 octets",
        ),
        (
            "bfd = { auth = { type = \"sha1\", key-id = 1 } }\n",
            "8:16: bgp.peers[1].bfd.auth: has no password; write password or password-file",
        ),
    ] {
        refused_peer(lines, fault);
    }
}

#[test]
fn faults_of_peers_by_interface() {
    for (lines, fault) in [
        (
            "interface = \"eth1\"\naddress = \"192.0.2.1\"",
            "9:11: bgp.peers[1].address: 192.0.2.1 is not link-local, and interface is for neighbours that are; leave interface out, or address, to find the neighbour by its advertisements",
        ),
        (
            "interface = \"eth1\"\naddress = \"fe80::1\"\nrouter-advertisements = true",
            "10:1: bgp.peers[1].router-advertisements: excludes address: the neighbour is not to be found by router advertisements; leave one of them out",
        ),
        (
            "interface = \"eth1\"\nsource-address = \"2001:db8::1\"",
            "9:18: bgp.peers[1].source-address: 2001:db8::1 is not link-local, and interface is for neighbours that are; use a link-local address of the interface, or leave it out",
        ),
        (
            "interface = \"eth1\"\naddress = \"fe80::1\"\nsource-address = \"fe80::1\"",
            "10:18: bgp.peers[1].source-address: is the neighbour's address; use an address of ours",
        ),
        (
            "interface = \"eth1\"\naddress = \"fe90::1\"",
            "9:11: bgp.peers[1].address: fe90::1 is not in fe80::/64, where all link-local addresses are; write fe80::1",
        ),
        (
            "interface = \"eth1\"\nmultihop-ttl = 2",
            "9:1: bgp.peers[1].multihop-ttl: does not apply to an interface, whose neighbour is on the link; leave it out",
        ),
        (
            "interface = \"an-interface-name\"",
            "8:13: bgp.peers[1].interface: is no name of an interface; write at most 15 octets such as \"eth1\" or \"eth*\"",
        ),
    ] {
        let peer = "[[bgp.peers]]\nremote-asn = 65001\nimport = \"all\"\nexport = \"none\"\n";
        refused(&format!("{peer}{lines}\n"), fault);
    }
    refused_peer(
        "router-advertisements = true",
        "8:1: bgp.peers[1].router-advertisements: is for peers by interface; leave it out, or name an interface",
    );
    let peer = |key: &str| {
        format!("[[bgp.peers]]\n{key}\nremote-asn = \"any\"\nimport = \"all\"\nexport = \"none\"\n")
    };
    refused(
        &(peer("interface = \"eth1\"") + &peer("interface = \"eth1\"\nname = \"b\"")),
        "10:13: bgp.peers[2].interface: \"eth1\" is the interface of bgp.peers[1] too; keep one peer for each interface",
    );
    refused(
        &(peer("interface = \"eth*\"")
            + &peer("interface = \"eth1\"\nname = \"a\"")
            + &peer("interface = \"lan1\"\nname = \"a\"")),
        "17:8: bgp.peers[3].name: \"a\" is the name of bgp.peers[2] too; give each peer its own name",
    );
    refused(
        "[[bgp.dynamic-peers]]\nprefix = \"fe80::/10\"\nremote-asn = 64512\n",
        "5:10: bgp.dynamic-peers[1].prefix: is a range of link-local addresses, which differ from link to link; write [[bgp.peers]] with interface = \"NAME\" instead, which may be a pattern",
    );
    refused(
        "[[bgp.dynamic-peers]]\nprefix = \"10.0.0.0/8\"\nremote-asn = 64512\ninterface = \"eth1\"\n",
        "7:1: bgp.dynamic-peers[1].interface: does not apply to a range, which is never dialled; leave it out",
    );
}

#[test]
fn faults_of_the_remote_as() {
    refused_peer_as(
        "\"inside\"",
        "6:14: bgp.peers[1].remote-asn: \"inside\" is not valid; write internal, external, any or an AS number",
    );
    refused(
        "[[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = \"any\"\n",
        "4:1: bgp.peers[1].import: is missing, and so is export; an external peer needs both (RFC 8212); write import and export = \"all\", \"none\" or the name of a policy",
    );
}

fn refused_peer_as(remote_asn: &str, fault: &str) {
    let peer = "[[bgp.peers]]\naddress = \"192.0.2.1\"\nremote-asn = ";
    refused(&format!("{peer}{remote_asn}\nimport = \"all\"\nexport = \"all\"\n"), fault);
}
