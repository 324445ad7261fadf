//! margay in the place of BIRD: every golden scenario that can be run, and object sets of our own, are
//! run by Debian's BIRD 1.6.8, by the files that confd writes, and by margay, by the objects, one after
//! the other on one node with the same kernel routes and neighbours. What neighbours are told and what
//! the kernel is given is the same.

use std::collections::BTreeSet;
use std::sync::Mutex;

use anyhow::{Result, ensure};
use interop::calico::{Outcome, Scenario, Stage, WITHOUT_PASSWORD};
use interop::require;

/// Scenarios that run at a time: they mostly wait for BIRD's timers.
const PARALLEL: usize = 6;

#[test]
#[ignore = "needs root, BIRD 1.6 and MARGAY_SHARED"]
fn shared_data_margay_in_birds_place_tells_and_writes_the_same() -> Result<()> {
    let shared = require::shared()?;
    Scenario::with_golden(&shared, |mut scenarios| {
        scenarios.extend(Scenario::with_environment(&shared)?);
        scenarios.retain(|s| !WITHOUT_PASSWORD.contains(&s.name.as_str()));
        one_after_the_other(scenarios)
    })
}

#[test]
#[ignore = "needs root and BIRD 1.6"]
fn by_objects_of_our_own_margay_in_birds_place_tells_and_writes_the_same() -> Result<()> {
    Scenario::with_own(one_after_the_other)
}

#[test]
#[ignore = "needs root, BIRD 1.6 and confd"]
fn confd_writes_and_margay_in_birds_place_tells_and_writes_the_same() -> Result<()> {
    Scenario::with_confd(one_after_the_other)
}

/// Runs each by BIRD, then by margay, and compares.
fn one_after_the_other(mut scenarios: Vec<Scenario>) -> Result<()> {
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
        compare(&bird, &margay)?;
        println!("{}: the same", scenario.name);
        Ok(())
    });
    let (sessions, routes, kernel) = compared.into_inner().expect("no holder panicked");
    println!(
        "{} scenarios: {sessions} sessions, {routes} routes told, {kernel} in the kernel",
        scenarios.len()
    );
    result
}

fn compare(bird: &Outcome, margay: &Outcome) -> Result<()> {
    let mut differences = Vec::new();
    let mut note = |what: &str, bird: &BTreeSet<String>, margay: &BTreeSet<String>| {
        for line in bird.difference(margay) {
            differences.push(format!("{what}: only BIRD: {line}"));
        }
        for line in margay.difference(bird) {
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
