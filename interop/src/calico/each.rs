//! Runs several scenarios at once, each in a lab of its own.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};

use super::{Confd, Scenario};
use crate::lab::{self, Lab};
use crate::speaker::Kind;

/// Number of object sets of our own.
const OWN: u8 = 40;

/// Number of random object sets whose files confd writes; `CONFD_SETS` sets another one.
const BY_CONFD: u8 = 40;

/// Number of those with services; `CONFD_SETS` sets this one, too.
const WITH_SERVICES: u8 = 12;

impl Scenario {
    /// Calls `run` with every golden scenario that can be run live: those of one step, and the
    /// others as they are after their last step.
    ///
    /// # Errors
    /// When the corpus is not as its index says, files cannot be written, or `run` fails.
    pub fn with_golden(shared: &Path, run: impl FnOnce(Vec<Scenario>) -> Result<()>) -> Result<()> {
        in_folder("steps", |folder| {
            let mut scenarios = Scenario::single_steps(shared)?;
            scenarios.extend(Scenario::last_steps(shared, folder)?);
            run(scenarios)
        })
    }

    /// Calls `run` with our own object sets.
    ///
    /// # Errors
    /// When files cannot be written, or `run` fails.
    pub fn with_own(run: impl FnOnce(Vec<Scenario>) -> Result<()>) -> Result<()> {
        in_folder("own", |folder| {
            let sets = (0..OWN).map(|at| Scenario::own(at, &folder.join(at.to_string())));
            run(sets.collect::<Result<_>>()?)
        })
    }

    /// Calls `run` with random object sets of our own, with the files that the real confd writes.
    ///
    /// # Errors
    /// When confd fails, or `run` does.
    pub fn with_confd(run: impl FnOnce(Vec<Scenario>) -> Result<()>) -> Result<()> {
        with_confd("confd", BY_CONFD, Confd::start, run)
    }

    /// As [`Scenario::with_confd`], with services in a real API server, from which confd reads
    /// them.
    ///
    /// # Errors
    /// As [`Scenario::with_confd`].
    pub fn with_confd_and_services(run: impl FnOnce(Vec<Scenario>) -> Result<()>) -> Result<()> {
        with_confd("confd-svc", WITH_SERVICES, Confd::start_beside_kubernetes, run)
    }

    /// Runs each in a lab with BIRD 1.6, `parallel` at a time: they mostly wait for BIRD's timers.
    ///
    /// # Errors
    /// When one failed: names each that did, after all have ended.
    pub fn run_each(
        scenarios: &[Scenario],
        parallel: usize,
        run: impl Fn(&Scenario, &mut Lab) -> Result<()> + Sync,
    ) -> Result<()> {
        let (waiting, faults) = (Mutex::new(scenarios.iter()), Mutex::new(Vec::new()));
        let next = || waiting.lock().expect("no holder panics").next();
        std::thread::scope(|scope| {
            for _ in 0..parallel {
                scope.spawn(|| {
                    while let Some(scenario) = next() {
                        let in_lab =
                            lab::run(&scenario.name, &[Kind::Bird16], |lab| run(scenario, lab));
                        if let Err(error) = in_lab {
                            faults.lock().expect("no holder panics").push(format!("{error:#}"));
                        }
                    }
                });
            }
        });
        let faults = faults.into_inner().expect("no holder panicked");
        ensure!(faults.is_empty(), "{} scenarios: {}", faults.len(), faults.join("\n"));
        Ok(())
    }
}

fn with_confd(
    name: &str,
    sets: u8,
    start: impl FnOnce(&mut Lab) -> Result<Confd>,
    run: impl FnOnce(Vec<Scenario>) -> Result<()>,
) -> Result<()> {
    in_folder(name, |folder| {
        let mut scenarios = Vec::new();
        lab::run(name, &[], |lab| {
            let confd = start(lab)?;
            let given = std::env::var("CONFD_SETS").map(|sets| sets.parse());
            for number in 0..given.unwrap_or(Ok(sets)).context("CONFD_SETS")? {
                let folder = folder.join(number.to_string());
                let set = || format!("object set {number}");
                scenarios.push(confd.scenario(number, &folder).with_context(set)?);
            }
            Ok(())
        })?;
        run(scenarios)
    })
}

/// Calls `run` with a folder of this process, which is removed afterwards.
fn in_folder(what: &str, run: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("margay-{what}-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let result = run(&folder);
    std::fs::remove_dir_all(&folder)?;
    result
}
