//! What is opened for others on this machine or elsewhere, in words: lines of `margay check`.

use std::fmt;

use super::{ControlSettings, HostSettings, MrtPeers, ReadOnlySocket};

/// The control sockets: a line for each.
pub(crate) struct OpenedSockets<'a>(pub(crate) &'a ControlSettings);

impl fmt::Display for OpenedSockets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ControlSettings { socket, group, read_only, .. } = self.0;
        let of_group = |group: &Option<String>| {
            group.as_ref().map(|group| format!(", for group {group}")).unwrap_or_default()
        };
        writeln!(f, "control socket {}{}", socket.display(), of_group(group))?;
        if let Some(ReadOnlySocket { socket, group }) = read_only {
            let whose = match group {
                Some(_) => of_group(group),
                None => ", for every user".to_owned(),
            };
            writeln!(f, "read-only socket {}{whose}", socket.display())?;
        }
        Ok(())
    }
}

/// What is served, recorded and sent: HTTP with the status page, MRT files and monitoring stations; a line
/// for each.
pub(crate) struct OpenedServices<'a>(pub(crate) &'a HostSettings);

impl fmt::Display for OpenedServices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(http) = &self.0.http {
            writeln!(f, "metrics and health on http://{}", http.listen)?;
            if let Some(page) = &http.page {
                let to = if page.token.is_some() { "who has the token" } else { "this machine" };
                writeln!(f, "status page on http://{}/status/ for {to}", http.listen)?;
            }
        }
        if let Some(mrt) = &self.0.mrt {
            let of = match &mrt.updates {
                MrtPeers::None => "of no peer".to_owned(),
                MrtPeers::All => "of all peers".to_owned(),
                MrtPeers::Named(names) => format!("of {}", names.join(", ")),
            };
            write!(f, "MRT files in {}: messages {of}", mrt.directory.display())?;
            match mrt.table_interval {
                Some(interval) => writeln!(f, ", tables every {} s", interval.as_secs())?,
                None => writeln!(f)?,
            }
        }
        for station in &self.0.bmp {
            writeln!(f, "monitoring station {station}")?;
        }
        Ok(())
    }
}
