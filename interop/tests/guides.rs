//! The symptoms of `docs/src/troubleshooting.md`, each made with a real neighbour: what margay prints is
//! what the guide says. The commands of the README and of other pages, run one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use interop::daemon::Daemon;
use interop::lab::{self, Host};
use interop::margay;
use interop::speaker::Kind;
use interop::wait::{PATIENCE, wait_until};

/// How to make a symptom: margay at 192.0.2.1 in AS 64512 and the neighbour `tor`, BIRD 2 at 192.0.2.2 in
/// AS 65001, which announces three prefixes.
struct Symptom {
    /// `address` of the peer.
    address: &'static str,
    /// `remote-asn` of the peer.
    remote_asn: u32,
    /// Further lines of the peer.
    peer: &'static str,
    /// Further sections.
    more: &'static str,
    neighbour: Option<Neighbour>,
    /// What happens once margay runs.
    then: fn(&Host) -> Result<()>,
}

struct Neighbour {
    address: &'static str,
    our_address: &'static str,
    asn: u32,
    router_id: &'static str,
    /// Its AS number for us.
    our_asn: u32,
    /// Statements of its BGP protocol.
    protocol: &'static str,
    /// Statements of its export filter, before it accepts.
    export: &'static str,
    /// Further routes.
    routes: &'static str,
}

const NEIGHBOUR: Neighbour = Neighbour {
    address: "192.0.2.2",
    our_address: "192.0.2.1",
    asn: 65001,
    router_id: "192.0.2.2",
    our_asn: 64512,
    protocol: "",
    export: "",
    routes: "",
};

/// A session that works.
const WORKS: Symptom = Symptom {
    address: "192.0.2.2",
    remote_asn: 65001,
    peer: "",
    more: "",
    neighbour: Some(NEIGHBOUR),
    then: |_| Ok(()),
};

impl Symptom {
    /// With other statements of the neighbour's protocol and filter.
    const fn at_the_neighbour(protocol: &'static str, export: &'static str) -> Self {
        Symptom { neighbour: Some(Neighbour { protocol, export, ..NEIGHBOUR }), ..WORKS }
    }
}

/// `[[policy]]` that rejects one of the neighbour's prefixes.
const REJECTING: &str = "[[policy]]\nname = \"no-203\"\ndefault = \"accept\"\n[[policy.rules]]\nname = \"not-ours\"\n\
     match = { prefixes = [\"203.0.113.0/24\"] }\nthen = \"reject\"\n";
/// A local route, and a neighbour that never comes.
const ABSENT: &str = "[[originate]]\nprefix = \"10.65.1.0/26\"\n[[bgp.peers]]\nname = \"other\"\n\
     address = \"192.0.2.9\"\nremote-asn = 65009\nimport = \"all\"\nexport = \"all\"\n";

/// Declares a test for each symptom, and the list of all.
macro_rules! symptoms {
    ($($name:ident: $symptom:expr;)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            #[ignore = "needs root and BIRD 2"]
            fn $name() -> Result<()> {
                shows(stringify!($name), &$symptom)
            }
        )*
    };
}

