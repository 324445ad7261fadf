//! Characters that text from outside must not bring along.

/// Whether a character turns the direction in which its neighbours are shown: what is read is not what
/// is written.
pub fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
