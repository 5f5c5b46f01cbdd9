//! Network namespaces, and doing something inside one.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, fstatfs, open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` names namespaces.
const NAMED: &str = "/run/netns";
/// The namespace of whoever looks.
const CURRENT: &str = "/proc/thread-self/ns/net";
/// Type of the file system that open namespaces are files of (linux/magic.h).
const NSFS: u64 = 0x6e73_6673;

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
    /// When there is none, it may not be opened, or the file is no namespace: a name under
    /// `/run/netns` whose mount is gone is an empty file.
    pub fn named(name: &str) -> io::Result<Self> {
        let path = path(name)?;
        // Looked at before it is opened, which of a pipe or a device could have consequences.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let looked = open(&path, flags, Mode::empty())?;
        // The field's type differs between machines; a file system's number fits in all.
        #[allow(
            clippy::unnecessary_cast,
            reason = "needed on machines where it is another type"
        )]
        let kind = fstatfs(&looked)?.f_type as u64;
        match kind {
            NSFS => Self::open(&own(&looked), name),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is not a namespace", path.display()),
            )),
        }
    }

    /// The namespace this thread is in.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new(CURRENT), CURRENT)
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

    /// Device and inode.
    pub(super) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Runs `work` on this thread inside the namespace. `work` must not wait for other tasks: the
    /// whole thread is in the namespace meanwhile. A panic in it passes through, out of the
    /// namespace.
    ///
    /// # Errors
    /// When the namespace may not be entered; `work` has not run then.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let home = HERE.with_borrow(Option::clone);
        let home = home.map_or_else(Self::current, Ok)?;
        if home == *self {
            return Ok(work());
        }
        enter(self.file.as_fd())?;
        HERE.set(Some(self.clone()));
        let _way_home = WayHome(home);
        Ok(work())
    }

    /// Moves this thread into the namespace for the rest of its life: for a thread that ends there.
    ///
    /// # Errors
    /// When the namespace may not be entered.
    pub fn settle(&self) -> io::Result<()> {
        if Self::current()? != *self {
            enter(self.file.as_fd())?;
        }
        HERE.set(Some(self.clone()));
        Ok(())
    }
}

thread_local! {
    /// Where this thread is. Nobody else moves a thread that works inside namespaces.
    static HERE: RefCell<Option<Netns>> = const { RefCell::new(None) };
}

/// Brings its thread back when dropped, at the end of the work or while it unwinds.
struct WayHome(Netns);

impl Drop for WayHome {
    fn drop(&mut self) {
        if let Err(e) = enter(self.0.file.as_fd()) {
            // Every later socket of this thread would belong to somebody else's network. There is
            // no going on from there, and no unwinding past it.
            // Not by way of the log, whose lines wait to be written.
            let _last_words = writeln!(
                io::stderr(),
                "cannot return from a network namespace, ending the process: {e}"
            );
            process::abort();
        }
        HERE.set(Some(self.0.clone()));
    }
}

fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Where a descriptor of this process can be opened again.
fn own(descriptor: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

fn path(name: &str) -> io::Result<PathBuf> {
    if name.starts_with('/') {
        return Ok(PathBuf::from(name));
    }
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{name}` is neither a name nor an absolute path"),
        ));
    }
    Ok(Path::new(NAMED).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_file_of_one_directory_or_an_absolute_path() {
        for (name, given, want) in [
            ("a name", "cart", Some("/run/netns/cart")),
            ("a path", "/proc/1/ns/net", Some("/proc/1/ns/net")),
            ("dots in a name", "cart..1", Some("/run/netns/cart..1")),
            ("nothing", "", None),
            ("the directory", ".", None),
            ("its parent", "..", None),
            ("out of it", "../../etc/passwd", None),
            ("below it", "a/b", None),
        ] {
            assert_eq!(path(given).ok().as_deref(), want.map(Path::new), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_no_namespace_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = Netns::named(file.path().to_str().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        // Nobody writes to it: to open it would be to wait for ever.
        let refused = Netns::named(fifo.to_str().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        let missing = Netns::named("/nonexistent/ns").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_namespace_is_itself_by_any_name() {
        let here = Netns::current().unwrap();
        let same = Netns::named("/proc/self/ns/net").unwrap();
        assert_eq!(here, same);
        assert_eq!(same.within(|| 7).unwrap(), 7);
    }
}
