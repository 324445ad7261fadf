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

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ServerError {
    #[error("another process is listening on {}; stop it, or set another {key}", path.display())]
    InUse { path: PathBuf, key: &'static str },
    #[error("{} is not a socket; remove it, or set another {key}", path.display())]
    NotASocket { path: PathBuf, key: &'static str },
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
    /// Binds with mode 0660, and creates the folder if necessary; `key` is the configuration key of
    /// the path, for errors.
    pub(super) fn bind(path: &Path, key: &'static str) -> Result<Socket, ServerError> {
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
        let ready = open_to_group(&fresh)
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

/// Sets [`MODE`] on the socket at `path`, but not on anything that another process puts in its
/// place.
fn open_to_group(path: &Path) -> io::Result<()> {
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    let found = File::from(found);
    if !found.metadata()?.file_type().is_socket() {
        return Err(io::Error::other("another process has replaced it"));
    }
    // `fchmod` does not work on an O_PATH descriptor, but `chmod` through /proc does.
    let same = format!("/proc/self/fd/{}", found.as_raw_fd());
    std::fs::set_permissions(same, std::fs::Permissions::from_mode(MODE))
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
        assert!(open_to_group(&link).is_err());
        assert_eq!(std::fs::metadata(&victim).unwrap().mode() & 0o777, 0o600);
        let socket = folder.join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        open_to_group(&socket).unwrap();
        assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, MODE);
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
        let refused = Socket::bind(&path, "control.socket").unwrap_err();
        assert!(matches!(refused, ServerError::InUse { .. }), "{refused}");
        assert!(began.elapsed() < Duration::from_secs(5));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
