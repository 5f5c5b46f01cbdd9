//! What the service manager that started this process is told of it, and tells it: sd_notify(3),
//! the watchdog of systemd.service(5) and the credentials of systemd.exec(5).
//!
//! Where nobody started it as a service there is no [`Manager`], and nothing of this happens. The
//! protocol is a datagram of lines to a socket, so no library is between: what one would add is
//! what is not used here.

pub mod herald;
pub mod pulse;
pub mod upkeep;

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::debug;

pub use herald::{Herald, Phase, State};
pub use pulse::Pulse;
pub use upkeep::Upkeep;

/// Longest status told: of more, `systemctl status` shows nothing that helps.
const STATUS: usize = 512;

/// Something to tell the service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The start is over, or a reload.
    Ready,
    /// How it is, for `systemctl status`.
    Status(String),
    /// The settings are being read again; [`Word::Ready`] ends it.
    Reloading,
    /// It is on its way out.
    Stopping,
    /// It has not hung.
    Alive,
    /// The start or stop under way may take so much longer, from now on.
    Patience(Duration),
}

/// The service manager.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Manager {
    /// Whoever started this process as a service, if anybody did.
    ///
    /// # Errors
    /// When it is named and cannot be spoken to.
    pub fn of_this_process() -> io::Result<Option<Self>> {
        let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let [interval, pid] = ["WATCHDOG_USEC", "WATCHDOG_PID"].map(env::var_os);
        let own = std::process::id();
        let watchdog = watchdog(interval.as_deref(), pid.as_deref(), own);
        Self::at(&path, watchdog).map(Some)
    }

    fn at(path: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that reads nothing must not stop us.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            address,
            watchdog,
        })
    }

    /// How long it waits for [`Word::Alive`] before it takes this process for hung; none where it
    /// does not look.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Tells it, in one message.
    pub fn tell(&self, words: &[Word]) {
        if words.is_empty() {
            return;
        }
        let lines: String = words.iter().map(line).collect();
        if let Err(e) = self.socket.send_to_addr(lines.as_bytes(), &self.address) {
            debug!(error = %e, "the service manager was not told");
        }
    }
}

fn line(word: &Word) -> String {
    match word {
        Word::Ready => "READY=1\n".to_owned(),
        Word::Status(text) => {
            let text: String = text.chars().take(STATUS).collect();
            format!("STATUS={}\n", text.replace(['\n', '\r'], " "))
        }
        Word::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic()),
        Word::Stopping => "STOPPING=1\n".to_owned(),
        Word::Alive => "WATCHDOG=1\n".to_owned(),
        Word::Patience(more) => format!("EXTEND_TIMEOUT_USEC={}\n", more.as_micros()),
    }
}

/// The kernel's CLOCK_MONOTONIC in microseconds, by which the manager tells whether a reload is
/// later than its request.
fn monotonic() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

fn watchdog(interval: Option<&OsStr>, pid: Option<&OsStr>, own: u32) -> Option<Duration> {
    // A process that inherits the variables is not meant.
    if pid.is_some_and(|pid| pid.to_str() != Some(&own.to_string())) {
        return None;
    }
    let interval = interval?.to_str()?.parse().ok().filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(interval))
}

/// The directory of what the service manager has loaded for this process (`LoadCredential=`).
pub fn credentials() -> Option<PathBuf> {
    let directory = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    directory.filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lines_of_the_protocol() {
        let long = "x".repeat(STATUS + 1);
        for (word, want) in [
            (Word::Ready, "READY=1\n".to_owned()),
            (Word::Status("a\nb".to_owned()), "STATUS=a b\n".to_owned()),
            (
                Word::Status(long.clone()),
                format!("STATUS={}\n", &long[1..]),
            ),
            (Word::Stopping, "STOPPING=1\n".to_owned()),
            (Word::Alive, "WATCHDOG=1\n".to_owned()),
            (
                Word::Patience(Duration::from_secs(30)),
                "EXTEND_TIMEOUT_USEC=30000000\n".to_owned(),
            ),
        ] {
            assert_eq!(line(&word), want);
        }
        let reloading = line(&Word::Reloading);
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let since: i64 = since.unwrap().trim_end().parse().unwrap();
        assert!(since > 0 && since <= monotonic());
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_was_started() {
        for (name, interval, pid, want) in [
            ("none", None, None, None),
            ("any process", Some("10000000"), None, Some(10)),
            ("this one", Some("10000000"), Some("7"), Some(10)),
            ("another one", Some("10000000"), Some("8"), None),
            ("switched off", Some("0"), Some("7"), None),
            ("no number", Some("ten"), Some("7"), None),
        ] {
            let [interval, pid] = [interval, pid].map(|text: Option<&str>| text.map(OsStr::new));
            let want = want.map(Duration::from_secs);
            assert_eq!(watchdog(interval, pid, 7), want, "{name}");
        }
    }

    #[test]
    fn a_message_reaches_sockets_of_both_kinds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let hidden = format!("@lateen-test-{}", std::process::id());
        let hidden_address = SocketAddr::from_abstract_name(&hidden.as_bytes()[1..]).unwrap();
        for (name, listening) in [
            (path.as_os_str(), UnixDatagram::bind(&path)),
            (
                OsStr::new(&hidden),
                UnixDatagram::bind_addr(&hidden_address),
            ),
        ] {
            let listening = listening.unwrap();
            let manager = Manager::at(name, None).unwrap();
            manager.tell(&[Word::Ready, Word::Status("serving".to_owned())]);
            let mut message = [0; 64];
            let length = listening.recv(&mut message).unwrap();
            assert_eq!(&message[..length], b"READY=1\nSTATUS=serving\n", "{name:?}");
        }
    }

    #[test]
    fn nobody_listening_is_no_failure() {
        let manager = Manager::at(OsStr::new("/nonexistent/notify"), None).unwrap();
        manager.tell(&[Word::Ready]);
    }
}
