//! A process in a namespace: started, monitored, and ended by its own pid.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A running daemon. Dropping it ends the process.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` with its output in `log`. The command must exec the daemon itself
    /// (`ip netns exec` does), so that the pid is the daemon's.
    ///
    /// # Errors
    /// When the log cannot be written or the program cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let err = out.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything the daemon has printed.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// The exit status, or `None` while the daemon runs.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal by name (`TERM`, `HUP`, `STOP`, `CONT`).
    ///
    /// # Errors
    /// When the daemon is gone.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status =
            Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status()?;
        if !status.success() {
            bail!("kill -{name} {} failed", self.pid());
        }
        Ok(())
    }

    /// Sends SIGKILL, which from outside looks like a crash.
    ///
    /// # Errors
    /// When the process cannot be reaped.
    pub fn crash(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until the daemon has exited by itself.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!("process {} has not exited within {limit:?}", self.pid());
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGTERM and waits; sends SIGKILL if it does not exit.
    ///
    /// # Errors
    /// When the daemon ignored SIGTERM for five seconds.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.exited()? {
            return Ok(status);
        }
        self.signal("TERM")?;
        self.wait(Duration::from_secs(5))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.terminate().is_err() {
            let _ = self.crash();
        }
    }
}
