//! Faults for tests of the real program. Nothing of it is in a release.
//!
//! Compiled where debug assertions are on, as in `cargo test`, and with the feature
//! `fault-injection`. The environment variable `MARGAY_FAULT_FILE` names a file; while it holds
//! `panic PART` or `hang PART`, the next turn of that part panics, or sleeps for ever.

/// Where a part's turn may fail.
#[cfg(any(debug_assertions, feature = "fault-injection"))]
pub use injected::{arm_from_environment, point};

/// Where a part's turn may fail: nowhere, in a release.
#[cfg(not(any(debug_assertions, feature = "fault-injection")))]
#[inline(always)]
pub fn point(_part: &'static str) {}

#[cfg(not(any(debug_assertions, feature = "fault-injection")))]
pub(super) fn arm_from_environment() {}

#[cfg(any(debug_assertions, feature = "fault-injection"))]
mod injected {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    /// How often the file is looked at.
    const LOOK_INTERVAL: Duration = Duration::from_millis(20);

    static ARMED: AtomicBool = AtomicBool::new(false);
    static ORDER: Mutex<String> = Mutex::new(String::new());

    /// See the module.
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

    /// Begins to look at the file that the environment names.
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
