//! The BFD thread: reads packets, handles deadlines, sends, sleeps.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bgp_proto::types::Time;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{info, warn};

use super::delay::{Backlog, Delay};
use super::filter::{Class, Discriminators};
use super::priority::Scheduling;
use super::sender::Sender;
use super::sessions::Sessions;
use super::sockets::{Group, Inbox};
use super::{Family, Handle, Port, View, lock};
use crate::engine::Clock;

/// Bounds of the time from one turn to the next. Events within that time are handled together, so
/// it must be a small part of the shortest interval.
const TURN_MIN: Duration = Duration::from_millis(1);
const TURN_MAX: Duration = Duration::from_millis(6);
/// Least number of turns in the shortest interval.
const TURNS: u32 = 48;
/// Most packets of established sessions that all groups read in one turn: more than can be due, so this
/// only ends a turn that a flood would otherwise prolong. A few milliseconds of a core.
const KNOWN_MAX: usize = 2048;
/// Packets per second without Your Discriminator: as many as a thousand peers send that restart at
/// the same time.
const UNKNOWN_RATE: u32 = 1000;
/// Invalid packets per second that are read to count their reasons.
const INVALID_RATE: u32 = 200;
/// Pause between attempts to open sockets that could not be opened.
const OPEN_RETRY: Duration = Duration::from_secs(5);
/// How soon an exhausted allowance is checked again.
const REFILL: Duration = Duration::from_millis(10);

/// Limits the rate at which packets of a class are read: a token bucket that holds a tenth of a
/// second's packets.
#[derive(Debug)]
struct Allowance {
    rate: u32,
    tokens: f64,
    since: Time,
}

impl Allowance {
    fn new(rate: u32, now: Time) -> Allowance {
        Allowance { rate, tokens: f64::from(rate) / 10.0, since: now }
    }

    fn available(&mut self, now: Time) -> usize {
        let rate = f64::from(self.rate);
        self.tokens = (self.tokens + now.since(self.since).as_secs_f64() * rate).min(rate / 10.0);
        self.since = now;
        self.tokens as usize
    }

    fn spend(&mut self, packets: usize) {
        self.tokens -= packets as f64;
    }
}

/// Receive buffers. They cannot be moved between threads, so they are not part of the worker.
pub(super) struct Inboxes {
    v4: Inbox,
    v6: Inbox,
}

impl Inboxes {
    pub(super) fn new() -> Inboxes {
        Inboxes { v4: Inbox::new(), v6: Inbox::new() }
    }

