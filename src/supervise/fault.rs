//! Fault injection for tests of the real program. A release contains none of it.
//!
//! Compiled where debug assertions are on, as in `cargo test`, and with the feature
//! `fault-injection`. The environment variable `MARGAY_FAULT_FILE` names a file; while it contains
//! `panic PART` or `hang PART`, the next turn of that part panics, or sleeps for ever.

/// A point in a part's turn where a fault can be injected.
#[cfg(any(debug_assertions, feature = "fault-injection"))]
pub use injected::{arm_from_environment, point};

/// A point in a part's turn where a fault can be injected; does nothing in a release.
#[cfg(not(any(debug_assertions, feature = "fault-injection")))]
#[inline(always)]
pub fn point(_part: &'static str) {}

/// Starts polling the file that the environment names; does nothing in a release.
#[cfg(not(any(debug_assertions, feature = "fault-injection")))]
#[inline(always)]
pub fn arm_from_environment() {}

#[cfg(any(debug_assertions, feature = "fault-injection"))]
mod injected {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    /// How often the file is read.
    const LOOK_INTERVAL: Duration = Duration::from_millis(20);

    static ARMED: AtomicBool = AtomicBool::new(false);
    static ORDER: Mutex<String> = Mutex::new(String::new());

    /// Panics, or sleeps for ever, if the file says so for `part`.
    #[track_caller]
    pub fn point(part: &'static str) {
        if !ARMED.load(Ordering::Relaxed) {
            return;
        }
        let order = ORDER.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match order.trim().split_once(' ') {
            Some(("panic", wanted)) if wanted == part => panic!("injected into {part}"),
            Some(("hang", wanted)) if wanted == part => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            _ => {}
        }
    }

    /// Starts polling the file that the environment names, if it names one.
    pub fn arm_from_environment() {
        let Some(path) = std::env::var_os("MARGAY_FAULT_FILE").map(PathBuf::from) else { return };
        let look = move || {
            loop {
                let order = std::fs::read_to_string(&path).unwrap_or_default();
                let is_armed = !order.is_empty();
                *ORDER.lock().unwrap_or_else(PoisonError::into_inner) = order;
                ARMED.store(is_armed, Ordering::Relaxed);
                std::thread::sleep(LOOK_INTERVAL);
            }
        };
        std::thread::Builder::new()
            .name("faults".to_owned())
            .spawn(look)
            .expect("a test can have one more thread");
    }
}
