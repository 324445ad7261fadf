//! Runs scenarios with BIRD and with margay, and compares the outcomes.

use std::collections::BTreeSet;
use std::sync::Mutex;

use anyhow::{Result, ensure};

use super::{Outcome, Scenario, Stage};
use crate::require;

/// Scenarios that run at once: they mostly wait for BIRD's timers.
const PARALLEL: usize = 6;

impl Scenario {
    /// Runs each with BIRD, then with margay, and compares the outcomes; `LIVE_ONLY` selects
    /// scenarios by a part of their name.
    ///
    /// # Errors
    /// Names every difference.
    pub fn one_after_the_other(mut scenarios: Vec<Scenario>) -> Result<()> {
        require::margay_as_subject()?;
        let only = std::env::var("LIVE_ONLY").ok();
        scenarios.retain(|s| only.as_ref().is_none_or(|only| s.name.contains(only.as_str())));
        let compared = Mutex::new((0, 0, 0));
        let result = Scenario::run_each(&scenarios, PARALLEL, |scenario, lab| {
            let Some(stage) = Stage::set_up(lab, scenario)? else {
                println!("{}: no neighbours", scenario.name);
                return Ok(());
            };
            let bird = stage.with_bird()?;
            let margay = stage.with_margay()?;
            let mut sums = compared.lock().expect("no holder panics");
            sums.0 += bird.told.len();
            sums.1 += bird.told.values().map(BTreeSet::len).sum::<usize>();
            sums.2 += bird.kernel.len();
            drop(sums);
            compare(scenario, &bird, &margay)?;
            println!("{}: the same", scenario.name);
            Ok(())
        });
        let (sessions, routes, kernel) = compared.into_inner().expect("no holder panicked");
        println!(
            "{} scenarios: {sessions} sessions, {routes} routes sent, {kernel} in the kernel",
            scenarios.len()
        );
        result
    }
}

fn compare(scenario: &Scenario, bird: &Outcome, margay: &Outcome) -> Result<()> {
    let mut differences = Vec::new();
    let is_compared = |line: &&String| {
        let prefix = line.split(' ').next().unwrap_or_default();
        scenario.ignored.iter().all(|ignored| ignored != prefix)
    };
    let mut note = |what: &str, bird: &BTreeSet<String>, margay: &BTreeSet<String>| {
        for line in bird.difference(margay).filter(is_compared) {
            differences.push(format!("{what}: only BIRD: {line}"));
        }
        for line in margay.difference(bird).filter(is_compared) {
            differences.push(format!("{what}: only margay: {line}"));
        }
    };
    for (session, told) in &bird.told {
        let empty = BTreeSet::new();
        note(session, told, margay.told.get(session).unwrap_or(&empty));
    }
    note("kernel", &bird.kernel, &margay.kernel);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}
