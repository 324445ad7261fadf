//! Bounded waiting with a reason.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long a session may take to come up, and a route to arrive, before a test gives up.
///
/// Long, because a shared machine with two cores is slow at times; a test that passes never
/// waits that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Interval at which a condition is checked.
const STEP: Duration = Duration::from_millis(100);

/// Repeats `ask` until it returns `Ok`, for at most `limit`.
///
/// # Errors
/// The last error of `ask`, with what was waited for.
pub fn wait_until<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(reason) if start.elapsed() >= limit => {
                return Err(anyhow!("waited {limit:?} for {what}: {reason:#}"));
            }
            Err(_) => sleep(STEP),
        }
    }
}

/// Repeats `ask` for the whole of `span` and requires `Ok` every time: checks that something does
/// not happen.
///
/// # Errors
/// The first error of `ask`, with what should have stayed true.
pub fn holds_for(span: Duration, what: &str, mut ask: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        ask().map_err(|reason| {
            anyhow!("{what} stopped being true after {:?}: {reason:#}", start.elapsed())
        })?;
        sleep(STEP);
    }
    Ok(())
}
