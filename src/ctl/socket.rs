//! Sockets with a name in the file system: bound over what a dead process left, never over a live
//! one's, and gone with their owner.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

/// Pause when connections cannot be accepted, for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Owner and group may ask.
const MODE: u32 = 0o660;

/// Why there is no socket.
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
    /// Binds with mode 0660, making the folder if need be; `key` is what the path is configured by.
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
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => return Err(ServerError::InUse { path: path.to_owned(), key }),
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(e)),
            },
        }
        // Bound under another name and renamed, the socket is never there without its mode.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        let _ = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(failed)?;
        let ready = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(MODE))
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

    /// The next client.
    pub(super) async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client at {}", self.path.display());
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
