//! From one tunnel to another: nothing is copied, what arrived is sent on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::hbone::tunnel::{Tunnel, TunnelError};

#[derive(Default)]
pub(super) struct Through {
    held: Bytes,
    done: bool,
}

impl Through {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Tunnel,
        to: &mut Tunnel,
        moved: &AtomicU64,
    ) -> Poll<Result<(), TunnelError>> {
        while !self.done {
            if self.step(cx, from, to, moved)?.is_pending() {
                // While it waits, for bytes or for room, the receiver may give up.
                ready!(to.poll_unwanted(cx))?;
                self.done = true;
            }
        }
        // The other direction may be waiting for its own receiver, deaf to a reset.
        let _orderly = to.poll_unwanted(cx)?;
        Poll::Ready(Ok(()))
    }

    fn step(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Tunnel,
        to: &mut Tunnel,
        moved: &AtomicU64,
    ) -> Poll<Result<(), TunnelError>> {
        if self.held.is_empty() {
            match from.poll_read(cx)? {
                Poll::Ready(Some(bytes)) => self.held = bytes,
                Poll::Ready(None) => {
                    to.finish();
                    self.done = true;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    // Idle, it keeps no room that its neighbours could use.
                    to.unreserve();
                    return Poll::Pending;
                }
            }
            // A last frame may hold nothing but the end.
            if self.held.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        let room = ready!(to.poll_capacity(cx, self.held.len()))?;
        if room == 0 {
            self.done = true;
            return Poll::Ready(Ok(()));
        }
        to.send(self.held.split_to(room));
        moved.fetch_add(room as u64, Ordering::Relaxed);
        from.release(room);
        Poll::Ready(Ok(()))
    }
}
