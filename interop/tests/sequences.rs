//! The recorded session scenarios, over TCP, against the real daemon.

use std::sync::Mutex;

use anyhow::{Result, ensure};
use interop::sequence::{Sequence, load, run};
use interop::speaker::Kind;
use interop::{lab, require};

/// How many scenarios run at once: most of their time is waiting.
const AT_ONCE: usize = 4;

#[test]
#[ignore = "needs root, BIRD 2 and MARGAY_SHARED"]
fn shared_data_every_scenario() -> Result<()> {
    require::margay_as_subject()?;
    let shared = require::shared()?;
    let only = std::env::var("INTEROP_SEQUENCE").unwrap_or_default();
    let mut sequences = load(&shared.join("conformance/malformed/sequences.jsonl"))?;
    ensure!(sequences.len() >= 25, "only {} scenarios", sequences.len());
    sequences.retain(|s| s.name.contains(&only));
    let queue: Mutex<Vec<Sequence>> = Mutex::new(sequences);
    let failed: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(sequence) = queue.lock().unwrap().pop() else { return };
                    let name = format!("seq-{}", sequence.name);
                    let start = std::time::Instant::now();
                    let peers = [Kind::Bird2];
                    match lab::run(&name, &peers, |lab| run(lab, &sequence)) {
                        Ok(()) => println!("ok   {name} {:.1?}", start.elapsed()),
                        Err(error) => failed.lock().unwrap().push(format!("FAIL {error:#}")),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner()?;
    ensure!(failed.is_empty(), "{} scenarios failed:\n{}", failed.len(), failed.join("\n"));
    Ok(())
}
