//! Runs of routes: neighbouring prefixes of a list with equal paths.
//!
//! The paths of a run are written as text once. As items, they are repeated for each prefix; as lines
//! `{"run":{"prefixes":[…],"paths":[…]}}`, the client does that, and the daemon writes and sends a
//! fraction of the octets.

use std::fmt::Write as _;
use std::io::Write as _;

use bgp_proto::table::RouteRun;
use bgp_proto::types::Prefix;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::protocol::unwritable;
use super::view::path;
use super::{Cursor, Names, Page, Refusal, Request, RouteForm};

/// Prefixes with equal paths, as they are sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    /// The prefixes, in their order.
    pub prefixes: Vec<Prefix>,
    /// The paths of each of them: a list of [`super::item::Path`].
    pub paths: Box<RawValue>,
}

/// What is before the prefixes on the line of a [`super::Reply::Run`], between them, and after the paths.
const RUN_BEGINS: &[u8] = b"{\"run\":{\"prefixes\":[\"";
const PATHS_BEGIN: &str = "\"],\"paths\":";
const BETWEEN: &str = "\",\"";
const RUN_ENDS: &[u8] = b"}}\n";

/// A page of routes.
///
/// # Errors
/// A route cannot be serialised as JSON.
pub fn route_page(
    runs: &[RouteRun],
    form: RouteForm,
    names: &impl Names,
    next: Option<Cursor>,
) -> Result<Page, Refusal> {
    let mut page = Page::new::<super::item::Route>([], next)?;
    let mut text = Vec::new();
    for run in runs {
        let paths: Vec<_> = run.paths.iter().map(|view| path(view, names)).collect();
        text.clear();
        serde_json::to_writer(&mut text, &paths).map_err(|e| unwritable(&e))?;
        match form {
            RouteForm::Items => {
                let each = b"{\"item\":{\"prefix\":\"\",\"paths\":}}\n".len() + 18 + text.len();
                page.write(run.prefixes.len(), each * run.prefixes.len(), |lines| {
                    for prefix in &run.prefixes {
                        lines.extend_from_slice(b"{\"item\":{\"prefix\":\"");
                        push_prefix(lines, *prefix);
                        lines.extend_from_slice(b"\",\"paths\":");
                        lines.extend_from_slice(&text);
                        lines.extend_from_slice(RUN_ENDS);
                    }
                });
            }
            RouteForm::Runs => page.write(run.prefixes.len(), 0, |lines| {
                lines.extend_from_slice(RUN_BEGINS);
                for (at, prefix) in run.prefixes.iter().enumerate() {
                    lines.extend_from_slice(if at > 0 { BETWEEN.as_bytes() } else { b"" });
                    push_prefix(lines, *prefix);
                }
                lines.extend_from_slice(PATHS_BEGIN.as_bytes());
                lines.extend_from_slice(&text);
                lines.extend_from_slice(RUN_ENDS);
            }),
        }
    }
    Ok(page)
}

/// Writes a prefix as its `Display` does. A list of routes has millions of them, almost all of IPv4.
fn push_prefix(out: &mut Vec<u8>, prefix: Prefix) {
    let Prefix::V4(v4) = prefix else {
        // Writing to memory cannot fail.
        let _ = write!(out, "{prefix}");
        return;
    };
    for (at, octet) in v4.addr().octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        push_number(out, octet);
    }
    out.push(b'/');
    push_number(out, v4.len());
}

fn push_number(out: &mut Vec<u8>, number: u8) {
    if number >= 100 {
        out.push(b'0' + number / 100);
    }
    if number >= 10 {
        out.push(b'0' + number / 10 % 10);
    }
    out.push(b'0' + number % 10);
}

impl Request {
    /// The same request for routes in runs; `None` if it asks for anything else.
    pub fn in_runs(&self) -> Option<Request> {
        let mut request = self.clone();
        match &mut request {
            Request::ShowRoutes { select, .. }
            | Request::ShowReceived { select, .. }
            | Request::ShowAdvertised { select, .. } => select.form = RouteForm::Runs,
            _ => return None,
        }
        Some(request)
    }
}

/// The prefixes and the paths of the run on a line, if the line has the form in which [`route_page`]
/// writes it; other lines are any [`super::Reply`].
pub fn run_of(line: &[u8]) -> Option<(impl Iterator<Item = &str>, &str)> {
    let text = line.strip_prefix(RUN_BEGINS)?.strip_suffix(RUN_ENDS)?;
    let (prefixes, paths) = std::str::from_utf8(text).ok()?.split_once(PATHS_BEGIN)?;
    Some((prefixes.split(BETWEEN), paths))
}

/// Passes the items of a run to `each`, one after the other, as they are sent to those who do not ask for
/// runs. `item` is where they are written.
///
/// # Errors
/// That of `each`.
pub fn each_item<E>(
    prefixes: impl IntoIterator<Item: std::fmt::Display>,
    paths: &str,
    item: &mut String,
    mut each: impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    prefixes.into_iter().try_for_each(|prefix| {
        item.clear();
        // Writing to memory cannot fail.
        let _ = write!(item, "{{\"prefix\":\"{prefix}\",\"paths\":{paths}}}");
        each(item)
    })
}
