//! One network namespace per daemon run, isolated from the host's network.

use std::process::Command;

use anyhow::Context;
use interop::lab::{ip, remove_namespace};

use crate::daemon;

/// A namespace. Dropping it kills the processes that still run in it and deletes it.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates the namespace with all of 10.0.0.0/9 local on `lo` for the sessions, and a veth
    /// interface `v0` with 10.128.0.0/9 on link for next hops; `w0` has another network.
    ///
    /// # Errors
    /// The process is not root, iproute2 is missing, or the kernel does not support network
    /// namespaces.
    pub(crate) fn create(name: String) -> anyhow::Result<Self> {
        ip(&["netns", "add", &name]).context("root and iproute2 are needed")?;
        let namespace = Self { name };
        let name = namespace.name.as_str();
        let hop = std::net::Ipv4Addr::from(u32::from(daemon::HOPS) + 1);
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{}/9", daemon::LISTEN.ip()), "dev", "lo"])?;
        let links =
            [("v0", "v1", format!("{hop}/9")), ("w0", "w1", format!("{}/24", daemon::SECOND))];
        for (link, far_end, address) in links {
            ip(&["-n", name, "link", "add", link, "type", "veth", "peer", "name", far_end])?;
            ip(&["-n", name, "link", "set", far_end, "up"])?;
            ip(&["-n", name, "link", "set", link, "up"])?;
            ip(&["-n", name, "addr", "add", &address, "dev", link])?;
        }
        let sysctl = ["net.core.somaxconn=8192", "net.ipv4.ip_local_port_range=2000 65000"];
        let enter = ["netns", "exec", name, "sysctl", "-qw"];
        ip(&[&enter[..], &sysctl[..]].concat())?;
        Ok(namespace)
    }

    /// A command that runs `program` in the namespace.
    pub(crate) fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // All processes in the namespace belong to this run, because the name is unique to it.
        remove_namespace(&self.name);
    }
}