symptoms! {
    password: Symptom {
        peer: "password = \"one\"",
        ..Symptom::at_the_neighbour("password \"another\";", "")
    };
    neighbour_as: Symptom { remote_asn: 65009, ..WORKS };
    our_as: Symptom { neighbour: Some(Neighbour { our_asn: 64599, ..NEIGHBOUR }), ..WORKS };
    nobody: Symptom { address: "192.0.2.77", ..WORKS };
    no_listener: Symptom { neighbour: None, ..WORKS };
    not_connected: Symptom { address: "198.51.100.9", neighbour: None, ..WORKS };
    ttl_security: Symptom::at_the_neighbour("ttl security on; passive on;", "");
    families: Symptom { peer: "families = [\"ipv6\"]", ..WORKS };
    router_id: Symptom {
        remote_asn: 64512,
        neighbour: Some(Neighbour { asn: 64512, router_id: "192.0.2.1", ..NEIGHBOUR }),
        ..WORKS
    };
    both_passive: Symptom { peer: "passive = true", ..Symptom::at_the_neighbour("passive on;", "") };
    prefix_limit: Symptom { peer: "prefixes-max = 2", ..WORKS };
    next_hop: Symptom::at_the_neighbour("", "bgp_next_hop = 198.18.0.9;");
    policy: Symptom { peer: "import = \"no-203\"", more: REJECTING, ..WORKS };
    as_loop: Symptom::at_the_neighbour("", "bgp_path.prepend(64512);");
    held_back: Symptom { more: ABSENT, ..WORKS };
    foreign_route: Symptom {
        then: |host| add_route(host, "203.0.113.0/24 via 192.0.2.2 metric 20"),
        ..WORKS
    };
    more_specific: Symptom {
        then: |host| add_route(host, "198.51.100.128/25 via 192.0.2.2"),
        ..WORKS
    };
    refused_reload: Symptom { then: write_an_unknown_key, ..WORKS };
}

fn add_route(host: &Host, route: &str) -> Result<()> {
    host.shell(&format!("ip route replace {route} proto static")).map(drop)
}

fn write_an_unknown_key(host: &Host) -> Result<()> {
    let path = host.file("margay.toml");
    let text = fs::read_to_string(&path)? + &REJECTING.replace("prefixes", "prefix");
    Ok(fs::write(path, text)?)
}

fn configuration(host: &Host, symptom: &Symptom) -> String {
    let import = if symptom.peer.starts_with("import") { "" } else { "import = \"all\"\n" };
    format!(
        "[bgp]\nasn = 64512\nrouter-id = \"192.0.2.1\"\n\n[[bgp.peers]]\nname = \"tor\"\naddress = \"{}\"\n\
         remote-asn = {}\n{import}export = \"all\"\nconnect-retry-time = 1\n{}\n{}\n{}",
        symptom.address,
        symptom.remote_asn,
        symptom.peer,
        symptom.more,
        margay::control_section(host)
    )
}

fn start(far: &Host, neighbour: &Neighbour) -> Result<Daemon> {
    let Neighbour { address, our_address, asn, router_id, our_asn, protocol, export, routes } =
        neighbour;
    let text = format!(
        "log stderr all; router id {router_id};\nprotocol device {{}}\n\
         protocol static {{ ipv4; route 203.0.113.0/24 via \"lo\"; route 198.51.100.0/24 via \"lo\"; \
         route 10.9.0.0/16 via \"lo\"; {routes} }}\n\
         protocol bgp subject {{ local {address} as {asn}; neighbor {our_address} as {our_asn}; \
         connect retry time 1; error wait time 1, 1; {protocol} \
         ipv4 {{ import all; export filter {{ {export} accept; }}; }}; }}\n"
    );
    let path = far.write("bird.conf", &text)?;
    let socket = far.file("bird.ctl");
    let args = ["-f", "-c", &path.to_string_lossy(), "-s", &socket.to_string_lossy()];
    far.daemon("bird", "bird", &args)
}

