//! A daemon for tests, on loopback addresses, which does not write kernel routes.

#![allow(dead_code)] // each user needs some of it

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Timeout of every wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running margay.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) log: PathBuf,
    pub(crate) socket: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn margay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_margay"));
    command.env_remove("MARGAY_SOCKET").env_remove("RUST_LOG").env("NO_COLOR", "1");
    command.stdin(Stdio::null());
    command
}

/// Starts the daemon with a configuration file.
pub(crate) fn spawn(file: &Path, log_level: Option<&str>, log: Stdio) -> Child {
    let mut command = margay();
    command.args(["run", "--config"]).arg(file);
    if let Some(level) = log_level {
        command.env("RUST_LOG", level);
    }
    command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

impl Running {
    /// Starts `NAME.toml` in the folder, with this text and what keeps it apart from others.
    pub(crate) fn start(folder: &TempDir, name: &str, text: &str, log_level: Option<&str>) -> Self {
        let (file, log) =
            (folder.path().join(format!("{name}.toml")), folder.path().join(format!("{name}.log")));
        let socket = folder.path().join(format!("{name}.sock"));
        let rest = format!(
            "[fib]\nenabled = false\n[control]\nsocket = \"{}\"\nbird-sockets = [\"{}\", \"{}\"]\n",
            socket.display(),
            folder.path().join(format!("{name}.ctl")).display(),
            folder.path().join(format!("{name}6.ctl")).display(),
        );
        std::fs::write(&file, format!("{text}{rest}")).unwrap();
        let out = std::fs::File::create(&log).unwrap();
        let running = Running { child: spawn(&file, log_level, out.into()), log, socket };
        running.wait_for_socket();
        running
    }

    pub(crate) fn wait_for_socket(&self) {
        wait("the control socket", || self.ask(&["show", "status"]).status.success());
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        margay().args(arguments).arg("--socket").arg(&self.socket).output().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

pub(crate) fn wait(what: &str, mut is_there: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(began.elapsed() < PATIENCE, "no {what} in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}
