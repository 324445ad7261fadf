//! BIRD 3, which signs with TCP-AO; run from a folder of its own, with its own C library.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::bird2;
use crate::daemon::Daemon;
use crate::lab::Host;
use crate::wait::{PATIENCE, wait_until};

/// Where `interop/setup.sh tcp-ao` unpacks it.
const FOLDER: &str = "/opt/interop/bird3";

/// A running BIRD 3.
#[derive(Debug)]
pub struct Bird3 {
    host: Host,
    daemon: Daemon,
    socket: PathBuf,
}

impl Bird3 {
    /// Starts BIRD with a configuration in text form.
    ///
    /// # Errors
    /// When it is not installed, refuses the configuration or cannot be started.
    pub fn start(host: &Host, text: &str) -> Result<Self> {
        let complete = Path::new(FOLDER).join("complete");
        ensure!(complete.exists(), "BIRD 3 is missing: run `interop/setup.sh tcp-ao`");
        let libraries = format!("{FOLDER}/usr/lib/x86_64-linux-gnu");
        let loader = format!("{libraries}/ld-linux-x86-64.so.2");
        let path = format!("{libraries}:/lib/x86_64-linux-gnu");
        let (conf, socket) = (host.write("bird3.conf", text)?, host.file("bird3.ctl"));
        let (conf, control) = (conf.to_string_lossy(), socket.to_string_lossy());
        let program = format!("{FOLDER}/usr/sbin/bird");
        let args = ["--library-path", &path, &program, "-f", "-c", &conf, "-s", &control];
        let daemon = host.daemon("bird3", &loader, &args)?;
        let started = Self { host: host.clone(), daemon, socket };
        wait_until(PATIENCE, "BIRD 3's control socket", || started.ask("show status").map(drop))?;
        Ok(started)
    }

    /// Sends a command and returns the answer.
    ///
    /// # Errors
    /// When BIRD does not answer.
    pub fn ask(&self, command: &str) -> Result<String> {
        bird2::birdc(&self.socket, command)
    }

    /// Replaces the configuration.
    ///
    /// # Errors
    /// When BIRD refuses it.
    pub fn configure(&self, text: &str) -> Result<String> {
        self.host.write("bird3.conf", text)?;
        self.ask("configure")
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.output()
    }
}
