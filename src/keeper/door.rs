//! The keeper's socket: who may come in, and that there is one keeper.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, bind, listen};
use rustix::process::{geteuid, umask};

use crate::capture::kept::channel;

/// Name of the socket in the runtime directory.
pub const SOCKET: &str = "keeper.sock";
/// Longest wait for another keeper to end: one whose program was killed is about to.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between looks whether it has.
const LOOK: Duration = Duration::from_millis(5);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// A listening socket that answers one user.
#[derive(Debug)]
pub struct Door {
    socket: OwnedFd,
    caller: u32,
    /// Held for as long as the socket.
    lock: File,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Another keeper has it.
    #[error(
        "another keeper serves {}; stop it, or run the node as the user it serves",
        path.display()
    )]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot make {}", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Door {
    /// Listens in `directory` for processes of user `caller`. Nothing in there is believed, created
    /// or changed beside the socket, since the directory is that user's.
    ///
    /// Blocks for up to 5 s while another keeper is there: to be called before anything runs.
    ///
    /// # Errors
    /// [`DoorError`].
    pub fn open(directory: &Path, caller: u32) -> Result<Self, DoorError> {
        let path = directory.join(SOCKET);
        let lock = lock(directory, &path)?;
        let failed = |source: io::Error| DoorError::Make {
            path: path.clone(),
            source,
        };
        // Nobody listens there any more: the lock is ours.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let socket = bound(&path, caller).map_err(failed)?;
        listen(&socket, BACKLOG).map_err(|e| failed(e.into()))?;
        Ok(Self {
            socket,
            caller,
            lock,
        })
    }

    /// Whom it answers.
    pub(super) fn caller(&self) -> u32 {
        self.caller
    }

    /// The socket and the lock that goes with it.
    pub(super) fn into_parts(self) -> (OwnedFd, File) {
        (self.socket, self.lock)
    }
}

/// Who may come in is decided by who comes, and by the directory. To change the owner or mode of the
/// socket by its path would be to change whatever somebody puts there meanwhile.
fn bound(path: &Path, caller: u32) -> io::Result<OwnedFd> {
    let socket = channel::socket()?;
    let address = SocketAddrUnix::new(path)?;
    if geteuid().as_raw() == caller {
        bind(&socket, &address)?;
        return Ok(socket);
    }
    // To connect takes the right to write.
    let before = umask(Mode::empty());
    let outcome = bind(&socket, &address);
    umask(before);
    outcome?;
    Ok(socket)
}

/// One keeper holds the directory at a time.
fn lock(directory: &Path, socket: &Path) -> Result<File, DoorError> {
    let failed = |source| DoorError::Make {
        path: directory.to_owned(),
        source,
    };
    let file = File::open(directory).map_err(failed)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(LOOK),
            Err(Errno::WOULDBLOCK) => {
                return Err(DoorError::Taken {
                    path: socket.to_owned(),
                });
            }
            Err(e) => return Err(failed(e.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let me = rustix::process::getuid().as_raw();
        drop(Door::open(directory.path(), me).unwrap());
        let path = directory.path().join(SOCKET);
        assert!(path.exists(), "as a keeper that was killed leaves it");
        let _door = Door::open(directory.path(), me).unwrap();
        assert!(channel::Channel::connect(&path).is_ok());
    }

    #[test]
    fn there_is_one_keeper() {
        let directory = tempfile::tempdir().unwrap();
        let me = rustix::process::getuid().as_raw();
        let first = Door::open(directory.path(), me).unwrap();
        let waiting = std::thread::scope(|scope| {
            let second = scope.spawn(|| Door::open(directory.path(), me));
            std::thread::yield_now();
            drop(first);
            second.join().unwrap()
        });
        assert!(waiting.is_ok(), "{waiting:?}");
    }
}