    fn of(&mut self, family: Family) -> &mut Inbox {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// Everything that the thread owns.
#[derive(Debug)]
pub(super) struct Worker {
    handle: Handle,
    clock: Clock,
    sessions: Sessions,
    sender: Sender,
    groups: Vec<Group>,
    /// Why sockets are not open, by port.
    problems: BTreeMap<Port, String>,
    open_again: Option<Time>,
    discriminators: Discriminators,
    unknown: Allowance,
    invalid: Allowance,
    /// `None` before the first session.
    scheduling: Option<Scheduling>,
    delay: Delay,
    refused: Option<String>,
    turn: Duration,
}

impl Worker {
    pub(super) fn new(handle: Handle, clock: Clock) -> io::Result<Worker> {
        let now = clock.now();
        let discriminators = Discriminators::new((random()? >> 32) as u32);
        Ok(Worker {
            handle,
            clock,
            sessions: Sessions::new(now, discriminators),
            sender: Sender::new(random()? as u16),
            groups: Vec::new(),
            problems: BTreeMap::new(),
            open_again: None,
            discriminators,
            unknown: Allowance::new(UNKNOWN_RATE, now),
            invalid: Allowance::new(INVALID_RATE, now),
            scheduling: None,
            delay: Delay::default(),
            refused: None,
            turn: TURN_MIN,
        })
    }

    pub(super) fn run(mut self) {
        let mut inboxes = Inboxes::new();
        while !self.handle.0.stopping.load(Ordering::Acquire) {
            let began = self.clock.now();
            self.turn(began, &mut inboxes);
            self.wait(began);
        }
        let now = self.clock.now();
        self.sessions.disable_all(now);
        let sender = &mut self.sender;
        self.sessions.transmit_all(now, &mut |packet| {
            // Sent twice, because lost packets will not be repeated.
            sender.send(&packet);
            sender.send(&packet);
        });
    }

    pub(super) fn turn(&mut self, now: Time, inboxes: &mut Inboxes) {
        if self.take_wishes(now) || self.open_again.is_some_and(|at| at <= now) {
            self.open_groups(now);
        }
        let due = self.sessions.poll_timeout().filter(|due| *due <= now);
        // Before the deadlines: our own delay must not count as a failure of a peer.
        let backlog = self.receive(now, due.is_some(), inboxes);
        let late = due.map_or(Duration::ZERO, |due| now.since(due));
        let detection = self.delay.judge(now, late, backlog);
        let sender = &mut self.sender;
        self.sessions.handle_timeout(now, detection, &mut |packet| sender.send(&packet));
        self.scheduling.into_iter().for_each(|scheduling| self.delay.log(scheduling));
        self.publish();
        self.answer();
    }

    /// Applies the requests of the daemon. Returns whether there were any.
    fn take_wishes(&mut self, now: Time) -> bool {
        let Some(requested) = take(&self.handle.0.requested) else { return false };
        let any = !requested.is_empty();
        if any {
            self.scheduling.get_or_insert_with(|| {
                let scheduling = Scheduling::raise();
                scheduling.log();
                scheduling
            });
            // Before new sessions: they reuse the ids of removed ones, and must not reuse their
            // sockets, which are connected to other peers.
            let sessions = &self.sessions;
            self.sender.retain(|id| sessions.is_alive(id));
        }
        for (owner, wanted) in requested {
            // The kernel's generator does not fail once it is seeded.
            let mut draw = || random().unwrap_or_default();
            if let Err(e) = self.sessions.want(now, owner, wanted, &mut draw) {
                self.refused = Some(e.to_string());
            }
        }
        if any {
            let interval = self.sessions.interval_min().unwrap_or_default();
            self.turn = (interval / TURNS).clamp(TURN_MIN, TURN_MAX);
        }
        any
    }

    /// Opens the sockets that are needed, and closes the others.
    fn open_groups(&mut self, now: Time) {
        self.open_again = None;
        self.problems.clear();
        let ports = self.sessions.ports();
        self.groups.retain(|group| ports.contains(&group.port));
        for port in ports {
            if self.groups.iter().any(|group| group.port == port) {
                continue;
            }
            let is_same = |other: &Port| (other.number, other.family) == (port.number, port.family);
            let is_first = !self.groups.iter().any(|group| is_same(&group.port));
            match Group::open(port.clone(), is_first, self.discriminators) {
                Ok(group) => {
                    info!("BFD listens on {port}");
                    self.groups.push(group);
                }
                Err(e) => self.note_problem(now, port, &e),
            }
        }
    }

    fn note_problem(&mut self, now: Time, port: Port, error: &io::Error) {
        let hint = if error.kind() == io::ErrorKind::AddrInUse {
            "; stop the other BFD daemon (bird with \"protocol bfd\", bfdd, gobgpd)"
        } else {
            ""
        };
        let text = format!("BFD cannot listen on {port}: {error}{hint}");
        warn!("{text}; trying again every {} s", OPEN_RETRY.as_secs());
        self.problems.insert(port, text);
        self.open_again = Some(now + OPEN_RETRY);
    }

    /// `is_due`: a deadline has passed, so that packets of established sessions which arrived since the
    /// last poll are read as well.
    fn receive(&mut self, now: Time, is_due: bool, inboxes: &mut Inboxes) -> Backlog {
        let Worker { groups, sessions, sender, unknown, invalid, .. } = self;
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut take = |arrival: &super::sessions::Arrival, octets: &[u8]| {
            // For a moment after the first socket was opened the kernel does not stamp packets on
            // arrival, but when they are read.
            let is_stamped = arrival.details.is_none() || arrival.stamp < began;
            let stamp = if is_stamped { arrival.stamp } else { Duration::ZERO };
            let arrival = &super::sessions::Arrival { stamp, ..*arrival };
            sessions.handle_datagram(now, arrival, octets, &mut |packet| sender.send(&packet));
        };
        // Whoever is last in this turn is first in a later one: allowances are shared as well.
        let count = groups.len();
        groups.rotate_left(count.min(1));
        // Packets without our discriminator come first: later packets of the same peer have it.
        for group in groups.iter_mut() {
            if is_due {
                group.set_ready(group.established(), true);
            }
            if group.is_sorted() {
                let limit = unknown.available(now);
                let inbox = inboxes.of(group.port.family);
                unknown.spend(group.receive(Class::Unknown, limit, inbox, &mut take));
            }
        }
        let backlog = share_out(KNOWN_MAX, count, |place, limit| {
            let Some(group) = groups.get_mut(place) else { return 0 };
            let inbox = inboxes.of(group.port.family);
            let read = group.receive(group.established(), limit, inbox, &mut take);
            if !group.is_sorted() {
                unknown.spend(read);
            }
            read
        });
        for group in groups.iter_mut() {
            let limit = invalid.available(now);
            let inbox = inboxes.of(group.port.family);
            invalid.spend(group.receive(Class::Invalid, limit, inbox, &mut take));
        }
        backlog
    }

    fn publish(&mut self) {
        let changed = self.sessions.take_changed();
        if !changed.is_empty() {
            lock(&self.handle.0.statuses).extend(changed);
            self.handle.0.status_changed.notify_one();
        }
    }

    fn answer(&mut self) {
        let questions = take(&self.handle.0.questions).unwrap_or_default();
        for reply in questions {
            let view = View {
                sessions: self.sessions.entered(|id, target| {
                    let port = self.problems.get(&target.port());
                    port.cloned().or_else(|| self.sender.fault(id).map(str::to_owned))
                }),
                failures: self.sessions.failures(),
                discards: self.sessions.discards(),
                overflows: self.groups.iter().map(Group::overflows).sum(),
                problems: self.problems.values().chain(&self.refused).cloned().collect(),
                scheduling: self.scheduling,
                late_max: self.delay.longest(),
            };
            // The client may have disconnected.
            let _ = reply.send(view);
        }
    }

    /// Sleeps until a deadline, a packet, or a request.
    ///
    /// While there are sockets, first sleeps for the rest of the turn without polling them, so that
    /// packets are handled together, and so that the thread, which nothing else on its core precedes,
    /// leaves some of the core to others whatever arrives. Classes whose allowance is exhausted are not polled at all, or
    /// their waiting packets would wake the thread at once.
    pub(super) fn wait(&mut self, began: Time) {
        let pause = pause(self.turn, self.clock.now().since(began));
        if !pause.is_zero() && !self.groups.is_empty() {
            let mut fds = [PollFd::new(&self.handle.0.wake, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&timespec(pause)));
        }
        let now = self.clock.now();
        let exhausted = [
            (Class::Unknown, self.unknown.available(now) == 0),
            (Class::Invalid, self.invalid.available(now) == 0),
        ];
        let is_read = |class| !exhausted.contains(&(class, true));
        let mut deadline = self.sessions.poll_timeout().into_iter().chain(self.open_again).min();
        if exhausted.iter().any(|(_, empty)| *empty) {
            let refilled = now + REFILL;
            deadline = Some(deadline.map_or(refilled, |at| at.min(refilled)));
        }
        let timeout = deadline.map(|at| timespec(at.since(now)));
        let mut fds = vec![PollFd::from_borrowed_fd(self.handle.0.wake.as_fd(), PollFlags::IN)];
        let sockets =
            || self.groups.iter().flat_map(Group::sockets).filter(|(class, _)| is_read(*class));
        fds.extend(sockets().map(|(_, fd)| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // A signal may end the wait early, which is harmless.
        let _ = poll(&mut fds, timeout.as_ref());
        let mut ready =
            fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
        drop(fds);
        if ready.next() == Some(true) {
            let _ = rustix::io::read(self.handle.0.wake.as_fd(), &mut [0_u8; 8]);
        }
        for group in &mut self.groups {
            let classes: Vec<Class> = group.sockets().map(|(class, _)| class).collect();
            for class in classes {
                group.set_ready(class, is_read(class) && ready.next() == Some(true));
            }
        }
    }
}

/// Reads about `budget` packets of several groups. `read` reads at most about so many of one, and returns
/// how many; fewer if no more are waiting. Each may read an equal share of what those before it have left,
/// so that a flood at one does not keep the packets of another from being read; what is left in the end is
/// for those that have more.
fn share_out(budget: usize, groups: usize, mut read: impl FnMut(usize, usize) -> usize) -> Backlog {
    let mut left = budget;
    let mut unfinished = Vec::new();
    for place in 0..groups {
        let share = (left / (groups - place)).max(1);
        let count = read(place, share);
        left = left.saturating_sub(count);
        if count >= share {
            unfinished.push(place);
        }
    }
    let mut backlog = Backlog::None;
    for place in unfinished {
        let count = read(place, left);
        if count >= left {
            backlog = Backlog::Left;
        }
        left = left.saturating_sub(count);
    }
    backlog
}

/// How long to rest after a turn that took `took`, which includes the time for which the thread did not
/// run.
fn pause(turn: Duration, took: Duration) -> Duration {
    turn.saturating_sub(took).max(took.min(TURN_MAX))
}

/// Takes what other threads have left; `None` if one of them holds the lock, which it may do while it
/// gets no core. It wakes the thread when it has let go.
fn take<T: Default>(left: &Mutex<T>) -> Option<T> {
    match left.try_lock() {
        Ok(mut left) => Some(std::mem::take(&mut *left)),
        Err(TryLockError::Poisoned(left)) => Some(std::mem::take(&mut *left.into_inner())),
        Err(TryLockError::WouldBlock) => None,
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

fn random() -> io::Result<u64> {
    let mut octets = [0; 8];
    rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of these packets after a turn, how many it read, and how it ended.
    fn turn<const N: usize>(mut waiting: [usize; N]) -> ([usize; N], usize, Backlog) {
        let before: usize = waiting.iter().sum();
        let backlog = share_out(KNOWN_MAX, N, |place, limit| {
            // In batches, as from a socket.
            let read = limit.next_multiple_of(32).min(waiting[place]);
            waiting[place] -= read;
            read
        });
        (waiting, before - waiting.iter().sum::<usize>(), backlog)
    }

    #[test]
    fn all_groups_share_the_packets_of_a_turn() {
        const FLOOD: usize = 100_000;
        assert_eq!(turn([]), ([], 0, Backlog::None));
        assert_eq!(turn([KNOWN_MAX - 1]), ([0], KNOWN_MAX - 1, Backlog::None));
        assert_eq!(turn([FLOOD]), ([FLOOD - KNOWN_MAX], KNOWN_MAX, Backlog::Left));
        assert_eq!(turn([900, 0, 900]), ([0; 3], 1800, Backlog::None));
        for waiting in [[FLOOD, 10, 600], [10, FLOOD, 600], [600, 10, FLOOD]] {
            let (after, read, backlog) = turn(waiting);
            let is_read = |(before, after): (&usize, &usize)| *before == FLOOD || *after == 0;
            assert!(waiting.iter().zip(&after).all(is_read), "{after:?}");
            assert!((KNOWN_MAX..KNOWN_MAX + 6 * 32).contains(&read), "{read}");
            assert_eq!(backlog, Backlog::Left);
        }
        // However many have one.
        let (after, read, backlog) = turn([FLOOD; 40]);
        assert!(after.iter().all(|after| *after < FLOOD) && read < KNOWN_MAX + 40 * 32);
        assert_eq!(backlog, Backlog::Left);
    }
}
