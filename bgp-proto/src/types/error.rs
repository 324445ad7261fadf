//! Errors in text forms.

/// A text that does not have the expected form. The message names the text and that form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub(crate) String);

impl From<ParseError> for String {
    fn from(error: ParseError) -> String {
        error.0
    }
}
