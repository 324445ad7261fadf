//! Files in the calico-node container: runit's services, and BIRD's configuration.

use std::fs;
use std::path::Path;

/// The directory of calico-node's enabled runit services.
const SERVICES: &str = "/etc/service/enabled";
/// The directory that confd writes to.
const CONFIGURATION: &str = "/etc/calico/confd/config";
/// The directory of confd's templates and their output, over which operators mount their own.
const CONFD: &str = "/etc/calico/confd";
/// The files in [`CONFIGURATION`] that BIRD reads.
const FILES: [&str; 6] =
    ["bird.cfg", "bird_aggr.cfg", "bird_ipam.cfg", "bird6.cfg", "bird6_aggr.cfg", "bird6_ipam.cfg"];
/// Maximum size of a file that is read, in bytes.
const LEN_MAX: u64 = 64 << 20;

/// What was found in the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    /// The enabled services.
    pub(super) services: Vec<Service>,
    /// Statements that are in none of Calico's templates, each with its file.
    pub(super) foreign: Vec<String>,
    /// Files that exist but cannot be read.
    pub(super) faults: Vec<String>,
    /// Mount points below [`CONFD`].
    pub(super) mounts: Vec<String>,
}

/// A runit service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) name: String,
    /// Whether its script runs margay, by that name or as `bird run`.
    pub(super) runs_margay: bool,
}

/// Reads all of them. Missing files are not an error: margay may run outside calico-node's image.
pub(super) fn read() -> Files {
    let mut files = Files::default();
    for entry in fs::read_dir(SERVICES).into_iter().flatten().flatten() {
        let script = fs::read_to_string(entry.path().join("run")).unwrap_or_default();
        let runs_margay = script.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            matches!(words.as_slice(), ["exec", "margay", ..] | ["exec", "bird", "run", ..])
        });
        let name = entry.file_name().to_string_lossy().into_owned();
        files.services.push(Service { name, runs_margay });
    }
    files.services.sort_by(|a, b| a.name.cmp(&b.name));
    for name in FILES {
        let path = Path::new(CONFIGURATION).join(name);
        let text = match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Ok(file) if file.len() > LEN_MAX => Err(format!("longer than {LEN_MAX} octets")),
            Ok(_) | Err(_) => fs::read_to_string(&path).map_err(|error| error.to_string()),
        };
        match text {
            Ok(text) => {
                let foreign = foreign_statements(&text).into_iter();
                files.foreign.extend(foreign.map(|line| format!("{}: {line}", path.display())));
            }
            Err(why) => files.faults.push(format!("{}: {why}", path.display())),
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    files.mounts = mounts_below(&mounts, CONFD);
    files
}

/// The mount points below a directory, from the lines of `/proc/self/mountinfo`.
fn mounts_below(text: &str, folder: &str) -> Vec<String> {
    let points = text.lines().filter_map(|line| line.split_whitespace().nth(4));
    points.filter(|point| Path::new(point).starts_with(folder)).map(str::to_owned).collect()
}

/// How the statements of Calico's templates begin, with blanks collapsed; a name may follow.
const STATEMENTS: [&str; 15] = [
    "function ",
    "filter ",
    "template kernel kernel_template",
    "template direct direct_template",
    "template static static_template",
    "template bgp bgp_template",
    "protocol kernel from kernel_template",
    "protocol device",
    "protocol direct from direct_template",
    "protocol static",
    "include \"bird",
    "router id ",
    "listen bgp ",
    "debug protocols",
    "log ",
];

/// Prefixes of the session names in Calico's templates.
pub(super) const SESSIONS: [&str; 4] = ["Mesh_", "Global_", "Node_", "Local_Workload_"];

/// The top-level statements that are in none of Calico's templates.
fn foreign_statements(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut is_within = false;
    for line in text.lines() {
        let code = code_of(line);
        let line = code.split_whitespace().collect::<Vec<_>>().join(" ");
        // A function's opening brace may be on a line of its own.
        let begins = depth == 0 && !is_within && !line.is_empty() && !line.starts_with('{');
        if begins && !is_known(&line) {
            found.push(line.clone());
        }
        if !line.is_empty() {
            is_within = depth == 0 && !line.ends_with([';', '}', '{', ')']);
        }
        let braces = |brace: &str| {
            outside_quotes(&code).map(|text| text.matches(brace).count()).sum::<usize>()
        };
        depth = (depth + braces("{")).saturating_sub(braces("}"));
    }
    found
}

/// A line without its comment. A `#` within quotes does not begin one.
fn code_of(line: &str) -> String {
    let mut is_text = false;
    line.chars()
        .take_while(|c| {
            is_text ^= *c == '"';
            is_text || *c != '#'
        })
        .collect()
}

/// The pieces of a line that are not within quotes.
fn outside_quotes(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').step_by(2)
}

fn is_known(line: &str) -> bool {
    let session = line.strip_prefix("protocol bgp ");
    let is_session = session.is_some_and(|name| {
        SESSIONS.iter().any(|prefix| name.starts_with(prefix)) && name.contains("from bgp_template")
    });
    is_session || STATEMENTS.iter().any(|statement| line.starts_with(statement))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As confd writes it, shortened.
    const WRITTEN: &str = "\
function apply_communities ()
{
}
template kernel kernel_template {
  learn;             # Learn all alien routes { from the kernel
}
# Generated by confd
include \"bird_aggr.cfg\";
router id 10.192.0.2;
listen bgp address 10.192.0.2 port 179;
protocol kernel from kernel_template {
  export filter calico_kernel_programming; # Default is export none
}
protocol static from static_template {
}
template bgp bgp_template {
  debug { states, routes, filters, events };
}
protocol bgp Mesh_10_192_0_3 from bgp_template {
  neighbor 10.192.0.3 as 64512;
  import filter {
    accept;
  };
}
function calico_export_to_bgp_peers(bool internal_peer) {
  if (net ~ 192.168.0.0/16) then { accept; }
}
";

    #[test]
    fn statements_of_no_template_are_found() {
        assert_eq!(foreign_statements(WRITTEN), [""; 0]);
        let edited = format!(
            "{WRITTEN}protocol bgp my_tor {{\n  neighbor 10.0.0.254 as 65001;\n}}\n\
             protocol ospf backbone {{\n  description \"to {{ and fro\";\n}}\ninclude \"/etc/mine.conf\";\n\
             protocol bgp Global_1 {{\n}}\n"
        );
        assert_eq!(
            foreign_statements(&edited),
            [
                "protocol bgp my_tor {",
                "protocol ospf backbone {",
                "include \"/etc/mine.conf\";",
                "protocol bgp Global_1 {",
            ]
        );
    }

    #[test]
    fn mounted_templates_are_found() {
        let text = "36 35 98:0 / / rw - ext4 /dev/root rw\n\
            41 36 0:1 /x /etc/calico/confd/templates/bird_ipam.cfg.template ro - tmpfs tmpfs ro\n\
            42 36 0:1 /x /etc/calico/confdential ro - tmpfs tmpfs ro\n";
        assert_eq!(
            mounts_below(text, CONFD),
            ["/etc/calico/confd/templates/bird_ipam.cfg.template"]
        );
    }
}
