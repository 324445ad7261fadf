//! What is wrong with a text.

/// A text that is not what it should be. Printed, it names the text and the form that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub(super) String);

impl From<ParseError> for String {
    fn from(error: ParseError) -> String {
        error.0
    }
}
