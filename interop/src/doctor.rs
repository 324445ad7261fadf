//! Runs `margay calico doctor` on a host and reads its findings.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Host;
use crate::margay::binary;

/// The result of the doctor.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The exit code.
    pub code: i32,
    /// The findings, as `SEVERITY KIND NAME: TEXT`.
    pub lines: Vec<String>,
    /// The whole JSON output.
    pub json: Value,
}

impl Verdict {
    /// The lines of this severity.
    pub fn of<'a>(&'a self, severity: &'a str) -> impl Iterator<Item = &'a String> {
        self.lines.iter().filter(move |line| line.split(' ').next() == Some(severity))
    }

    /// Fails unless the exit code is this one.
    ///
    /// # Errors
    /// When it is another; with the lines.
    pub fn expect(&self, code: i32) -> Result<&Self> {
        let lines = self.lines.join("\n");
        ensure!(self.code == code, "exit code {} in place of {code}:\n{lines}", self.code);
        Ok(self)
    }

    /// Fails unless a line contains all of these parts.
    ///
    /// # Errors
    /// When there is none; with the lines.
    pub fn says(&self, parts: &[&str]) -> Result<&Self> {
        let found = self.lines.iter().any(|line| parts.iter().all(|part| line.contains(part)));
        ensure!(found, "no line with {parts:?}:\n{}", self.lines.join("\n"));
        Ok(self)
    }
}

/// The command on a host, with its configuration file if there is one.
///
/// # Errors
/// When there is no margay binary.
pub fn command(host: &Host, arguments: &[&str]) -> Result<Command> {
    let mut command = host.command(&binary()?.to_string_lossy());
    command.args(["calico", "doctor"]).args(arguments);
    Ok(command)
}

/// Runs it with `--json`.
///
/// # Errors
/// When it prints no JSON, or a finding without a remedy.
pub fn examine(command: &mut Command) -> Result<Verdict> {
    let output = command.arg("--json").output()?;
    let text = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let json: Value = serde_json::from_str(&text).with_context(|| format!("{text}{errors}"))?;
    let mut lines = Vec::new();
    for finding in json["findings"].as_array().context("no findings")? {
        let text = |key: &str| finding[key].as_str().map(str::to_owned).context(key.to_owned());
        ensure!(!text("remedy")?.is_empty(), "it does not say what to do: {finding}");
        let (kind, name) = (&finding["subject"]["kind"], &finding["subject"]["name"]);
        let subject = [kind, name].map(|part| part.as_str().unwrap_or_default()).join(" ");
        let object = finding["object"].as_str().unwrap_or_default();
        lines.push(format!("{} {subject} ({object}): {}", text("severity")?, text("text")?));
    }
    let code = output.status.code().context("it was killed")?;
    Ok(Verdict { code, lines, json })
}
