//! A terminal: a tmux server of its own with one window, in which a script runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lab::{Host, run_command};
use crate::wait::{PATIENCE, wait_until};

/// A running terminal. Dropping it ends what runs in it.
#[derive(Debug)]
pub struct Tmux {
    socket: PathBuf,
}

impl Tmux {
    /// Runs a shell script in a terminal of this size. `socket` is a path in the test's folder.
    ///
    /// # Errors
    /// When tmux cannot be started.
    pub fn start(socket: &Path, (width, height): (u16, u16), script: &Path) -> Result<Self> {
        let tmux = Self { socket: socket.to_owned() };
        let (width, height) = (width.to_string(), height.to_string());
        let command = format!("sh {}", script.display());
        tmux.run(&["new-session", "-d", "-x", &width, "-y", &height, &command])?;
        Ok(tmux)
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("tmux");
        // A UTF-8 terminal whatever the caller's locale is, and no configuration of the caller's.
        command.arg("-u").arg("-f").arg("/dev/null").arg("-S").arg(&self.socket);
        command.env_remove("TMUX").env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color");
        run_command(command.args(args))
    }

    /// Presses keys, as tmux names them.
    ///
    /// # Errors
    /// When the terminal has ended.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        self.run(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Changes the size.
    ///
    /// # Errors
    /// When the terminal has ended.
    pub fn resize(&self, (width, height): (u16, u16)) -> Result<()> {
        let (width, height) = (width.to_string(), height.to_string());
        self.run(&["resize-window", "-x", &width, "-y", &height]).map(drop)
    }

    /// What is on the screen.
    ///
    /// # Errors
    /// When the terminal has ended.
    pub fn screen(&self) -> Result<String> {
        self.run(&["capture-pane", "-p"])
    }

    /// Waits until the screen has all of these texts, and returns it.
    ///
    /// # Errors
    /// When it still lacks one after half a minute.
    pub fn expect(&self, texts: &[&str]) -> Result<String> {
        wait_until(PATIENCE, &format!("{texts:?} on the screen"), || {
            let screen = self.screen()?;
            let missing = texts.iter().find(|text| !screen.contains(**text));
            ensure!(missing.is_none(), "no {missing:?} in\n{screen}");
            Ok(screen)
        })
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // Only this server listens on the socket. If it has ended already, there is nothing to do.
        let _ = self.run(&["kill-server"]);
    }
}

/// `margay top` in a terminal, and the files that its script writes.
#[derive(Debug)]
pub struct Top {
    /// The terminal.
    pub tmux: Tmux,
    host: Host,
    name: String,
}

impl Top {
    /// Starts it. The script writes the state of the terminal before and after, and the exit code. A
    /// backtrace would push what was on the screen out of it.
    ///
    /// # Errors
    /// When tmux cannot be started.
    pub fn start(
        host: &Host,
        name: &str,
        program: &Path,
        args: &str,
        size: (u16, u16),
    ) -> Result<Self> {
        let file = |what: &str| host.file(&format!("{name}.{what}")).display().to_string();
        let script = format!(
            "stty -a > {before}\necho on the screen before\n\
             MARGAY_FAULT_FILE={fault} RUST_BACKTRACE=0 sh -c 'echo $$ > {pid}; exec {program} top --socket {socket} {args}'\n\
             echo $? > {code}.new; stty -a > {after}; mv {code}.new {code}\nexec cat\n",
            before = file("before"),
            fault = file("fault"),
            pid = file("pid"),
            program = program.display(),
            socket = host.file("margay.sock").display(),
            code = file("code"),
            after = file("after"),
        );
        let script = host.write(&format!("{name}.sh"), &script)?;
        let tmux = Tmux::start(&host.file(&format!("{name}.tmux")), size, &script)?;
        Ok(Top { tmux, host: host.clone(), name: name.to_owned() })
    }

    /// A file of the script: `before`, `after`, `code`; `fault`, for injected faults.
    #[must_use]
    pub fn file(&self, what: &str) -> PathBuf {
        self.host.file(&format!("{}.{what}", self.name))
    }

    fn pid(&self) -> Result<String> {
        Ok(fs::read_to_string(self.file("pid"))?.trim().to_owned())
    }

    /// Sends a signal to `top`.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, name: &str) -> Result<()> {
        run_command(Command::new("kill").arg(format!("-{name}")).arg(self.pid()?)).map(drop)
    }

    /// Waits until it ends, and returns the screen.
    ///
    /// # Errors
    /// When its exit code is another, or the terminal is not as it was.
    pub fn expect_end(&self, code: i32) -> Result<String> {
        wait_until(PATIENCE, "the end of top", || Ok(fs::metadata(self.file("code"))?))
            .with_context(|| self.tmux.screen().unwrap_or_default())?;
        let read = |what: &str| fs::read_to_string(self.file(what));
        ensure!(
            read("code")?.trim() == code.to_string(),
            "exit code {}, not {code}",
            read("code")?
        );
        let (before, after) = (read("before")?, read("after")?);
        ensure!(before.contains("icanon") && before == after, "{before}\nis after top\n{after}");
        self.tmux.expect(&["on the screen before"])
    }
}
