use super::*;

/// What is shut, in a short form: `Bgp4: policy`, or the rule that drops.
fn shut(text: &str, syntax: Syntax) -> Vec<String> {
    let shut = Ruleset::read(text, syntax).shut(179).into_iter();
    shut.map(|shut| {
        let family = if shut.family == Family::Ipv4 { 4 } else { 6 };
        let by = shut.by.rsplit_once(": its ").unwrap().1.to_owned();
        format!("{:?}{family}: {by}", shut.traffic)
    })
    .collect()
}

fn nft(rules: &str) -> Vec<String> {
    let text = format!(
        "table ip t {{\n\tset s {{\n\t\ttype inet_service\n\t\telements = {{ 22,\n\t\t\t 179 }}\n\t}}\n\n\
         \tchain input {{\n\t\ttype filter hook input priority 0; policy drop;\n{rules}\t}}\n\n\
         \tchain yes {{\n\t\taccept\n\t}}\n\n\tchain no {{\n\t\tcounter packets 0 bytes 0 drop\n\t}}\n\n\
         \tchain back {{\n\t\treturn\n\t\taccept\n\t}}\n}}\n"
    );
    shut(&text, Syntax::Nft)
}

const ALL: [&str; 3] = ["Bgp4: policy", "Ipip4: policy", "Vxlan4: policy"];
const TUNNELS: [&str; 2] = ["Ipip4: policy", "Vxlan4: policy"];

#[test]
fn a_policy_drops_packets_that_no_rule_can_accept() {
    assert_eq!(nft(""), ALL);
    for rule in [
        "ct state 0x2,0x4 accept",
        "ct state { established, related } accept",
        "ct state != new accept",
        "iif \"lo\" accept",
        "iifname { \"lo\", \"cali*\" } accept",
        "ip protocol 1 accept",
        "meta l4proto { 1, 58 } counter packets 1 bytes 84 accept",
        "tcp dport { 22, 80-178 } accept",
        "tcp dport != 179 accept",
        "udp dport 53 accept",
        "ip saddr 127.0.0.0/8 accept",
        "meta mark & 0x00010000 == 0x00010000 accept",
        "mark 0x4000 accept",
        "meta mark set mark or 0x1",
        "ip6 saddr fe80::/10 accept",
        "log prefix \"accept or drop: \" level warn",
        "comment \"accept all\"",
        "jump back",
        "goto back",
        "tcp dport 179 jump no",
    ] {
        let found = nft(&format!("\t\t{rule}\n"));
        let wanted = if rule.contains("jump no") { 0 } else { 3 };
        if wanted == 3 {
            assert_eq!(found, ALL, "{rule}");
        } else {
            assert_eq!(found[0], "Bgp4: rule \"counter packets 0 bytes 0 drop\"", "{rule}");
        }
    }
}

#[test]
fn packets_that_may_be_accepted_are_not_reported_as_dropped() {
    for rule in [
        "tcp dport 179 accept",
        "tcp dport { 22, 100-200 } counter packets 0 bytes 0 accept comment \"drop\"",
        "tcp dport @s accept",
        "ip saddr 192.0.2.0/24 tcp dport 179 limit rate 10/second accept",
        "ip saddr . tcp dport @s accept",
        "tcp dport vmap { 22 : accept, 179 : jump yes }",
        "tcp dport 179 jump yes",
        "tcp dport 179 goto yes",
        "meta l4proto 6 ct state 0x8 queue",
        "ip protocol 6 mark 0x0 accept",
    ] {
        assert_eq!(nft(&format!("\t\t{rule}\n")), TUNNELS, "{rule}");
    }
    for rule in ["accept", "iifname \"eth0\" accept", "ct state vmap { 0x2 : accept }", "jump yes"]
    {
        assert!(nft(&format!("\t\t{rule}\n")).is_empty(), "{rule}");
    }
    assert_eq!(nft("\t\tmeta l4proto { 4, 6 } accept\n"), ["Vxlan4: policy"]);
    assert_eq!(nft("\t\tudp dport 4789 accept\n"), ["Bgp4: policy", "Ipip4: policy"]);
}

#[test]
fn an_unconditional_last_rule_acts_as_a_policy() {
    let shuts = nft("\t\ttcp dport 22 accept\n\t\treject with icmp type 13\n\t\taccept\n");
    assert_eq!(shuts[0], "Bgp4: rule \"reject with icmp type 13\"");
    assert_eq!(shuts.len(), 3);
    // Whether it matches the packet is not known.
    assert!(nft("\t\tip saddr 192.0.2.1 drop\n\t\taccept\n").is_empty());
}

#[test]
fn tables_apply_to_their_families_and_chains_to_their_hooks() {
    let text = "table inet f {\n\tchain o {\n\t\ttype filter hook output priority 0; policy drop;\n\
                \t\tip saddr 192.0.2.0/24 accept\n\t}\n\
                \tchain f {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n\
                table bridge b {\n\tchain i {\n\t\ttype filter hook input priority 0; policy drop;\n\t}\n}\n";
    assert_eq!(shut(text, Syntax::Nft), ["Bgp6: policy", "Ipip6: policy", "Vxlan6: policy"]);
}

fn iptables(rules: &str) -> Vec<String> {
    let text = format!(
        "*nat\n:INPUT DROP [0:0]\nCOMMIT\n*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n\
         :OUTPUT ACCEPT [0:0]\n:cali-INPUT - [0:0]\n:KUBE-FIREWALL - [0:0]\n{rules}COMMIT\n"
    );
    shut(&text, Syntax::Iptables(Family::Ipv4))
}

/// As on a Calico node with a restrictive firewall: Felix accepts tunnels, but not BGP.
#[test]
fn calicos_own_chains_do_not_open_bgps_port() {
    let locked = "-A INPUT -m comment --comment \"cali:Cz_u1IQiXIMmKD4c\" -j cali-INPUT\n\
        -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A INPUT -i lo -j ACCEPT\n\
        -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n\
        -A INPUT -j KUBE-FIREWALL\n\
        -A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP\n\
        -A cali-INPUT -p ipencap -m comment --comment \"Allow IPIP\" -m set --match-set cali40all-hosts-net src \
        -m addrtype --dst-type LOCAL -j ACCEPT\n\
        -A cali-INPUT -p ipencap -j DROP\n\
        -A cali-INPUT -p udp -m multiport --dports 4789 -m set --match-set cali40all-vxlan-net src -j ACCEPT\n\
        -A cali-INPUT -i cali+ -g cali-wl-to-host\n\
        -A cali-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT\n\
        -A cali-INPUT -j MARK --set-xmark 0x0/0xf0000\n";
    assert_eq!(iptables(locked), ["Bgp4: policy"]);
    for rule in [
        "-A INPUT -p tcp -m multiport --dports 22,100:200 -j ACCEPT\n",
        "-A INPUT -s 192.0.2.0/24 -j ACCEPT\n",
        "-A INPUT ! -i lo -p 6 -m conntrack --ctstate NEW -j ACCEPT\n",
        "-A INPUT -p tcp -j SOMETHING-ELSE\n",
    ] {
        assert!(iptables(&format!("{locked}{rule}")).is_empty(), "{rule}");
    }
    assert!(iptables(&locked.replace("-A INPUT -i lo", "-A INPUT")).is_empty());
}

#[test]
fn cyclic_chains_terminate() {
    let text = "*filter\n:INPUT DROP [0:0]\n:x - [0:0]\n-A INPUT -j x\n-A x -j x\nCOMMIT\n";
    assert!(shut(text, Syntax::Iptables(Family::Ipv4)).is_empty());
}
