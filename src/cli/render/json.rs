//! Replies as JSON.

use std::io::{self, Write};

use crate::cli::client::ClientError;
use crate::ctl::{Request, RouteSelection};

/// How the items of a reply are written as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The only item.
    Value,
    List,
    /// One item per line, each at once.
    Lines,
}

/// Prints the items of a reply as JSON, unchanged: as one value, one list, or lines.
pub(in crate::cli) struct JsonWriter<W> {
    out: W,
    form: Form,
    items: u64,
}

impl<W: Write> JsonWriter<W> {
    /// A writer for the reply to `request`.
    pub(in crate::cli) fn new(request: &Request, out: W) -> Self {
        let is_list = matches!(
            request,
            Request::ShowPeers
                | Request::ShowPeersIn { .. }
                | Request::ShowRoutes { select: RouteSelection { count: false, .. }, .. }
                | Request::ShowReceived { select: RouteSelection { count: false, .. }, .. }
                | Request::ShowAdvertised { select: RouteSelection { count: false, .. }, .. }
                | Request::ShowFib { select: RouteSelection { count: false, .. } }
                | Request::ShowGroups
                | Request::ShowNexthops { .. }
                | Request::ShowBfd
                | Request::ShowBmp
                | Request::ShowKeyChains
                | Request::ShowConfig
                | Request::Events { follow: false, .. }
                | Request::Peer { .. }
                | Request::Debug { .. }
                | Request::ShowDebug
                | Request::Withdraw { .. }
                | Request::ShowAnnounced
        );
        let form = match request {
            Request::Events { follow: true, .. } => Form::Lines,
            _ if is_list => Form::List,
            _ => Form::Value,
        };
        JsonWriter { out, form, items: 0 }
    }

    /// Writes the next item.
    ///
    /// # Errors
    /// It cannot be written.
    pub(in crate::cli) fn item(&mut self, item: &str) -> Result<(), ClientError> {
        let before = match (self.form, self.items) {
            (Form::Value | Form::Lines, _) => "",
            (Form::List, 0) => "[\n",
            (Form::List, _) => ",\n",
        };
        self.items += 1;
        self.write(before, item)?;
        if self.form == Form::Lines {
            self.write("", "\n")?;
            self.out.flush().map_err(ClientError::Output)?;
        }
        Ok(())
    }

    /// Ends the list.
    ///
    /// # Errors
    /// It cannot be written.
    pub(in crate::cli) fn finish(mut self) -> Result<(), ClientError> {
        let end = match (self.form, self.items) {
            (Form::Value, _) => "\n",
            (Form::List, 0) => "[]\n",
            (Form::List, _) => "\n]\n",
            (Form::Lines, _) => "",
        };
        self.write("", end)?;
        self.out.flush().map_err(ClientError::Output)
    }

    fn write(&mut self, before: &str, text: &str) -> Result<(), ClientError> {
        let written: io::Result<()> = self
            .out
            .write_all(before.as_bytes())
            .and_then(|()| self.out.write_all(text.as_bytes()));
        written.map_err(ClientError::Output)
    }
}
