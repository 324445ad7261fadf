//! The status page in a browser: `interop/page/page.mjs`, told what happens.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::Daemon;
use crate::lab::Host;
use crate::monitor::PORT;
use crate::wait::wait_until;

/// Programs that these tests need.
pub const PROGRAMS: [&str; 3] = ["node", "/usr/bin/chromium", "/opt/interop/page/wanted"];
/// A token for the page.
pub const TOKEN: &str = "8f1d2c6b5a4e3d2c1b0a";
/// How long the browser may take for a step on a machine with other work.
const STEP: Duration = Duration::from_secs(60);

/// The lines of `[http]` that serve the page on every address, and the file with the token.
///
/// # Errors
/// When the file cannot be written.
pub fn section(host: &Host) -> Result<String> {
    let file = host.write("token", &format!("{TOKEN}\n"))?;
    Ok(format!(
        "[http]\nlisten = \"0.0.0.0:{PORT}\"\nstatus-page = true\ntoken-file = \"{}\"\n",
        file.display()
    ))
}

/// The folder for screenshots: `MARGAY_SCREENSHOTS`, or the host's.
///
/// # Errors
/// When it cannot be created.
pub fn screenshots(host: &Host) -> Result<PathBuf> {
    let folder = std::env::var_os("MARGAY_SCREENSHOTS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| host.file("screenshots"));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A browser with the page.
#[derive(Debug)]
pub struct Browser {
    script: Daemon,
}

impl Browser {
    /// Starts the script in this mode, in the host's namespace; `more` are its other arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(host: &Host, mode: &str, more: &[&str]) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("page/page.mjs");
        let script = script.to_string_lossy();
        let url = format!("http://127.0.0.1:{PORT}/status/");
        let args = [&[&*script, mode, &url, TOKEN], more].concat();
        Ok(Self { script: host.daemon("page", "node", &args)? })
    }

    /// Waits until it says a line that begins with `line`; returns the rest of it.
    ///
    /// # Errors
    /// When it fails, ends before, or takes too long.
    pub fn wait_line(&mut self, line: &str) -> Result<String> {
        let found = wait_until(STEP, line, || {
            // Asked first: what it prints before it ends is in the output then.
            let has_ended = self.script.exited()?.is_some();
            let output = self.script.output();
            let failed = output.lines().any(|line| line.starts_with("failed: "));
            if let Some(rest) = output.lines().find_map(|found| found.strip_prefix(line)) {
                return Ok(Ok(rest.trim().to_owned()));
            }
            if failed || has_ended {
                return Ok(Err(output));
            }
            bail!("not yet: {output}")
        })?;
        found.map_err(|output| anyhow::anyhow!("the page: {output}"))
    }

    /// Waits until it has ended well.
    ///
    /// # Errors
    /// When it fails.
    pub fn finish(mut self) -> Result<()> {
        self.wait_line("done")?;
        let status = self.script.wait(STEP).context("the browser")?;
        ensure!(status.success(), "{status}: {}", self.script.output());
        Ok(())
    }
}
