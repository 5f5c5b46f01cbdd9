//! Whether a thread of the data plane has moved bytes, for whoever keeps it awake.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

thread_local! {
    static TRANSFERS: Cell<u64> = const { Cell::new(0) };
    static SLEEPER: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// Reads and writes of sockets that this thread has tried so far.
pub fn transfers() -> u64 {
    TRANSFERS.get()
}

/// Waits for this thread's next transfer; of several that wait the last is woken.
///
/// # Cancel safety
/// Nothing is lost by dropping the future.
pub async fn next_transfer() {
    let seen = transfers();
    poll_fn(|cx| {
        if transfers() != seen {
            return Poll::Ready(());
        }
        SLEEPER.set(Some(cx.waker().clone()));
        Poll::Pending
    })
    .await;
}

/// Counts a transfer.
pub(super) fn note() {
    TRANSFERS.set(TRANSFERS.get().wrapping_add(1));
    if let Some(sleeper) = SLEEPER.take() {
        sleeper.wake();
    }
}
