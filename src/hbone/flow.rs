//! Datagrams of UDP through a tunnel: QUIC's own where they fit, else capsules on its stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::tunnel::{Tunnel, TunnelError};
use crate::h3::{self, Oversize, Sent, UdpCapsules};

/// Datagrams both ways. None of them waits: what does not leave at once is dropped, as on any link.
///
/// Dropping it resets the tunnel.
#[derive(Debug)]
pub struct Flow {
    by: By,
    /// Kept for its place among those of the connection.
    tunnel: Tunnel,
}

#[derive(Debug)]
enum By {
    Quic(Box<h3::Flow>),
    Stream {
        capsules: UdpCapsules,
        piece: Bytes,
        /// What is left of a capsule on its way out.
        leaving: Bytes,
    },
}

impl Flow {
    /// Datagrams through a tunnel that was opened for them.
    pub fn new(mut tunnel: Tunnel) -> Self {
        let by = match tunnel.take_flow() {
            Some(flow) => By::Quic(Box::new(flow)),
            None => By::Stream {
                capsules: UdpCapsules::default(),
                piece: Bytes::new(),
                leaving: Bytes::new(),
            },
        };
        Self { by, tunnel }
    }

    /// The next payload from the peer; `None` once it has ended the tunnel.
    ///
    /// # Errors
    /// [`TunnelError::Reset`] if the tunnel broke, or holds what is no datagram.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, TunnelError>> {
        let (capsules, piece) = match &mut self.by {
            By::Quic(flow) => return flow.poll_recv(cx).map_err(TunnelError::from),
            By::Stream {
                capsules, piece, ..
            } => (capsules, piece),
        };
        loop {
            let next = capsules.next(piece);
            if let Some(payload) = next.map_err(TunnelError::malformed)? {
                return Poll::Ready(Ok(Some(payload)));
            }
            match ready!(self.tunnel.poll_read(cx))? {
                Some(bytes) => {
                    self.tunnel.release(bytes.len());
                    *piece = bytes;
                }
                None => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// Sends a payload, or drops it; whether it was sent.
    ///
    /// # Errors
    /// [`TunnelError::Reset`].
    pub fn send(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Result<bool, TunnelError> {
        match &mut self.by {
            By::Quic(flow) => {
                let sent = flow.send(cx, payload, Oversize::Capsule)?;
                return Ok(sent != Sent::Dropped);
            }
            By::Stream { leaving, .. } => {
                if !leaving.is_empty() {
                    return Ok(false);
                }
                let Some(capsule) = UdpCapsules::encode(payload) else {
                    return Ok(false);
                };
                *leaving = capsule;
            }
        }
        let _later = self.poll_leave(cx)?;
        Ok(true)
    }

    /// Waits until the peer takes no more, and moves on what was sent.
    ///
    /// # Errors
    /// As [`Tunnel::poll_unwanted`].
    pub fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        if let By::Quic(flow) = &mut self.by {
            return match ready!(flow.poll_stopped(cx)) {
                h3::StreamError::Stopped { .. } => Poll::Ready(Ok(())),
                error => Poll::Ready(Err(error.into())),
            };
        }
        let _later = self.poll_leave(cx)?;
        self.tunnel.poll_unwanted(cx)
    }

    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        let By::Stream { leaving, .. } = &mut self.by else {
            return Poll::Ready(Ok(()));
        };
        while !leaving.is_empty() {
            let room = ready!(self.tunnel.poll_capacity(cx, leaving.len()))?;
            if room == 0 {
                *leaving = Bytes::new();
                break;
            }
            self.tunnel.send(leaving.split_to(room));
        }
        Poll::Ready(Ok(()))
    }

    /// Ends it in order: nothing of either direction is missing.
    pub fn close(self) {
        match self.by {
            By::Quic(flow) => flow.close(),
            By::Stream { .. } => self.tunnel.close(),
        }
    }
}
