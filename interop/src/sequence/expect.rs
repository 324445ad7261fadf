//! The expectations of the scenarios, one arm for each wording in the file.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{CANARY, DIALLED, PORT, Run, SHORT_HOLD, SOON, STALE_TIME, WITNESS};
use super::{cpu_ticks, farewell, resident_kib};
use crate::kernel;
use crate::message::{self, HEADER_LEN, KEEPALIVE, KEEPALIVE_TYPE, NOTIFICATION, OPEN, UPDATE};
use crate::wait::{holds_for, wait_until};

/// Tolerance for scenarios in which memory must not grow, in KiB: for allocators, and for code used
/// for the first time.
const MEMORY_SLACK_KIB: u64 = 12 * 1024;
/// The same with 100,000 routes in the table.
const MEMORY_100K_ROUTES_KIB: u64 = 160 * 1024;
/// 203.0.113.0/24 as encoded in a message.
const NLRI: [u8; 4] = [24, 203, 0, 113];

impl Run<'_> {
    /// Checks one expectation. A wording that is not here is an error.
    pub(super) fn expect(&mut self, what: &str) -> Result<()> {
        match what {
            "OPEN" => self.peer.wait_message(self.current, OPEN, 0, SOON).map(drop),
            "KEEPALIVE" => self.peer.wait_message(self.current, KEEPALIVE_TYPE, 0, SOON).map(drop),
            "established" => self.expect_established(),
            "rib has 203.0.113.0/24" => self.expect_route(),
            "rib lacks 203.0.113.0/24" => self.wait_no_route("203.0.113.0/24"),
            "NOTIFICATION 5/1" => self.expect_notification(self.current, &[(5, 1)]).map(drop),
            "NOTIFICATION 5/3" => self.expect_notification(self.current, &[(5, 3)]).map(drop),
            "second OPEN in OpenConfirm: NOTIFICATION 5/2 or collision handling, never crash" => {
                self.expect_notification(self.current, &[(5, 2), (6, 7)]).map(drop)
            }
            "NOTIFICATION 4/0; memory bounded" => {
                self.expect_hold_expiry()?;
                self.expect_memory(MEMORY_SLACK_KIB)
            }
            "hold timer fires: bytes are not messages" => self.expect_hold_expiry(),
            "ConnectRetry with backoff, no busy loop" => self.expect_back_off(),
            "close, no NOTIFICATION in reply" => {
                self.peer.wait_closed(self.current, SOON)?;
                self.expect_no_notification(self.current)
            }
            "close; MAY retry without capability 69" => self.expect_close_and_new_open(),
            "tie broken by larger AS number" => self.expect_our_connection_wins(),
            "new connection closed with 6/7 (or old one replaced only if GR / CollisionDetectEstablishedState is on)" =>
            {
                self.expect_notification(self.id_of(2)?, &[(6, 7)])?;
                self.expect_still_established()
            }
            "old connection dropped silently, new one used, routes kept stale" => {
                self.expect_replaced()
            }
            "session closed, 8/0 logged; memory bounded" => self.expect_send_hold_expiry(),
            "stale routes removed" => self.expect_stale_removed(),
            "ignored, routes kept" => self.expect_refresh_end_ignored(),
            "new hold 3, keepalive 1" => self.expect_new_timers(),
            "NOTIFICATION 6/1 with AFI SAFI limit (7 bytes), then backoff" => {
                self.expect_prefix_limit()
            }
            "no limit hit: count prefixes not updates" => {
                self.barrier()?;
                self.expect_still_established()?;
                let received = &self.scripted()?["prefixes_received"];
                ensure!(*received == 901, "prefixes_received is {received}, not 900 and a barrier");
                Ok(())
            }
            "no memory growth" => {
                self.barrier()?;
                self.expect_still_established()?;
                self.expect_memory(MEMORY_SLACK_KIB)
            }
            "other peers unaffected" => {
                // Every scenario checks at its end that the witness, with a hold time of three
                // seconds, has not flapped.
                self.barrier()?;
                self.expect_still_established()
            }
            "no SYN-ACK, counter visible, no log flood" => self.expect_signature_refused(),
            "rib lacks 203.0.113.0/24; session up; counter +1; withdraw sent to other peers" => {
                self.expect_treated_as_withdraw()
            }
            "re-advertised with flags 0xe0, type 99, same bytes" => self.expect_partial_bit(),
            "NOTIFICATION 6/2, length octet 255, cut on a character boundary if longer" => {
                self.expect_shutdown_communication()
            }
            other => bail!("the interpreter does not know the expectation {other:?}"),
        }
    }

    fn expect_established(&mut self) -> Result<()> {
        self.wait_state("Established")?;
        if self.sequence.mentions("ignored, routes kept") {
            self.announce_canary()?;
        }
        Ok(())
    }

    fn expect_still_established(&self) -> Result<()> {
        ensure!(self.peer.closed(self.current).is_none(), "the connection has ended");
        let state = &self.scripted()?["state"];
        ensure!(*state == "Established", "state is {state}");
        self.expect_no_notification(self.current)
    }

    fn wait_no_route(&self, prefix: &str) -> Result<()> {
        wait_until(SOON, &format!("no path for {prefix}"), || {
            let paths = self.control.paths(prefix)?;
            ensure!(paths.is_empty(), "paths {paths:?}");
            Ok(())
        })
    }

    fn expect_no_notification(&self, id: u64) -> Result<()> {
        let heard = self.peer.heard(id)?;
        let found = heard.iter().find(|m| m.kind == NOTIFICATION);
        ensure!(found.is_none(), "heard {found:?}");
        Ok(())
    }

    /// Expects one of these NOTIFICATIONs, then the end of the connection. Returns the data.
    fn expect_notification(&self, id: u64, any: &[(u8, u8)]) -> Result<Vec<u8>> {
        let (code, subcode, data) = self.peer.wait_notification(id, SOON)?;
        ensure!(any.contains(&(code, subcode)), "NOTIFICATION {code}/{subcode}, not {any:?}");
        self.peer.wait_closed(id, SOON)?;
        Ok(data)
    }

    /// Nothing after the handshake's last message may restart the hold timer.
    fn expect_hold_expiry(&self) -> Result<()> {
        let opened = self.peer.wait_message(self.current, KEEPALIVE_TYPE, 0, SOON)?;
        let ended = self.peer.wait_message(self.current, NOTIFICATION, 0, SOON)?;
        let (code, subcode, _) = message::notification(&ended.bytes)?;
        ensure!((code, subcode) == (4, 0), "NOTIFICATION {code}/{subcode}");
        let took = ended.at.saturating_sub(opened.at);
        let slack = Duration::from_millis(1500);
        ensure!(
            took + slack / 3 >= SHORT_HOLD && took <= SHORT_HOLD + slack,
            "the hold timer fired after {took:?}"
        );
        self.peer.wait_closed(self.current, SOON)?;
        wait_until(SOON, "last_error", || {
            self.control.expect_last_error(self.peer_host.v4(), "sent", 4, 0)
        })
    }

    fn expect_memory(&self, slack_kib: u64) -> Result<()> {
        let now = resident_kib(&self.daemon)?;
        let limit = self.memory_before + slack_kib;
        ensure!(now <= limit, "resident memory went from {} to {now} KiB", self.memory_before);
        Ok(())
    }

    fn expect_back_off(&self) -> Result<()> {
        let ticks = cpu_ticks(&self.daemon)?;
        std::thread::sleep(Duration::from_secs(9));
        let mut times = Vec::new();
        for id in DIALLED..DIALLED + 100 {
            let events = self.peer.events(id)?;
            times.extend(
                events.iter().filter(|e| e["event"] == "reset").filter_map(|e| e["at_ms"].as_u64()),
            );
        }
        // A first attempt, then waits of 1 s and more that grow: with 1 s each there would be nine.
        ensure!((2..=8).contains(&times.len()), "{} attempts at {times:?}", times.len());
        let gap = |pair: &[u64]| pair[1].saturating_sub(pair[0]);
        let shortest = times.windows(2).map(gap).min().context("one attempt")?;
        ensure!(shortest >= 500, "attempts {shortest} ms apart: {times:?}");
        let used = cpu_ticks(&self.daemon)?.saturating_sub(ticks);
        ensure!(used < 100, "{used} hundredths of a second of processor time in nine seconds");
        Ok(())
    }

    fn expect_close_and_new_open(&mut self) -> Result<()> {
        self.peer.wait_closed(self.current, SOON)?;
        self.expect_no_notification(self.current)?;
        // After the back-off that follows an error, a new connection is answered.
        let mut id = 1000;
        wait_until(Duration::from_secs(20), "an OPEN on a new connection", || {
            id += 1;
            self.peer.connect(id, self.margay_host.v4(), PORT)?;
            let open = message::open(self.sequence.peer_as, 90, self.peer_host.router_id(), &[])?;
            self.peer.send(id, &open)?;
            self.peer.wait_message(id, OPEN, 0, Duration::from_secs(2)).map(drop)
        })
    }

    /// The identifiers are equal and our AS (65001) is larger: the connection that margay opened is
    /// kept (RFC 6286 §2.3).
    fn expect_our_connection_wins(&mut self) -> Result<()> {
        self.expect_notification(DIALLED, &[(6, 7)])?;
        self.peer.wait_message(self.current, KEEPALIVE_TYPE, 0, SOON)?;
        self.peer.send(self.current, &KEEPALIVE)?;
        self.wait_state("Established")?;
        self.expect_still_established()
    }

    fn expect_replaced(&mut self) -> Result<()> {
        let (old, new) = (self.current, self.id_of(2)?);
        self.peer.wait_message(new, OPEN, 0, SOON)?;
        self.peer.wait_message(new, KEEPALIVE_TYPE, 0, SOON)?;
        self.peer.wait_closed(old, SOON)?;
        self.expect_no_notification(old)?;
        self.wait_stale(CANARY)?;
        self.peer.send(new, &KEEPALIVE)?;
        self.wait_state("Established")?;
        self.wait_stale(CANARY)?;
        // End-of-RIB without the route: it is removed.
        self.peer.send(new, &message::end_of_rib()?)?;
        self.wait_no_route(CANARY)
    }

    fn expect_send_hold_expiry(&self) -> Result<()> {
        wait_until(Duration::from_secs(40), "the send hold timer to expire", || {
            let peer = self.scripted()?;
            ensure!(peer["state"] != "Established", "still up");
            Ok(())
        })?;
        let error = self.scripted()?["last_error"].clone();
        ensure!(error["code"] == 8 && error["subcode"] == 0, "last_error is {error}");
        self.expect_memory(MEMORY_100K_ROUTES_KIB)
    }

    fn expect_stale_removed(&self) -> Result<()> {
        wait_until(STALE_TIME + Duration::from_secs(3), "the stale path to go", || {
            let paths = self.control.paths(CANARY)?;
            ensure!(paths.is_empty(), "paths {paths:?}");
            Ok(())
        })?;
        self.expect_still_established()
    }

    fn expect_refresh_end_ignored(&self) -> Result<()> {
        holds_for(Duration::from_secs(1), "the route and the session", || {
            ensure!(self.control.paths(CANARY)?.len() == 1, "the route is gone");
            self.expect_still_established()
        })
    }

    fn expect_new_timers(&mut self) -> Result<()> {
        let confirmed = self.peer.wait_message(self.current, KEEPALIVE_TYPE, 0, SOON)?;
        self.peer.send(self.current, &KEEPALIVE)?;
        self.peer.keep_alive(self.current, Duration::from_millis(900))?;
        self.wait_state("Established")?;
        let peer = self.scripted()?;
        ensure!(
            peer["hold_time"] == 3 && peer["keepalive_time"] == 1,
            "hold {} keepalive {}",
            peer["hold_time"],
            peer["keepalive_time"]
        );
        let third = self.peer.wait_message(self.current, KEEPALIVE_TYPE, 3, SOON)?;
        let took = third.at.saturating_sub(confirmed.at);
        ensure!(took <= Duration::from_millis(4000), "three KEEPALIVEs took {took:?}");
        Ok(())
    }

    fn expect_prefix_limit(&mut self) -> Result<()> {
        let data = self.expect_notification(self.current, &[(6, 1)])?;
        ensure!(data == [0, 1, 1, 0, 0, 3, 232], "data {data:?}");
        // Connects again at once, as a neighbour does whose fault persists.
        let open = message::open(self.sequence.peer_as, 90, self.peer_host.router_id(), &[])?;
        if self.peer.connect(2000, self.margay_host.v4(), PORT).is_ok() {
            self.peer.send(2000, &open)?;
            self.peer.send(2000, &KEEPALIVE)?;
        }
        holds_for(Duration::from_secs(2), "the back-off", || {
            let state = &self.scripted()?["state"];
            ensure!(*state != "Established", "the session came back at once");
            Ok(())
        })
    }

    fn expect_signature_refused(&self) -> Result<()> {
        let signer = self.signer.as_ref().context("no neighbour with a wrong key")?;
        wait_until(SOON, "TCPMD5Failure to grow", || {
            let count = kernel::counter(&self.margay_host, "TcpExt", "TCPMD5Failure")?;
            ensure!(count > 0, "still 0");
            Ok(())
        })?;
        let lines = self.daemon.output().lines().count();
        holds_for(Duration::from_secs(5), "no connection", || {
            let state = signer.state(self.margay_host.v4())?;
            ensure!(state != "OpenSent" && state != "Established", "BIRD's state is {state}");
            Ok(())
        })?;
        let more = self.daemon.output().lines().count().saturating_sub(lines);
        ensure!(more <= 5, "{more} lines in the log in five seconds");
        Ok(())
    }

    fn expect_treated_as_withdraw(&self) -> Result<()> {
        self.wait_no_route("203.0.113.0/24")?;
        self.expect_still_established()?;
        let peer = self.control.json(&["show", "peer", "scripted"])?;
        let count = find_key(&peer, "treated_as_withdraw").context("no treated_as_withdraw")?;
        ensure!(*count == 1, "treated_as_withdraw is {count}");
        let withdrawn = [&[0, 4][..], &NLRI].concat();
        self.wait_witness("the withdrawal", |body| body.starts_with(&withdrawn))
    }

    /// Expects the route in the table. If the scenario checks its withdrawal at other peers, waits
    /// until they have received it: two changes in quick succession may be advertised as the last
    /// one only.
    fn expect_route(&self) -> Result<()> {
        self.wait_route("203.0.113.0/24")?;
        if self.sequence.mentions("withdraw sent to other peers") {
            self.wait_witness("the route", |body| body.ends_with(&NLRI))?;
        }
        Ok(())
    }

    /// Waits until the witness has received an UPDATE whose body matches.
    fn wait_witness(&self, what: &str, is_it: impl Fn(&[u8]) -> bool) -> Result<()> {
        wait_until(SOON, &format!("the witness to hear {what}"), || {
            let heard = self.witness.heard(WITNESS)?;
            let mut updates = heard.iter().filter(|m| m.kind == UPDATE);
            let found = updates.any(|m| is_it(&m.bytes[HEADER_LEN..]));
            ensure!(found, "not in {} messages", heard.len());
            Ok(())
        })
    }

    fn expect_partial_bit(&self) -> Result<()> {
        let wanted = [0xe0, 0x63, 0x02, 0x01, 0x02];
        wait_until(SOON, "attribute 99 at the witness", || {
            let heard = self.witness.heard(WITNESS)?;
            let found = heard
                .iter()
                .any(|m| m.kind == UPDATE && m.bytes.windows(wanted.len()).any(|w| w == wanted));
            ensure!(found, "not in {} messages", heard.len());
            Ok(())
        })
    }

    fn expect_shutdown_communication(&self) -> Result<()> {
        let data = self.expect_notification(self.current, &[(6, 2)])?;
        let (len, text) = data.split_first().context("no shutdown communication")?;
        ensure!(usize::from(*len) == text.len(), "length octet {len}, {} octets", text.len());
        let text = std::str::from_utf8(text).context("cut inside a character")?;
        ensure!(*len == 255 && text == farewell(), "length {len}, text {text:?}");
        Ok(())
    }
}

/// The first value of this key anywhere inside.
fn find_key<'a>(value: &'a serde_json::Value, key: &str) -> Option<&'a serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => {
            map.get(key).or_else(|| map.values().find_map(|v| find_key(v, key)))
        }
        serde_json::Value::Array(list) => list.iter().find_map(|v| find_key(v, key)),
        _ => None,
    }
}
