//! Instructions per UPDATE, prefix, path, kernel route, member and Calico object: a guard against
//! regressions that does not depend on how busy the machine is.
//!
//! Each case runs twice under callgrind, with few and with many units of work. The difference divided
//! by the number of further units is its figure, so that what happens once does not count.
//! `figures.toml` holds the figures that were committed; without options the program fails if one of
//! them is off by more than [`TOLERANCE`]. Another compiler makes other instructions: then the figures
//! are printed and not compared.
//!
//! `cargo run --locked --profile fast -p instructions`; `--bless` writes the figures.

mod calico;
mod codec;
mod routes;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde::Deserialize;

/// What a figure may differ from the committed one.
const TOLERANCE: f64 = 0.02;

#[derive(Parser)]
#[command(about = "Instructions per UPDATE, prefix, member and Calico object")]
struct Options {
    /// Write the figures instead of comparing them.
    #[arg(long)]
    bless: bool,
    /// Only cases whose names contain this text.
    filter: Option<String>,
    /// What callgrind runs: one case with so many units of work.
    #[arg(long, hide = true, num_args = 2, value_names = ["CASE", "UNITS"])]
    run: Option<Vec<String>>,
}

/// One kind of work.
struct Case {
    name: &'static str,
    /// What one unit of it is.
    unit: &'static str,
    few: u32,
    many: u32,
    run: fn(u32),
}

const CASES: &[Case] = &[
    Case { name: "update", unit: "UPDATE", few: 500, many: 1_000, run: codec::decode },
    Case { name: "prefix", unit: "prefix", few: 10_000, many: 30_000, run: routes::prefixes },
    Case { name: "path", unit: "second path", few: 10_000, many: 30_000, run: routes::paths },
    Case {
        name: "kernel-route",
        unit: "prefix with a kernel route",
        few: 10_000,
        many: 30_000,
        run: routes::kernel_routes,
    },
    Case {
        name: "change",
        unit: "change of one prefix",
        few: 500,
        many: 1_000,
        run: routes::changes,
    },
    Case {
        name: "member",
        unit: "member of a group that is sent 100 changes",
        few: 100,
        many: 300,
        run: routes::members,
    },
    Case { name: "node", unit: "Calico Node more", few: 10, many: 30, run: calico::nodes },
    Case { name: "block", unit: "Calico block more", few: 10, many: 30, run: calico::blocks },
    Case {
        name: "heartbeat",
        unit: "Node written without a change",
        few: 100,
        many: 300,
        run: calico::heartbeats,
    },
];

/// The work whose instructions count. Callgrind recognises it by name.
#[inline(never)]
pub(crate) fn counted_work<T>(work: impl FnOnce() -> T) -> T {
    std::hint::black_box(work())
}

/// `figures.toml`.
#[derive(Deserialize)]
struct Figures {
    /// Compiler that made the counted instructions, as `rustc --version` prints it.
    rustc: String,
    /// Instructions by case.
    instructions: BTreeMap<String, f64>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some([name, units]) = options.run.as_deref() {
        let case = CASES.iter().find(|case| case.name == name).context("no such case")?;
        (case.run)(units.parse()?);
        return Ok(());
    }
    let rustc = rustc()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("figures.toml");
    let wanted = |case: &&Case| options.filter.as_ref().is_none_or(|text| case.name.contains(text));
    let mut counted = BTreeMap::new();
    for case in CASES.iter().filter(wanted) {
        let (few, many) = (count(case, case.few)?, count(case, case.many)?);
        let figure = (many as f64 - few as f64) / f64::from(case.many - case.few);
        counted.insert(case.name, figure);
    }
    if options.bless {
        ensure!(options.filter.is_none(), "--bless writes all figures: leave the filter out");
        return Ok(std::fs::write(&path, written(&rustc, &counted))?);
    }
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    compare(&toml::from_str(&text)?, &rustc, &counted)
}

fn written(rustc: &str, counted: &BTreeMap<&str, f64>) -> String {
    let mut text = format!(
        "# Written by `cargo run --locked --profile fast -p instructions -- --bless`.\nrustc = \"{rustc}\"\n\n\
         [instructions]\n"
    );
    for (name, figure) in counted {
        let _ = writeln!(text, "{name} = {figure:.1}");
    }
    text
}

fn compare(figures: &Figures, rustc: &str, counted: &BTreeMap<&str, f64>) -> Result<()> {
    let mut off = Vec::new();
    for (name, figure) in counted {
        let unit = CASES.iter().find(|case| case.name == *name).map_or("", |case| case.unit);
        let Some(committed) = figures.instructions.get(*name) else {
            bail!("figures.toml has no {name}: write the figures with --bless")
        };
        let change = figure / committed - 1.0;
        println!("{name:14} {figure:>11.1} per {unit}, {:+.2} % ({committed})", change * 100.0);
        if change.abs() > TOLERANCE {
            off.push(format!("{name} ({:+.1} %)", change * 100.0));
        }
    }
    if figures.rustc != rustc {
        println!("not compared: the figures are those of {}, this is {rustc}", figures.rustc);
        return Ok(());
    }
    ensure!(
        off.is_empty(),
        "off by more than {} %: {}; if that is meant, write the figures with --bless and say why in the commit",
        TOLERANCE * 100.0,
        off.join(", ")
    );
    Ok(())
}

fn rustc() -> Result<String> {
    let answer = Command::new("rustc").arg("--version").output().context("rustc")?;
    Ok(String::from_utf8(answer.stdout)?.trim().to_owned())
}

/// The instructions of a case with so many units of work.
fn count(case: &Case, units: u32) -> Result<u64> {
    let answer = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*counted_work*")
        .arg(std::env::current_exe()?)
        .args(["--run", case.name, &units.to_string()])
        // The C library chooses its memcpy by the processor.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-ERMS,-FSRM")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .context("valgrind: install it (interop/setup.sh instructions)")?;
    let said = String::from_utf8_lossy(&answer.stderr);
    ensure!(answer.status.success(), "{} with {units} units: {said}", case.name);
    let collected = said.lines().find_map(|line| line.split("Collected :").nth(1));
    let collected = collected.with_context(|| format!("callgrind counted nothing: {said}"))?;
    let instructions: u64 = collected.trim().parse()?;
    ensure!(instructions > 0, "callgrind has not seen the work of {}", case.name);
    Ok(instructions)
}
