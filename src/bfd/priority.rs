//! How the kernel schedules the BFD thread.

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tracing::{info, warn};

/// Nice value where a real-time policy is not permitted.
const NICE: i32 = -20;

/// How the BFD thread competes for a core, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// SCHED_RR at priority 1, the lowest: before every thread without a real-time policy.
    RealTime,
    /// SCHED_OTHER at nice -20. Other threads on the core may still run first, for several times
    /// 10 ms on a busy machine.
    Nice,
    /// Like any other thread.
    Normal,
}

impl Scheduling {
    /// Raises the priority of the calling thread as far as that is permitted. Threads and processes
    /// that it starts would inherit it; the BFD thread starts none.
    pub(super) fn raise() -> Scheduling {
        let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
        if set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy).is_ok() {
            return Scheduling::RealTime;
        }
        let thread = Some(rustix::thread::gettid());
        match rustix::process::setpriority_process(thread, NICE) {
            Ok(()) => Scheduling::Nice,
            Err(_) => Scheduling::Normal,
        }
    }

    pub(super) fn log(self) {
        const NEEDS: &str = "a real-time priority needs CAP_SYS_NICE or RLIMIT_RTPRIO of at least 1 \
                             (LimitRTPRIO=1 and no RestrictRealtime in a systemd unit)";
        match self {
            Scheduling::RealTime => info!("BFD's thread has real-time priority 1 (SCHED_RR)"),
            Scheduling::Nice => info!("BFD's thread runs at nice {NICE}; {NEEDS}"),
            Scheduling::Normal => warn!(
                "BFD's thread runs at normal priority, so that sessions may fail while the machine is \
                 busy; {NEEDS}"
            ),
        }
    }
}
