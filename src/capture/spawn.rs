//! Starts a program on a workload's network, with none of this process's powers.

use std::io;
use std::thread;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::netns::Netns;
use super::privilege;

/// Starts `command` in the network namespace `ns`. It runs as the user this process runs as, and
/// has no capabilities, not even as root.
///
/// Must be called in a runtime, which hears when the program ends. Dropping the future may leave
/// the program to be killed or not, as `command` says of children that are dropped.
///
/// # Errors
/// When the namespace may not be entered, or the program not started.
pub async fn spawn(ns: Netns, mut command: Command) -> io::Result<Child> {
    let runtime = Handle::current();
    let (child, started) = oneshot::channel();
    // A program has the network and the powers of the thread that starts it, and what a thread has
    // given up it never has again: hence one for this alone. It ends with the closure.
    let _ends_by_itself = thread::Builder::new()
        .name("spawn".to_owned())
        .spawn(move || {
            let _runtime = runtime.enter();
            let in_place = ns.settle().and_then(|()| privilege::relinquish());
            let _unheard = child.send(in_place.and_then(|()| command.spawn()));
        })?;
    let ended = |_gone| Err(io::Error::other("the thread that starts it died"));
    started.await.unwrap_or_else(ended)
}
