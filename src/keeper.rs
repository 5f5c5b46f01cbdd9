//! The keeper: the small process that has the powers which capture takes, so that the proxy, which
//! parses what the network sends, has none (DESIGN §7).
//!
//! It enters namespaces, opens listeners and marked sockets there, keeps the rules and runs the
//! commands of probes, for one user, by the verbs of [`crate::capture::kept`]. It reads nothing from
//! the network. [`door`] is its socket, [`session`] one proxy's connection, [`holdings`] what
//! outlives one: the rules, which hold while no proxy is there, so that what they capture is
//! refused and never let past.

pub mod door;
mod holdings;
mod hosting;
mod session;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketFlags, accept_with};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::capture::Terms;
use crate::capture::kept::channel::Channel;
use crate::causes::chain;
use crate::sys;
use door::Door;
use holdings::Holdings;
use session::Session;

/// Connections at once: one proxy, and those that are taking over from it or leaving. More wait in
/// the kernel's queue.
const SESSIONS: usize = 8;
/// Pause after a failed accept: out of descriptors, most likely, and trying at once only spins.
const PAUSE: Duration = Duration::from_millis(50);

/// The keeper, as a component.
pub struct Keeper {
    door: Door,
    holdings: Arc<Holdings>,
}

impl Keeper {
    /// A keeper behind `door`, with rules on these terms, which must know its sockets.
    pub fn new(door: Door, terms: impl Into<Terms>) -> Self {
        let holdings = Arc::new(Holdings::new(terms.into()));
        Self { door, holdings }
    }

    /// Serves the proxy until `shutdown`. Rules stay then: what they capture is refused, not leaked.
    ///
    /// # Errors
    /// When the socket cannot be waited for.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let Self { door, holdings } = self;
        let caller = door.caller();
        let (socket, _lock) = door.into_parts();
        let listener = sys::async_fd(socket)?;
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(done) = sessions.join_next() => {
                    if let Err(e) = done {
                        warn!(error = %e, "a proxy's connection died");
                    }
                }
                channel = accept(&listener), if sessions.len() < SESSIONS => match channel {
                    Ok(channel) => welcome(channel, caller, &holdings, &mut sessions),
                    Err(e) => {
                        warn!(error = %e, "cannot accept, pausing");
                        sleep(PAUSE).await;
                    }
                },
            }
        }
        sessions.shutdown().await;
        holdings.end().await;
        Ok(())
    }
}

fn welcome(channel: Channel, caller: u32, holdings: &Arc<Holdings>, sessions: &mut JoinSet<()>) {
    match channel.peer() {
        Ok((process, user)) if user == caller => {
            info!(process, "proxy connected");
            let session = Session::new(channel, Arc::clone(holdings));
            sessions.spawn(async move {
                match session.run().await {
                    Ok(()) => info!(process, "proxy gone"),
                    Err(e) => warn!(process, error = chain(&e), "proxy's connection ended"),
                }
            });
        }
        Ok((process, user)) => warn!(process, user, caller, "refused: not the proxy's user"),
        Err(e) => warn!(error = %e, "refused: the kernel does not say who it is"),
    }
}

async fn accept(listener: &AsyncFd<OwnedFd>) -> io::Result<Channel> {
    loop {
        let mut ready = listener.readable().await?;
        let accepted = ready.try_io(|listener| {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            Ok(accept_with(listener.get_ref(), flags)?)
        });
        if let Ok(socket) = accepted {
            return Channel::new(socket?);
        }
    }
}

#[cfg(test)]
mod tests;
