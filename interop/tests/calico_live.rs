//! margay in the place of BIRD: every golden scenario that can be run, and object sets of our own, are
//! run by Debian's BIRD 1.6.8, by the files that confd writes, and by margay, by the objects, one after
//! the other on one node with the same kernel routes and neighbours. What neighbours are told and what
//! the kernel is given is the same.

use std::collections::BTreeSet;
use std::sync::Mutex;

use anyhow::{Result, ensure};
use interop::calico::{Outcome, Scenario, Stage, WITHOUT_PASSWORD};
use interop::lab;
use interop::require;
use interop::speaker::Kind;

/// Scenarios that run at a time: they mostly wait for BIRD's timers.
const PARALLEL: usize = 6;

/// Object sets of our own.
const OWN: u8 = 40;

#[test]
#[ignore = "needs root, BIRD 1.6 and MARGAY_SHARED"]
fn shared_data_margay_in_birds_place_tells_and_writes_the_same() -> Result<()> {
    let shared = require::shared()?;
    let mut scenarios = Scenario::single_steps(&shared)?;
    let folder = std::env::temp_dir().join(format!("margay-steps-{}", std::process::id()));
    scenarios.extend(Scenario::last_steps(&shared, &folder)?);
    scenarios.retain(|s| !WITHOUT_PASSWORD.contains(&s.name.as_str()));
    let result = one_after_the_other(scenarios);
    std::fs::remove_dir_all(&folder)?;
    result
}

#[test]
#[ignore = "needs root and BIRD 1.6"]
fn by_objects_of_our_own_margay_in_birds_place_tells_and_writes_the_same() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("margay-own-{}", std::process::id()));
    let scenarios: Result<Vec<Scenario>> =
        (0..OWN).map(|at| Scenario::own(at, &folder.join(at.to_string()))).collect();
    let result = one_after_the_other(scenarios?);
    std::fs::remove_dir_all(&folder)?;
    result
}

/// Runs each by BIRD, then by margay, and compares.
fn one_after_the_other(mut scenarios: Vec<Scenario>) -> Result<()> {
    require::margay_as_subject()?;
    let only = std::env::var("LIVE_ONLY").ok();
    scenarios.retain(|s| only.as_ref().is_none_or(|only| s.name.contains(only.as_str())));
    let (waiting, faults) = (Mutex::new(scenarios.iter()), Mutex::new(Vec::new()));
    let compared = Mutex::new((0, 0, 0));
    let next = || waiting.lock().expect("no holder panics").next();
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(scenario) = next() {
                    let result = lab::run(&scenario.name, &[Kind::Bird16], |lab| {
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
                        compare(&bird, &margay)
                    });
                    match result {
                        Ok(()) => println!("{}: the same", scenario.name),
                        Err(e) => faults.lock().expect("no holder panics").push(format!("{e:#}")),
                    }
                }
            });
        }
    });
    let (sessions, routes, kernel) = compared.into_inner().expect("no holder panicked");
    println!(
        "{} scenarios: {sessions} sessions, {routes} routes told, {kernel} in the kernel",
        scenarios.len()
    );
    let faults = faults.into_inner().expect("no holder panicked");
    ensure!(faults.is_empty(), "{} scenarios: {}", faults.len(), faults.join("\n"));
    Ok(())
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
