//! kubectl, built with the server, as an operator of the lab's cluster calls it.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use super::{ADMIN, Kubernetes, program};

impl Kubernetes {
    /// kubectl as the administrator.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn kubectl(&self) -> Result<Command> {
        let kubeconfig = self.kubeconfig("admin", &format!("token: {ADMIN}"))?;
        let mut command = self.host().command(&program("kubectl")?.display().to_string());
        // It caches the API's kinds in the lab's folder, not in root's home.
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--cache-dir")
            .arg(self.host().file("kubectl"));
        Ok(command)
    }

    /// Runs kubectl, and returns what it printed.
    ///
    /// # Errors
    /// When it fails: has what it said.
    pub fn run_kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_kubectl(arguments)?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {arguments:?}: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs kubectl, whatever it exits with.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<Output> {
        self.kubectl()?.args(arguments).output().context("start kubectl")
    }
}
