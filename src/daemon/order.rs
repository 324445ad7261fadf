//! Commands of clients to the daemon's loop.

use super::answer::Order;
use super::{Daemon, Stop};

impl Daemon {
    /// Carries out a command; returns how the daemon is to end, if it is.
    pub(super) fn carry_out(&mut self, order: Order) -> Option<Stop> {
        // Clients may have disconnected: then nobody receives the reply.
        match order {
            Order::Reload(reply) => drop(reply.send(self.reload())),
            Order::ReloadUntil(time, reply) => drop(reply.send(self.reload_until(time))),
            Order::Confirm(reply) => drop(reply.send(self.confirm())),
            Order::Rehearse(reply) => drop(reply.send(self.rehearse())),
            Order::RehearsePlan(order, reply) => drop(reply.send(self.rehearse_plan(order))),
            Order::Drain(order, reply) => drop(reply.send(self.drain(&order))),
            Order::Announce(vrf, prefix, entry, reply) => {
                drop(reply.send(self.announce((vrf.as_deref(), prefix), *entry)));
            }
            Order::Withdraw(vrf, prefix, reply) => {
                drop(reply.send(self.withdraw_announced(vrf.as_deref(), prefix)));
            }
            Order::Stop(stop, reply) => {
                let _ = reply.send(());
                return Some(stop);
            }
        }
        None
    }
}
