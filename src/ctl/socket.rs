//! Sockets with a path in the file system: they replace the socket of a dead process, never that of
//! a live one, and are removed when dropped.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

use crate::client_slots::ClientSlots;

/// Pause after a connection could not be accepted, for lack of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(20);
/// Owner and group may connect.
const MODE: u32 = 0o660;
/// Every user may connect.
const MODE_ALL: u32 = 0o666;

/// Who may connect, beside the user of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenTo<'a> {
    /// The group of this process.
    OwnGroup,
    /// A group, by name or number.
    Group(&'a str),
    /// Every user of this machine.
    Everyone,
}

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ServerError {
    #[error("another process is listening on {}; stop it, or set another {key}", path.display())]
    InUse { path: PathBuf, key: &'static str },
    #[error("{} is not a socket; remove it, or set another {key}", path.display())]
    NotASocket { path: PathBuf, key: &'static str },
    #[error("the socket {} cannot be given to group {group}: {why}", path.display())]
    Group { path: PathBuf, group: String, why: String },
    #[error("cannot make the socket {} ({key}): {source}", path.display())]
    Io { path: PathBuf, key: &'static str, source: io::Error },
}

/// A bound socket. Dropping it removes the file, unless another process has replaced it.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Binds with mode 0660, or 0666 for everyone, and creates the folder if necessary; `key` is the
    /// configuration key of the path, for errors.
    pub(super) fn bind(
        path: &Path,
        key: &'static str,
        access: OpenTo<'_>,
    ) -> Result<Socket, ServerError> {
        let (mode, group) = match access {
            OpenTo::OwnGroup => (MODE, None),
            OpenTo::Everyone => (MODE_ALL, None),
            OpenTo::Group(name) => {
                let found = group_number(name, Path::new(GROUPS));
                (MODE, Some(found.map_err(|why| given_to(path, name, why))?))
            }
        };
        let failed = |source| ServerError::Io { path: path.to_owned(), key, source };
        match std::fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder).map_err(failed)?;
                }
            }
            Err(e) => return Err(failed(e)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ServerError::NotASocket { path: path.to_owned(), key });
            }
            Ok(_) => match connect(path, Duration::ZERO) {
                // A process that accepts no connections at the moment is alive all the same.
                Ok(_) => return Err(ServerError::InUse { path: path.to_owned(), key }),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(ServerError::InUse { path: path.to_owned(), key });
                }
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(e)),
            },
        }
        // Bound under another name and then renamed, so that the path never has another mode.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        let _ = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(failed)?;
        if let (Some(number), OpenTo::Group(name)) = (group, access)
            && let Err(error) = std::os::unix::fs::lchown(&fresh, None, Some(number))
        {
            let _ = std::fs::remove_file(&fresh);
            let why = format!("{error}; it needs CAP_CHOWN, or to be a group of margay's user");
            return Err(given_to(path, name, why));
        }
        let ready = open_to(&fresh, mode)
            .and_then(|()| std::fs::rename(&fresh, path))
            .and_then(|()| std::fs::symlink_metadata(path));
        match ready {
            Ok(metadata) => Ok(Socket { listener, path: path.to_owned(), inode: metadata.ino() }),
            Err(e) => {
                let _ = std::fs::remove_file(&fresh);
                Err(failed(e))
            }
        }
    }

    /// Accepts the next client. If descriptors run out, disconnects a client of `slots`.
    pub(super) async fn accept(&self, slots: &mut ClientSlots) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client at {}", self.path.display());
                    slots.make_room();
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

/// Connects. If the owner's queue of connections is full, waits for `limit` at most; zero: does not
/// wait.
///
/// # Errors
/// No process is listening, access is denied, or the queue is full (`WouldBlock`).
pub(crate) fn connect(path: &Path, limit: Duration) -> io::Result<std::os::unix::net::UnixStream> {
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    match limit {
        Duration::ZERO => socket.set_nonblocking(true)?,
        // For Unix sockets, SO_SNDTIMEO also limits `connect`.
        limit => socket.set_write_timeout(Some(limit))?,
    }
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// Where groups are listed.
const GROUPS: &str = "/etc/group";

fn given_to(path: &Path, group: &str, why: String) -> ServerError {
    ServerError::Group { path: path.to_owned(), group: group.to_owned(), why }
}

/// The number of a group, given by name or number. Of names, only those in the file `groups` are known:
/// a static program cannot ask other services.
fn group_number(group: &str, groups: &Path) -> Result<u32, String> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let text = std::fs::read_to_string(groups)
        .map_err(|error| format!("{} cannot be read: {error}", groups.display()))?;
    let number = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(group);
        fields.nth(1).filter(|_| is_it)?.parse().ok()
    });
    number.ok_or_else(|| format!("{} has no such group; write its number", groups.display()))
}

/// Sets the mode of the socket at `path`, but not of anything that another process puts in its place.
fn open_to(path: &Path, mode: u32) -> io::Result<()> {
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    let found = File::from(found);
    if !found.metadata()?.file_type().is_socket() {
        return Err(io::Error::other("another process has replaced it"));
    }
    // `fchmod` does not work on an O_PATH descriptor, but `chmod` through /proc does.
    let same = format!("/proc/self/fd/{}", found.as_raw_fd());
    std::fs::set_permissions(same, std::fs::Permissions::from_mode(mode))
}

impl Drop for Socket {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("mg-socket-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_symbolic_link_in_place_of_the_socket_is_not_followed() {
        let folder = folder("link");
        let (victim, link) = (folder.join("victim"), folder.join("link"));
        std::fs::write(&victim, "").unwrap();
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(open_to(&link, MODE).is_err());
        assert_eq!(std::fs::metadata(&victim).unwrap().mode() & 0o777, 0o600);
        let socket = folder.join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        open_to(&socket, MODE).unwrap();
        assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, MODE);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn groups_are_known_by_name_and_by_number() {
        let folder = folder("groups");
        let file = folder.join("group");
        std::fs::write(&file, "root:x:0:\nnetops:x:1234:ann,bob\nbroken\nnet:x::\n").unwrap();
        assert_eq!(group_number("netops", &file), Ok(1234));
        assert_eq!(group_number("77", &file), Ok(77));
        for unknown in ["ann", "net", "broken", "netop", ""] {
            let why = group_number(unknown, &file).unwrap_err();
            assert!(why.contains("no such group"), "{unknown}: {why}");
        }
        assert!(group_number("x", &folder.join("none")).unwrap_err().contains("cannot be read"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// A daemon that hangs, with a queue of connections that probes have filled.
    #[tokio::test]
    async fn neither_clients_nor_a_second_daemon_wait_for_an_owner_that_hangs() {
        let folder = folder("full");
        let path = folder.join("socket");
        let stuck = RawSocket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        stuck.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        stuck.listen(1).unwrap();
        let mut waiting = Vec::new();
        let full = loop {
            match connect(&path, Duration::ZERO) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let began = std::time::Instant::now();
        assert!(connect(&path, Duration::from_millis(100)).is_err());
        let refused = Socket::bind(&path, "control.socket", OpenTo::OwnGroup).unwrap_err();
        assert!(matches!(refused, ServerError::InUse { .. }), "{refused}");
        assert!(began.elapsed() < Duration::from_secs(5));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