/// Makes a symptom and waits until every command of its section prints what the guide says.
fn shows(name: &str, symptom: &Symptom) -> Result<()> {
    let blocks = blocks()?;
    let (_, commands) =
        blocks.iter().find(|(at, _)| at == name).with_context(|| format!("no section {name}"))?;
    lab::run_margay(&format!("guide_{name}"), &[Kind::Bird2], &[], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        address(&host, "192.0.2.1")?;
        address(&far, "192.0.2.2")?;
        let _neighbour = symptom.neighbour.as_ref().map(|other| start(&far, other)).transpose()?;
        let (_daemon, _control) = margay::start_text(&host, &configuration(&host, symptom))?;
        (symptom.then)(&host)?;
        for Command { words, output } in commands {
            wait_until(2 * PATIENCE, &words.join(" "), || {
                let said = run(&host, words)?;
                let lines: Vec<&str> = said.lines().collect();
                ensure!(
                    matches(output, &lines),
                    "the guide says\n{}\nnot\n{said}",
                    output.join("\n")
                );
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// Replaces the addresses of a host's link.
fn address(host: &Host, address: &str) -> Result<()> {
    host.shell(&format!("ip addr flush dev eth0; ip addr add {address}/24 dev eth0")).map(drop)
}

/// What a command prints, whatever its exit code.
fn run(host: &Host, words: &[String]) -> Result<String> {
    let socket = host.file("margay.sock").to_string_lossy().into_owned();
    let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
    args.extend(["--socket", &socket]);
    let output = margay::run_to_end(host, &args)?;
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    Ok(text(&output.stdout) + &text(&output.stderr))
}

/// A command of the guide: its words behind `margay`, and the lines that it prints.
#[derive(Debug)]
struct Command {
    words: Vec<String>,
    output: Vec<String>,
}

/// The sections of the guide that are symptoms: name, as that of a test, and commands.
fn blocks() -> Result<Vec<(String, Vec<Command>)>> {
    let path = root().join("docs/src/troubleshooting.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut blocks = Vec::new();
    for section in text.split("<!-- symptom: ").skip(1) {
        let (name, rest) = section.split_once(" -->\n```console\n").context("a console block")?;
        let (block, _) = rest.split_once("\n```").context("the end of the block")?;
        let mut commands: Vec<Command> = Vec::new();
        for line in block.lines() {
            match (line.strip_prefix("$ margay "), commands.last_mut()) {
                (Some(command), _) => {
                    let words = command.split(' ').map(str::to_owned).collect();
                    commands.push(Command { words, output: Vec::new() });
                }
                (None, Some(command)) => command.output.push(line.to_owned()),
                (None, None) => bail!("{name} begins without a command"),
            }
        }
        blocks.push((name.replace('-', "_"), commands));
    }
    Ok(blocks)
}

/// Whether these are the lines. `…` alone stands for any number of lines, in a line for any text.
fn matches(expected: &[String], lines: &[&str]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first == "…" => {
            (0..=lines.len()).any(|skipped| matches(rest, &lines[skipped..]))
        }
        Some((first, rest)) => lines.split_first().is_some_and(|(line, others)| {
            line_matches(&squeezed(first), &squeezed(line)) && matches(rest, others)
        }),
    }
}

/// The text with single spaces.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn line_matches(expected: &str, line: &str) -> bool {
    let mut parts = expected.split('…').map(str::trim);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    // A line that ends with `…` may go on.
    rest.is_empty() || last == Some("")
}

/// Runs the commands in a page's blocks beside `tor-1`, a BIRD 2, with the configuration of the page or,
/// if it has none, of the README. Each must do what it is there for.
fn works(page: &str) -> Result<()> {
    let read = |name: &str| fs::read_to_string(root().join(name)).with_context(|| name.to_owned());
    let text = read(page)?;
    let commands = commands_to_run(&text);
    ensure!(commands.len() > 2, "{page}: {commands:?}");
    let configuration = configuration_in(&text)
        .map_or_else(|| read("README.md").map(|text| configuration_in(&text)), |own| Ok(Some(own)))?
        .context("no configuration")?;
    let name: String = page.chars().filter(char::is_ascii_alphanumeric).collect();
    lab::run_margay(&format!("guide_{name}"), &[Kind::Bird2], &[], |lab| {
        let (host, far) = (lab.host("a")?, lab.host("b")?);
        let tor = Neighbour {
            address: "192.0.2.1",
            our_address: "192.0.2.2",
            protocol: "graceful restart on;",
            routes: "route 10.65.2.0/26 via \"lo\";",
            ..NEIGHBOUR
        };
        address(&host, tor.our_address)?;
        address(&far, tor.address)?;
        let _tor = start(&far, &tor)?;
        let text = configuration + &margay::control_section(&host);
        let (mut daemon, control) = margay::start_text(&host, &text)?;
        wait_until(2 * PATIENCE, "the routes of tor-1", || {
            ensure!(control.text(&["show", "fib"])?.contains("10.65.2.0/26"), "no route");
            Ok(())
        })?;
        for command in &commands {
            let (code, said) = typed(&host, command)?;
            // The session may be up again before it is retried, and then there is nothing to retry.
            let is_late = command.starts_with("margay peer retry") && code == Some(1);
            ensure!(code == Some(0) || is_late, "{command}: {code:?}\n{said}");
        }
        if commands.last().is_some_and(|command| command.starts_with("margay stop")) {
            let status = daemon.wait(PATIENCE)?;
            ensure!(status.success(), "{status}: {}", daemon.output());
        }
        Ok(())
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The first configuration of a page that runs by itself.
fn configuration_in(text: &str) -> Option<String> {
    let blocks = text.split("```toml\n").skip(1);
    let mut blocks = blocks.filter_map(|rest| rest.split_once("```").map(|(block, _)| block));
    blocks.find(|block| block.contains("[bgp]")).map(str::to_owned)
}

/// The commands of margay's in a page's blocks, but the one that the test has run already.
fn commands_to_run(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("```").map(|(block, _)| block));
    let lines = blocks.flat_map(str::lines);
    let commands =
        lines.filter(|line| line.starts_with("margay ") && !line.starts_with("margay run"));
    commands.map(str::to_owned).collect()
}

/// Types a command into a shell: exit code, and what it prints.
fn typed(host: &Host, command: &str) -> Result<(Option<i32>, String)> {
    let file = host.file("margay.toml").to_string_lossy().into_owned();
    let command = command.replace("/etc/margay/margay.toml", &file);
    let command = command.replace(" margay.toml", &format!(" {file}")).replace("PEER", "tor-1");
    let program = margay::binary()?;
    let script = format!("margay() {{ '{}' \"$@\"; }}; {command}", program.display());
    let mut shell = host.command("sh");
    shell.args(["-c", &script]).env("MARGAY_SOCKET", host.file("margay.sock"));
    let output = shell.stdin(Stdio::null()).output()?;
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    Ok((output.status.code(), text(&output.stdout) + &text(&output.stderr)))
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn commands_of_the_readme_work() -> Result<()> {
    works("README.md")
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn commands_of_the_first_ten_minutes_work() -> Result<()> {
    works("docs/src/first-ten-minutes.md")
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn commands_of_drains_and_sessions_work() -> Result<()> {
    works("docs/src/drains-and-upgrades.md")
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn commands_of_the_alerts_work() -> Result<()> {
    works("docs/src/alerts.md")
}

#[test]
#[ignore = "needs root and BIRD 2"]
fn commands_to_start_looking_work() -> Result<()> {
    works("docs/src/troubleshooting.md")
}

#[test]
fn every_symptom_of_the_guide_has_a_test() -> Result<()> {
    let mut told: Vec<String> = blocks()?.into_iter().map(|(name, _)| name).collect();
    let mut made: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    told.sort();
    made.sort();
    ensure!(told == made, "the guide has {told:?}, the tests {made:?}");
    Ok(())
}

#[test]
fn lines_are_compared() {
    let expected =
        |lines: &[&str]| -> Vec<String> { lines.iter().map(|l| (*l).to_owned()).collect() };
    assert!(matches(&expected(&["…", "b  …d"]), &["a", "b c d"]));
    assert!(matches(&expected(&["a…"]), &["a b"]));
    assert!(!matches(&expected(&["a"]), &["a b"]));
    assert!(!matches(&expected(&["a"]), &["a", "b"]));
    assert!(!matches(&expected(&["…", "b"]), &["a"]));
}
