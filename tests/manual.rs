//! The manual pages and completions of the packages, as `examples/manual.rs` writes them.

#![allow(clippy::unwrap_used)] // a test: a failed unwrap fails it

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use clap::CommandFactory;
use margay::cli::Cli;
use tempfile::TempDir;

#[allow(dead_code)] // its `main`
#[path = "../examples/manual.rs"]
mod manual;

/// The names of the pages of a command and its subcommands.
fn pages(command: &clap::Command, name: &str, wanted: &mut BTreeSet<String>) {
    wanted.insert(format!("{name}.1"));
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, &format!("{name}-{}", below.get_name()), wanted);
    }
}

#[test]
fn every_command_has_a_page_that_says_what_it_is() {
    let folder = TempDir::new().unwrap();
    manual::write(folder.path()).unwrap();
    let mut wanted = BTreeSet::new();
    pages(&Cli::command(), "margay", &mut wanted);
    let pages = folder.path().join("man1");
    let names = fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name());
    let found: BTreeSet<String> = names.map(|name| name.into_string().unwrap()).collect();
    assert_eq!(found, wanted);
    assert!(found.contains("margay-show-peers.1") && !found.contains("margay-stand-in.1"));
    for name in found {
        let page = fs::read_to_string(pages.join(&name)).unwrap();
        for part in [".TH ", ".SH NAME\n", ".SH SYNOPSIS\n", ".SH VERSION\n"] {
            assert!(page.contains(part), "{name}: no {part:?}");
        }
        let version = format!("v{}\n", env!("CARGO_PKG_VERSION"));
        assert!(page.contains(&version) && !page.contains("commit"), "{name}: {page}");
    }
    let first = fs::read_to_string(pages.join("margay.1")).unwrap();
    for part in ["EXIT STATUS", "SIGNALS", "ENVIRONMENT", "FILES", "SEE ALSO"] {
        assert!(first.contains(part), "margay.1: no {part:?}");
    }
}

#[test]
fn completions_are_what_the_program_prints() {
    let folder = TempDir::new().unwrap();
    manual::write(folder.path()).unwrap();
    for (shell, name) in
        [("bash", "bash/margay"), ("zsh", "zsh/_margay"), ("fish", "fish/margay.fish")]
    {
        let mut margay = Command::new(env!("CARGO_BIN_EXE_margay"));
        let printed = margay.args(["completions", shell]).output().unwrap();
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), printed.stdout, "{shell}");
    }
}
