//! The keeper that a node which is started as root brings along. Both are one program: what the
//! keeper says goes to the same log, and it ends with the proxy, however that ends.

use std::future::pending;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::net::{SocketAddrUnix, connect};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tracing::warn;

use crate::capture::kept::channel;
use crate::cli::Failure;
use crate::cli::keeper::READY;
use crate::cli::output::NO;
use crate::sys;

/// Longest wait for it to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between looks whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// A running keeper.
pub(super) struct Companion {
    child: Child,
    /// It ends when this does, and so when this process does.
    lifeline: ChildStdin,
}

impl Companion {
    /// Starts a keeper with the settings at `config`, and waits until it can be asked.
    ///
    /// # Errors
    /// When it cannot; it has said why.
    pub(super) fn start(config: Option<&Path>) -> Result<Self, Failure> {
        // The very program this is, also where another has been installed in its place.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("lateen").args(["keeper", "--beside"]);
        if let Some(path) = config {
            command.arg("--config").arg(path);
        }
        // What a service manager is to hear, this process tells it.
        for told in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(told);
        }
        // In a group of its own, so that Ctrl-C reaches the proxy alone, which needs it to the end.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let started = command.spawn();
        let mut child = started.map_err(|e| Failure::no("cannot start the keeper", &e))?;
        let (lifeline, output) = (child.stdin.take(), child.stdout.take());
        let mut said = String::new();
        if let Some(output) = output {
            // What cannot be read was not said.
            let _cut = BufReader::new(output).read_line(&mut said);
        }
        match lifeline {
            Some(lifeline) if said.trim_end() == READY => Ok(Self { child, lifeline }),
            _ => {
                // It has ended, or is about to.
                let _status = child.wait();
                Err(Failure::plain(
                    NO,
                    "the keeper did not start; it says why above",
                ))
            }
        }
    }

    /// Whether some keeper listens there.
    pub(super) fn answers(path: &Path) -> bool {
        let connected = || -> io::Result<()> {
            let socket = channel::socket()?;
            Ok(connect(&socket, &SocketAddrUnix::new(path)?)?)
        };
        connected().is_ok()
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it, by force where it does not by itself.
    pub(super) fn end(self) {
        let Self {
            mut child,
            lifeline,
        } = self;
        drop(lifeline);
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > deadline {
                // The log may have ended already.
                let _unheard = writeln!(io::stderr(), "lateen: the keeper does not end, killed");
                let _gone = child.kill();
                let _status = child.wait();
                return;
            }
            sleep(LOOK);
        }
    }
}

/// Returns when the companion, by its process, has ended; never where there is none.
pub(super) async fn died(companion: Option<u32>) {
    let id = companion.and_then(|id| i32::try_from(id).ok());
    let Some(process) = id.and_then(Pid::from_raw) else {
        return pending().await;
    };
    let watched = async {
        let exit = pidfd_open(process, PidfdFlags::empty())?;
        let _readable = sys::async_fd(exit)?.readable().await?;
        io::Result::Ok(())
    };
    if let Err(e) = watched.await {
        warn!(error = %e, "cannot tell whether the keeper ends");
        pending().await
    }
}
