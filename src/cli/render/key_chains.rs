//! `show key-chains`.

use super::table::{Align, Cell};
use crate::ctl::item::{ChainKey, ChainKeyState};

use Align::{Left, Right};

pub(super) const COLUMNS: [(&str, Align); 7] = [
    ("CHAIN", Left),
    ("KEY", Left),
    ("ALGORITHM", Left),
    ("STATE", Left),
    ("SEND", Left),
    ("ACCEPT", Left),
    ("PEERS", Right),
];

pub(super) fn row(key: &ChainKey) -> Vec<Cell> {
    let state = match key.state {
        ChainKeyState::Preferred => "preferred",
        ChainKeyState::Live => "live",
        ChainKeyState::Waiting => "waiting",
        ChainKeyState::Over => "over",
    };
    vec![
        key.chain.clone().into(),
        format!("{}/{}", key.id, key.receive_id).into(),
        key.algorithm.clone().into(),
        state.to_owned().into(),
        lifetime(&key.send_from, &key.send_until).into(),
        lifetime(&key.accept_from, &key.accept_until).into(),
        key.peers.to_string().into(),
    ]
}

fn lifetime(from: &Option<String>, until: &Option<String>) -> String {
    match (from, until) {
        (None, None) => "always".to_owned(),
        (Some(from), None) => format!("from {from}"),
        (None, Some(until)) => format!("until {until}"),
        (Some(from), Some(until)) => format!("{from} until {until}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_say_what_is_open() {
        let time = |text: &str| Some(text.to_owned());
        assert_eq!(lifetime(&None, &None), "always");
        assert_eq!(lifetime(&time("a"), &None), "from a");
        assert_eq!(lifetime(&None, &time("b")), "until b");
        assert_eq!(lifetime(&time("a"), &time("b")), "a until b");
    }
}
