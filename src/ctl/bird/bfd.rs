//! `show bfd sessions`.

use super::model::BfdRow;
use super::reply::{BFD_SESSION, OK, Refusal, Reply, SYNTAX};
use super::when::Clock;

/// The name of the protocol: BIRD's default for the first BFD protocol.
const NAME: &str = "bfd1";

/// Writes the sessions. `name` is the protocol that was asked for, if any.
pub(super) fn sessions(
    reply: &mut Reply,
    name: Option<&str>,
    rows: Option<&[BfdRow]>,
    clock: &Clock,
) -> Result<(), Refusal> {
    let Some(rows) = rows else {
        return Err(Refusal::new(SYNTAX, "There is no BFD protocol running"));
    };
    if let Some(other) = name.filter(|name| *name != NAME) {
        return Err(Refusal::new(SYNTAX, format!("{other} is not a BFD protocol")));
    }
    reply.line(BFD_SESSION, format_args!("{NAME}:"));
    reply.line(
        BFD_SESSION,
        format_args!(
            "{:<25} {:<10} {:<10} {:<10}  {:>8} {:>8}",
            "IP address", "Interface", "State", "Since", "Interval", "Timeout"
        ),
    );
    for row in rows {
        let seconds = |time: std::time::Duration| {
            format!("{:>3}.{:03}", time.as_secs(), time.subsec_millis())
        };
        reply.line(
            BFD_SESSION,
            format_args!(
                "{:<25} {:<10} {:<10} {:<10}  {}  {}",
                row.address.to_string(),
                row.interface.as_deref().unwrap_or("---"),
                row.state.to_string(),
                clock.short(row.since),
                seconds(row.interval),
                seconds(row.timeout)
            ),
        );
    }
    reply.end(OK, format_args!(""));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use bgp_proto::bfd::State;

    use super::*;

    fn row(address: &str, interface: Option<&str>, state: State, millis: u64) -> BfdRow {
        BfdRow {
            address: address.parse().unwrap(),
            interface: interface.map(str::to_owned),
            state,
            since: SystemTime::now(),
            interval: Duration::from_millis(millis),
            timeout: Duration::from_millis(3 * millis),
        }
    }

    #[test]
    fn columns_are_formatted_as_in_bird() {
        let clock = Clock::host();
        let rows = [
            row("10.0.0.2", Some("eth0"), State::Up, 300),
            row("2001:db8:1111:2222:3333:4444:5555:6666", None, State::AdminDown, 1000),
        ];
        let mut reply = Reply::default();
        sessions(&mut reply, Some("bfd1"), Some(&rows), &clock).unwrap();
        let since = clock.short(rows[0].since);
        let expected = format!(
            "1020-bfd1:\n\
             \x20IP address                Interface  State      Since       Interval  Timeout\n\
             \x2010.0.0.2                  eth0       Up         {since:<10}    0.300    0.900\n\
             \x202001:db8:1111:2222:3333:4444:5555:6666 ---        AdminDown  {since:<10}    1.000    3.000\n\
             0000 \n"
        );
        assert_eq!(String::from_utf8(reply.take()).unwrap(), expected);
    }

    #[test]
    fn missing_protocols_are_refused() {
        let clock = Clock::host();
        let refusal = |name: Option<&str>, rows: Option<&[BfdRow]>| {
            sessions(&mut Reply::default(), name, rows, &clock).unwrap_err()
        };
        assert_eq!(refusal(None, None).text, "There is no BFD protocol running");
        assert_eq!(refusal(Some("x"), Some(&[])).text, "x is not a BFD protocol");
    }
}
