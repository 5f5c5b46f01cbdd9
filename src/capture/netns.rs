//! Network namespaces, and doing something inside one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tracing::error;

/// Where `ip netns` names namespaces.
const NAMED: &str = "/run/netns";

/// An open network namespace. It lives as long as this is held, whatever becomes of its name.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
    name: Arc<str>,
    /// Device and inode: what a namespace is, whatever it is called.
    identity: (u64, u64),
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Netns {}

impl Netns {
    /// The namespace of this name under `/run/netns`, or at this absolute path.
    ///
    /// # Errors
    /// When there is none, or it may not be opened.
    pub fn named(name: &str) -> io::Result<Self> {
        let path = match name.starts_with('/') {
            true => PathBuf::from(name),
            false => Path::new(NAMED).join(name),
        };
        Self::open(&path, name)
    }

    /// The namespace this thread is in.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"), "current")
    }

    fn open(path: &Path, name: &str) -> io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        Ok(Self {
            file: Arc::new(file),
            name: Arc::from(name),
            identity: (meta.dev(), meta.ino()),
        })
    }

    /// What it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on this thread inside the namespace. `work` must not wait for other tasks: the
    /// whole thread is in the namespace meanwhile.
    ///
    /// # Errors
    /// When the namespace may not be entered; `work` has not run then.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let home = Self::current()?;
        if home == *self {
            return Ok(work());
        }
        enter(self.file.as_fd())?;
        let result = work();
        if let Err(e) = enter(home.file.as_fd()) {
            // Every later socket of this thread would belong to somebody else's network. There
            // is no going on from there, and no unwinding past it.
            error!(error = %e, "cannot return from a network namespace, ending the process");
            process::abort();
        }
        Ok(result)
    }
}

fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    Ok(())
}
