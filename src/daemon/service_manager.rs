//! Notifications to the service manager (sd_notify(3)): margay is ready, is alive, is stopping.
//! Without a service manager nothing happens.
//!
//! A unit with `Type=notify` and `WatchdogSec=` detects a part that hangs by the same probes as
//! `/liveness`, and restarts margay.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

/// The watchdog is notified this many times within its timeout.
const WATCHDOG_SHARE: u32 = 3;

/// The connection to the service manager, if there is one. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceManager {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As given by the environment of this process (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    pub(super) fn of_process() -> Self {
        let variable = |name: &str| std::env::var_os(name);
        ServiceManager::new(variable, std::process::id()).unwrap_or_else(|error| {
            warn!("cannot reach the service manager at $NOTIFY_SOCKET: {error}");
            ServiceManager::default()
        })
    }

    fn new(variable: impl Fn(&str) -> Option<OsString>, own: u32) -> io::Result<Self> {
        let Some(address) = variable("NOTIFY_SOCKET").filter(|text| !text.is_empty()) else {
            return Ok(ServiceManager::default());
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address_of(&address)?)?;
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        // If it names another process, the watchdog is meant for that one.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(own));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0);
        let watchdog = watchdog.map(Duration::from_micros);
        Ok(ServiceManager { socket: Some(Arc::new(socket)), watchdog })
    }

    fn tell(&self, state: &str) {
        // If the manager does not read, its own timeouts apply.
        let _ = self.socket.as_ref().map(|socket| socket.send(state.as_bytes()));
    }

    /// Margay is ready.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// Margay is stopping.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Notifies the watchdog as often as the manager requires, as long as `stuck` returns nothing.
    /// Never completes.
    pub(super) async fn keep_alive<F>(self, stuck: impl Fn() -> F)
    where
        F: Future<Output = Vec<String>>,
    {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        info!("the service manager's watchdog is notified every {:?}", watchdog / WATCHDOG_SHARE);
        let mut ticks = tokio::time::interval(watchdog / WATCHDOG_SHARE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let stuck = stuck().await;
            if stuck.is_empty() {
                self.tell("WATCHDOG=1");
            } else {
                warn!("the service manager's watchdog is not notified: {}", stuck.join("; "));
            }
        }
    }
}

/// Parses a path, or after `@` a name in the abstract namespace.
fn address_of(text: &OsStr) -> io::Result<SocketAddr> {
    match text.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(text),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A manager that listens in the abstract namespace, and the environment that it sets.
    fn manager(name: &str) -> (UnixDatagram, HashMap<&'static str, OsString>) {
        let name = format!("margay-{}-{name}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (socket, HashMap::from([("NOTIFY_SOCKET", format!("@{name}").into())]))
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut text = [0; 64];
        let len = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..len]).into_owned()
    }

    #[test]
    fn without_a_manager_nothing_is_sent() {
        let none = ServiceManager::new(|_| None, 1).unwrap();
        assert!(none.socket.is_none() && none.watchdog.is_none());
        none.ready();
    }

    #[test]
    fn a_watchdog_that_is_meant_for_another_process_is_left_alone() {
        let (_socket, mut environment) = manager("pid");
        environment.insert("WATCHDOG_USEC", "30000000".into());
        let of = |environment: &HashMap<&str, OsString>| {
            let variable = |name: &str| environment.get(name).cloned();
            ServiceManager::new(variable, 77).unwrap().watchdog
        };
        assert_eq!(of(&environment), Some(Duration::from_secs(30)));
        environment.insert("WATCHDOG_PID", "77".into());
        assert_eq!(of(&environment), Some(Duration::from_secs(30)));
        environment.insert("WATCHDOG_PID", "78".into());
        assert_eq!(of(&environment), None);
    }

    #[tokio::test]
    async fn the_watchdog_is_not_notified_while_a_part_is_stuck() {
        use std::sync::atomic::{AtomicBool, Ordering};

        let (socket, mut environment) = manager("stuck");
        environment.insert("WATCHDOG_USEC", "60000".into());
        let manager = ServiceManager::new(|name| environment.get(name).cloned(), 1).unwrap();
        manager.ready();
        assert_eq!(heard(&socket), "READY=1");
        let is_stuck = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&is_stuck);
        let task = tokio::spawn(manager.clone().keep_alive(move || {
            let stuck = asked.load(Ordering::Relaxed).then(|| "table: no answer".to_owned());
            async move { Vec::from_iter(stuck) }
        }));
        let socket = tokio::task::spawn_blocking(move || {
            assert_eq!(heard(&socket), "WATCHDOG=1");
            assert_eq!(heard(&socket), "WATCHDOG=1");
            socket
        });
        let socket = socket.await.unwrap();
        is_stuck.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
        socket.set_nonblocking(true).unwrap();
        while socket.recv(&mut [0; 64]).is_ok() {}
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(socket.recv(&mut [0; 64]).is_err(), "notified although a part is stuck");
        task.abort();
        manager.stopping();
        assert_eq!(heard(&socket), "STOPPING=1");
    }
}
