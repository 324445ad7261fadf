//! What `margay calico plan --live --diff` says, and what then happens, whichever datastore the objects
//! are in.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::lab::Host;
use crate::margay::{Control, binary};
use crate::wait::{PATIENCE, wait_until};

/// Environment variables, as pairs of name and value.
pub type Variables = Vec<(String, String)>;

/// The exit code of `margay calico ARGS` on a node, with its environment, and what it prints.
///
/// # Errors
/// When it cannot be run, or its output is not text.
pub fn calico(host: &Host, variables: &Variables, args: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command: Command = host.command(&binary()?.to_string_lossy());
    command.arg("calico").args(args);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = command.output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8(text)?))
}

/// What `plan --live --diff` says as JSON.
///
/// # Errors
/// When it fails.
pub fn forecast(host: &Host, variables: &Variables, args: &[&str]) -> Result<Value> {
    let args = [&["plan", "--live", "--diff", "--json"], args].concat();
    let (code, text) = calico(host, variables, &args)?;
    ensure!(code == Some(0), "{args:?}: {code:?}: {text}");
    serde_json::from_str(&text).with_context(|| text.clone())
}

/// The prefixes that a peer is sent.
///
/// # Errors
/// When the daemon does not answer.
pub fn sent(control: &Control, peer: &str) -> Result<Vec<String>> {
    let routes = control.json(&["show", "advertised", peer])?;
    let routes = routes.as_array().context("no list")?.iter();
    Ok(routes.filter_map(|route| route["prefix"].as_str().map(str::to_owned)).collect())
}

/// An object in a file, as `--apply` takes it.
///
/// # Errors
/// When it cannot be written.
pub fn object_file(host: &Host, kind: &str, name: &str, spec: &Value) -> Result<String> {
    let object = json!({"kind": kind, "apiVersion": "projectcalico.org/v3",
                        "metadata": {"name": name}, "spec": spec});
    let file = host.write(&format!("{name}.json"), &object.to_string())?;
    Ok(file.display().to_string())
}

/// A pool `pods` that is not announced any more: the node's block is withdrawn from its two neighbours, as
/// foreseen. `put` stores the pool with its new spec.
///
/// # Errors
/// When what is said differs from what happens.
pub fn expect_foreseen_withdrawal(
    (host, variables, control): (&Host, &Variables, &Control),
    (pool, block): (&str, &str),
    sessions: &[String; 2],
    put: impl FnOnce(&Value) -> Result<()>,
) -> Result<()> {
    for session in sessions {
        wait_until(PATIENCE, "the block to be sent", || {
            let sent = sent(control, session)?;
            ensure!(sent == [block], "{sent:?}");
            Ok(())
        })?;
    }
    let spec = json!({"cidr": pool, "ipipMode": "Never", "disableBGPExport": true});
    let file = object_file(host, "IPPool", "pods", &spec)?;
    let said = forecast(host, variables, &["--apply", &file])?;
    ensure!(said["forecast"]["objects"] == json!(["apply IPPool/pods"]), "{said}");
    ensure!(said["forecast"]["changed_meanwhile"] == false, "{said}");
    ensure!(said["sessions"] == json!([]), "{said}");
    let peers = said["routes"]["peers"].as_array().context("no routes")?;
    ensure!(peers.len() == 2, "{said}");
    for (peer, name) in peers.iter().zip(sessions) {
        ensure!(peer["peer"] == name.as_str() && peer["withdrawn"] == 1, "{said}");
        ensure!(peer["routes"][0]["prefix"] == block, "{said}");
    }
    ensure!(sent(control, &sessions[0])?.len() == 1, "a dry run changes nothing");
    put(&spec)?;
    for session in sessions {
        wait_until(PATIENCE, "the block to be withdrawn", || {
            let sent = sent(control, session)?;
            ensure!(sent.is_empty(), "{sent:?}");
            Ok(())
        })?;
    }
    Ok(())
}
