//! Characters that text from outside must not contain.

/// Whether a character changes the direction in which its neighbours are displayed, so that the
/// text shown differs from the text written.
pub fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
