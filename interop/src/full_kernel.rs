//! Runs tests under another kernel: User Mode Linux with IPIP, VRF, dummy, netem and MPLS, which
//! the machine's kernel may lack, or an emulated machine whose kernel has TCP-AO.
//!
//! `interop/setup.sh vm` and `tcp-ao` fetch them, `interop/vm.sh` starts them. A test runs its own binary again
//! inside, with the machine's file system, except that writes go to memory.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::margay::{self, Control};

const INSIDE: &str = "MARGAY_TEST_FULL_KERNEL";
const VM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vm.sh");

/// Whether this process runs under the full kernel.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
    /// User Mode Linux, nearly as fast as the machine's own.
    Uml,
    /// qemu with emulated processors, about ten times slower.
    Qemu,
}

impl Machine {
    /// Whether it is there.
    fn check(self) -> Result<()> {
        match self {
            Machine::Uml => {
                let cache = env::var("VM").unwrap_or_else(|_| "/var/cache/vmlab".to_owned());
                let kernel = Path::new(&cache).join("uml/usr/bin/linux.uml");
                ensure!(
                    kernel.exists(),
                    "{} is missing: run `interop/setup.sh vm`",
                    kernel.display()
                );
            }
            Machine::Qemu => {
                let found = Command::new("bash").args([VM, "has-qemu"]).status()?;
                ensure!(found.success(), "no kernel for qemu: run `interop/setup.sh tcp-ao`");
            }
        }
        Ok(())
    }
}

/// Runs `body` under the full kernel. `test` is the path of the test.
///
/// # Errors
/// When the test fails inside, or the kernel is not available.
pub fn run(test: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    run_on(Machine::Uml, test, Duration::from_secs(180), body)
}

/// As [`run`], under the kernel that has TCP-AO.
///
/// # Errors
/// As [`run`].
pub fn run_emulated(test: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    run_on(Machine::Qemu, test, Duration::from_secs(600), body)
}

fn run_on(
    machine: Machine,
    test: &str,
    limit: Duration,
    body: impl FnOnce() -> Result<()>,
) -> Result<()> {
    if is_inside() {
        return body();
    }
    let arguments = ["--exact", test, "--include-ignored", "--nocapture"];
    let text = start_on(machine, &arguments, limit)?;
    ensure!(text.contains("1 passed"), "under the full kernel:\n{text}");
    Ok(())
}

/// Runs this test binary inside with these arguments, for at most `limit`; returns its output.
///
/// # Errors
/// When a test fails there, on a timeout, or when the kernel is not available.
pub fn start(arguments: &[&str], limit: Duration) -> Result<String> {
    start_on(Machine::Uml, arguments, limit)
}

/// What a command of margay prints. Under User Mode Linux one request in some dozens is not answered,
/// whatever margay is asked: it is sent again.
///
/// # Errors
/// When the command fails, or is never answered.
pub fn ask(control: &Control, args: &[&str]) -> Result<String> {
    const TIMED_OUT: i32 = 124;
    let mut tries = 10;
    loop {
        let mut command = Command::new("timeout");
        command.arg("3").arg(margay::binary()?).args(args).arg("--socket").arg(control.socket());
        let output = command.output()?;
        tries -= 1;
        if output.status.code() == Some(TIMED_OUT) && tries > 0 {
            continue;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{args:?}: {}: {said}", output.status);
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
}

fn start_on(machine: Machine, arguments: &[&str], limit: Duration) -> Result<String> {
    machine.check()?;
    let exe = env::current_exe()?;
    let script = env::temp_dir().join(format!(
        "full-kernel-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let binary =
        env::var("MARGAY_BIN").map_or(String::new(), |bin| format!("export MARGAY_BIN='{bin}'\n"));
    fs::write(&script, format!("export {INSIDE}=1\n{binary}exec \"$@\"\n"))?;
    let output = Command::new("bash")
        .arg(VM)
        .arg(if machine == Machine::Uml { "uml" } else { "run" })
        .args([&script, &exe])
        .args(arguments)
        .env("VM_TIMEOUT", limit.as_secs().to_string())
        .output()
        .with_context(|| format!("start {VM}"));
    let _ = fs::remove_file(&script);
    let output = output?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "under the full kernel ({}):\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}
