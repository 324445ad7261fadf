//! Writes what a package installs beside the program: manual pages, and what shells complete by.
//!
//! `cargo run --example manual -- DIR` makes `DIR/man1/margay.1` with a page for each command beside
//! it, `DIR/bash/margay`, `DIR/zsh/_margay` and `DIR/fish/margay.fish`. Not a command of the program, so
//! that no node carries the generator.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use margay::cli::{Cli, Shell, completion_script};

/// A section of `margay.1` that clap does not know: its heading, and terms with what they mean.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

const SECTIONS: [Section; 5] = [
    (
        "EXIT STATUS",
        &[
            ("0", "Done."),
            ("1", "It failed; of the daemon: a port that is taken, a privilege that is missing."),
            ("2", "Wrong arguments, or a configuration with faults."),
            (
                "70",
                "A part of the daemon failed. Kernel routes are kept, no NOTIFICATION is sent: to be \
                 started again.",
            ),
        ],
    ),
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "Stop gracefully, as margay stop --graceful: kernel routes are kept, and neighbours \
                 with graceful restart keep ours.",
            ),
            ("SIGHUP", "Read the configuration again, as margay reload."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("MARGAY_SOCKET", "The control socket that commands ask at."),
            ("RUST_LOG", "What is logged; stronger than log.level."),
            ("NO_COLOR", "No colours, unless --color always."),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/margay/margay.toml", "The configuration that the packaged unit runs."),
            (
                "/run/margay/margay.sock",
                "The control socket: for root and the group of the daemon.",
            ),
            (
                "/run/margay/margay.state",
                "Where the daemon has written kernel routes; of this boot of the machine.",
            ),
            (
                "/usr/share/doc/margay",
                "docs with guides and the reference of every key; examples/full.toml, a configuration \
                 with all of them.",
            ),
        ],
    ),
    ("SEE ALSO", &[("ip-route(8), systemctl(1)", "")]),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [folder] = arguments.as_slice() else {
        eprintln!("usage: cargo run --example manual -- DIR");
        return ExitCode::from(2);
    };
    match write(folder.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manual: {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes everything below `folder`.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    let pages = folder.join("man1");
    fs::create_dir_all(&pages)?;
    // Pages are of a version; commit and date would make them differ from build to build.
    let mut command = Cli::command().long_version(Resettable::Reset).disable_help_subcommand(true);
    command.build();
    write_page(&command, &pages, true)?;
    for (shell, name) in [
        (Shell::Bash, "bash/margay"),
        (Shell::Zsh, "zsh/_margay"),
        (Shell::Fish, "fish/margay.fish"),
    ] {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, completion_script(shell))?;
    }
    Ok(())
}

/// Writes the page of a command, and of each below it.
fn write_page(command: &Command, folder: &Path, is_first: bool) -> io::Result<()> {
    let page = Man::new(command.clone()).manual("margay");
    let path = folder.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text)?;
    if is_first {
        more_sections().to_writer(&mut text)?;
    }
    fs::write(path, text)?;
    let shown = command.get_subcommands().filter(|below| !below.is_hide_set());
    shown.into_iter().try_for_each(|below| write_page(below, folder, false))
}

fn more_sections() -> Roff {
    let mut roff = Roff::new();
    for (heading, entries) in SECTIONS {
        roff.control("SH", [heading]);
        for (term, meaning) in entries {
            if !meaning.is_empty() {
                roff.control("TP", []);
            }
            roff.text([roman(*term)]);
            if !meaning.is_empty() {
                roff.text([roman(*meaning)]);
            }
        }
    }
    roff
}
