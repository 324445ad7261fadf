//! Runs tests under another kernel: User Mode Linux with IPIP, VRF, dummy, netem and MPLS, which
//! the machine's kernel may lack.
//!
//! `interop/setup.sh vm` fetches it, `interop/vm.sh` starts it. A test runs its own binary again
//! inside, with the machine's file system, except that writes go to memory.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const INSIDE: &str = "MARGAY_TEST_FULL_KERNEL";
const VM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vm.sh");

/// Whether this process runs under the full kernel.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs `body` under the full kernel. `test` is the path of the test.
///
/// # Errors
/// When the test fails inside, or the kernel is not available.
pub fn run(test: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    if is_inside() {
        return body();
    }
    let arguments = ["--exact", test, "--include-ignored", "--nocapture"];
    let text = start(&arguments, Duration::from_secs(180))?;
    ensure!(text.contains("1 passed"), "under the full kernel:\n{text}");
    Ok(())
}

/// Runs this test binary inside with these arguments, for at most `limit`; returns its output.
///
/// # Errors
/// When a test fails there, on a timeout, or when the kernel is not available.
pub fn start(arguments: &[&str], limit: Duration) -> Result<String> {
    let cache = env::var("VM").unwrap_or_else(|_| "/var/cache/vmlab".to_owned());
    let kernel = Path::new(&cache).join("uml/usr/bin/linux.uml");
    ensure!(kernel.exists(), "{} is missing: run `interop/setup.sh vm`", kernel.display());
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
        .arg("uml")
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
