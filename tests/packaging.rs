//! The parts of the packages, without building any: the unit, the installed configuration, and the
//! files that the manifest lists. `interop/tests/packages.rs` installs the packages.

#![allow(clippy::unwrap_used)] // a test: a failed unwrap fails it

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `[package.metadata.NAME]`.
fn metadata(name: &str) -> toml::Value {
    let manifest: toml::Table =
        fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    manifest["package"]["metadata"][name].clone()
}

/// Source and destination, the latter with the file name added if it lacks one.
fn assets(of: &toml::Value) -> Vec<(String, String)> {
    let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
    let assets = of["assets"].as_array().unwrap().iter();
    let pairs = assets.map(|asset| match asset {
        toml::Value::Array(list) => (text(&list[0]), text(&list[1])),
        table => (text(&table["source"]), text(&table["dest"])),
    });
    let named = pairs.map(|(source, to)| {
        let name = Path::new(&source).file_name().unwrap().to_str().unwrap().to_owned();
        let to = format!("/{}", to.trim_start_matches('/'));
        let to = if to.ends_with('/') { to + &name } else { to };
        (source, to)
    });
    named.collect()
}

fn exists(source: &str) -> bool {
    let path = root().join(source);
    let name = path.file_name().unwrap().to_str().unwrap();
    let Some(end) = name.strip_prefix('*') else { return path.is_file() };
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    entries.into_iter().any(|entry| entry.unwrap().file_name().to_str().unwrap().ends_with(end))
}

#[test]
fn both_packages_hold_the_same_files() {
    let (deb, rpm) = (metadata("deb"), metadata("generate-rpm"));
    for (source, _) in assets(&deb).iter().chain(&assets(&rpm)) {
        // These are made by interop/package.sh.
        assert!(source.starts_with("target/package/stage/") || exists(source), "{source}");
    }
    let places = |of| assets(of).into_iter().map(|(_, to)| to).collect::<BTreeSet<String>>();
    // Debian has a different path for zsh completions; cargo-deb adds the unit and the licence
    // itself.
    let of_deb: BTreeSet<String> = places(&deb)
        .into_iter()
        .map(|to| to.replace("/vendor-completions/", "/site-functions/"))
        .chain(
            ["/usr/lib/systemd/system/margay.service", "/usr/share/licenses/margay/LICENSE"]
                .map(String::from),
        )
        .collect();
    assert_eq!(of_deb, places(&rpm));
}

/// It is valid, and starting with it is harmless: no listening socket, and no kernel routes.
#[test]
fn the_configuration_that_is_installed_is_harmless() {
    let path = root().join("examples/packaging/margay.toml");
    let mut margay = Command::new(env!("CARGO_BIN_EXE_margay"));
    let checked = margay.args(["check", "--config"]).arg(&path).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let text: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    assert_eq!(text["bgp"]["listen"].as_array().unwrap().len(), 0);
    assert_eq!(text["fib"]["enabled"].as_bool(), Some(false));
    // The settings in its comments are valid as well.
    let all = fs::read_to_string(&path).unwrap();
    let offered: String = all
        .lines()
        .map(|l| l.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(l).to_owned() + "\n")
        .collect();
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("margay.toml");
    fs::write(&file, offered).unwrap();
    let mut margay = Command::new(env!("CARGO_BIN_EXE_margay"));
    let checked = margay.args(["check", "--config"]).arg(&file).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    assert!(String::from_utf8_lossy(&checked.stdout).contains("tor-1"), "{checked:?}");
}

/// The exposure that `systemd-analyze security` rates, from 0 to 10. It is mostly the two
/// capabilities and the network, which a BGP daemon cannot do without.
const EXPOSURE_MAX: f64 = 2.5;

#[test]
#[ignore = "needs systemd-analyze"]
fn the_unit_is_confined() {
    let unit = root().join("examples/packaging/margay.service");
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--no-pager"]).arg(&unit);
    let output = analyze.output().expect("systemd-analyze: interop/setup.sh peers installs it");
    let (text, faults) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success() && faults.is_empty(), "{faults}");
    let line = text.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    let rating = line.split_whitespace().find_map(|word| word.parse::<f64>().ok()).unwrap();
    assert!(rating <= EXPOSURE_MAX, "{text}");
    // systemd only warns about an unknown key, which then confines nothing.
    let settings = fs::read_to_string(&unit).unwrap();
    for wanted in [
        "Type=notify",
        "WatchdogSec=30",
        "User=margay",
        "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE",
        "KillSignal=SIGTERM",
        "RuntimeDirectoryPreserve=yes",
        "LimitRTPRIO=1",
        "LimitNICE=-20",
    ] {
        assert!(settings.lines().any(|line| line == wanted), "{wanted}");
    }
}
