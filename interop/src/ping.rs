//! `ping` between two hosts.

use anyhow::{Context, Result, bail};

use crate::daemon::Daemon;
use crate::lab::Host;
use crate::wait::PATIENCE;

/// A ping every 5 ms.
#[derive(Debug)]
pub struct Ping(Daemon);

impl Ping {
    /// Starts it on a host, from an address of the host to another address.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start(host: &Host, from: &str, to: &str) -> Result<Self> {
        let args = ["-i", "0.005", "-n", "-q", "-I", from, to];
        Ok(Ping(host.daemon("ping", "ping", &args)?))
    }

    /// Stops it; returns the numbers of sent and of lost packets.
    ///
    /// # Errors
    /// When its report cannot be read.
    pub fn finish(mut self) -> Result<(u64, u64)> {
        self.0.signal("INT")?;
        self.0.wait(PATIENCE)?;
        let output = self.0.output();
        let line = output.lines().find(|line| line.contains("transmitted"));
        let line = line.with_context(|| output.clone())?;
        let numbers: Vec<u64> =
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [sent, received, ..] = numbers[..] else { bail!("{line}") };
        Ok((sent, sent - received))
    }
}
