//! Runs what drives QUIC by turns: whom it wakes in one is woken once, after it.
//!
//! An endpoint reads dozens of packets in one turn and tells their connection of each. Where that lives on
//! another thread, it would wake at the first, be done with it before it is told of the second, sleep, and be
//! woken again: a system call, a change of threads and a small write to the program for every packet.

use std::cell::RefCell;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use futures::task::AtomicWaker;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

use super::pieces::InPieces;

/// Tokio's runtime, with such turns.
#[derive(Debug)]
pub(super) struct ByTurns;

impl Runtime for ByTurns {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, driver: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(Box::pin(Driver::new(driver)));
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(InPieces(socket)))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

thread_local! {
    /// Who is to be woken after the turn that a driver has on this thread, if one has.
    static WOKEN: RefCell<Option<Vec<Arc<Bell>>>> = const { RefCell::new(None) };
}

/// A driver, and what wakes it.
struct Driver<F> {
    inner: F,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<F> Driver<F> {
    fn new(inner: F) -> Self {
        let bell = Arc::<Bell>::default();
        Self {
            inner,
            waker: Arc::clone(&bell).into(),
            bell,
        }
    }
}

impl<F: Future + Unpin> Future for Driver<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.bell.task.register(cx.waker());
        let _turn = Turn::begin();
        Pin::new(&mut this.inner).poll(&mut Context::from_waker(&this.waker))
    }
}

/// Wakes a driver, at the end of a turn if it is rung within one.
#[derive(Default)]
struct Bell {
    task: AtomicWaker,
    /// Whether the end of somebody's turn will wake it.
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let later = WOKEN.try_with(|woken| match woken.borrow_mut().as_mut() {
            Some(woken) => {
                if !self.rung.swap(true, Ordering::AcqRel) {
                    woken.push(Arc::clone(self));
                }
                true
            }
            None => false,
        });
        if !later.unwrap_or(false) {
            self.task.wake();
        }
    }
}

/// A driver's turn on this thread. When it is over, those are woken who were rung for.
struct Turn;

impl Turn {
    fn begin() -> Self {
        WOKEN.set(Some(Vec::new()));
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        for bell in WOKEN.take().into_iter().flatten() {
            // First, for whoever rings from here on may have come too late for this waking.
            bell.rung.store(false, Ordering::Release);
            bell.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn poll<F: Future<Output = ()> + Unpin>(driver: &mut Driver<F>, by: &Arc<Count>) -> bool {
        let waker = Arc::clone(by).into();
        let polled = Pin::new(driver).poll(&mut Context::from_waker(&waker));
        polled.is_ready()
    }

    #[test]
    fn whom_a_turn_wakes_is_woken_once_after_it() {
        let count = Arc::<Count>::default();
        let mut woken = Driver::new(poll_fn(|_cx| Poll::Pending));
        let bell = woken.waker.clone();
        assert!(!poll(&mut woken, &count));
        let seen = Arc::clone(&count);
        let rings = bell.clone();
        let mut reader = Driver::new(poll_fn(move |_cx| {
            rings.wake_by_ref();
            rings.wake_by_ref();
            assert_eq!(seen.get(), 0, "not within the turn");
            Poll::Ready(())
        }));
        assert!(poll(&mut reader, &Arc::default()));
        assert_eq!(count.get(), 1);
        poll(&mut woken, &count);
        bell.wake_by_ref();
        assert_eq!(count.get(), 2, "at once where nobody has a turn");
    }
}
