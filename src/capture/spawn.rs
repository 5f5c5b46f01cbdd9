//! Starts a program on a workload's network, with none of this process's powers.

use std::io;
use std::thread;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::netns::Netns;
use super::privilege;

/// Starts `command` in the network namespace `ns`, and hands the child to `guard` at once. It runs
/// as the user this process runs as, and has no capabilities, not even as root.
///
/// Must be called in a runtime, which hears when the program ends.
///
/// # Cancel safety
/// Dropping the future drops what `guard` made of the child, be it started already or only later.
///
/// # Errors
/// When the namespace may not be entered, or the program not started.
pub(super) async fn spawn<T: Send + 'static>(
    ns: Netns,
    mut command: Command,
    guard: impl FnOnce(Child) -> T + Send + 'static,
) -> io::Result<T> {
    let runtime = Handle::current();
    let (child, started) = oneshot::channel();
    // A program has the network and the powers of the thread that starts it, and what a thread has
    // given up it never has again: hence one for this alone. It ends with the closure.
    let _ends_by_itself = thread::Builder::new()
        .name("spawn".to_owned())
        .spawn(move || {
            let _runtime = runtime.enter();
            let in_place = ns.settle().and_then(|()| privilege::relinquish());
            let started = in_place.and_then(|()| command.spawn());
            let _unheard = child.send(started.map(guard));
        })?;
    let ended = |_gone| Err(io::Error::other("the thread that starts it died"));
    started.await.unwrap_or_else(ended)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_dropped_with_its_guard() {
        let mut command = Command::new("sleep");
        command.arg("60").kill_on_drop(true);
        let (dropped, heard) = oneshot::channel::<()>();
        let starting = spawn(Netns::current().unwrap(), command, |child| (child, dropped));
        // Polled once, then dropped.
        let started = tokio::time::timeout(Duration::ZERO, starting).await;
        drop(started);
        let gone = tokio::time::timeout(Duration::from_secs(20), heard).await;
        assert!(gone.expect("in time").is_err(), "dropped, not told");
    }
}
