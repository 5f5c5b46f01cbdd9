//! One end of a flow, as whoever relays it sees it.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::sync::mpsc;

use crate::hbone::{Flow, TunnelError};

/// Longest payload of UDP.
const LONGEST: usize = 64 << 10;
/// Failures passed over before others have their turn.
const REFUSALS: usize = 16;

/// Where datagrams come from and go to.
pub(super) enum Leg {
    /// Through a tunnel.
    Tunnel(Box<Flow>),
    /// From and to whoever was captured.
    Captured {
        waiting: mpsc::Receiver<Bytes>,
        /// Bears the end that was addressed.
        answer: UdpSocket,
        to: SocketAddr,
    },
    /// To and from a program of the workload.
    Program(tokio::net::UdpSocket),
}

thread_local! {
    /// What a datagram is read into, of whichever flow: ten thousand with room of their own would take most
    /// of a gigabyte.
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; LONGEST].into());
}

impl Leg {
    /// To a program, by a socket that is connected to it.
    pub(super) fn program(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self::Program(tokio::net::UdpSocket::from_std(socket)?))
    }

    /// The next payload; `None` at the flow's end.
    pub(super) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, TunnelError>> {
        match self {
            Self::Tunnel(flow) => flow.poll_recv(cx),
            Self::Captured { waiting, .. } => waiting.poll_recv(cx).map(Ok),
            Self::Program(socket) => {
                for _refused in 0..REFUSALS {
                    // Nobody is there now where it fails: the next one may be for somebody.
                    let read = ROOM.with_borrow_mut(|room| read(socket, cx, room));
                    if let Ok(payload) = ready!(read) {
                        return Poll::Ready(Ok(Some(payload)));
                    }
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Sends a payload, or drops it; whether it was sent.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        payload: &[u8],
    ) -> Result<bool, TunnelError> {
        Ok(match self {
            Self::Tunnel(flow) => return flow.send(cx, payload),
            Self::Captured { answer, to, .. } => answer.send_to(payload, *to).is_ok(),
            // Tried by itself, since a new socket is not known to take anything yet.
            Self::Program(socket) => SockRef::from(&*socket).send(payload).is_ok(),
        })
    }

    /// Waits until nobody takes more of it, and moves on what was sent.
    pub(super) fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        match self {
            Self::Tunnel(flow) => flow.poll_unwanted(cx),
            Self::Captured { .. } | Self::Program(_) => Poll::Pending,
        }
    }

    /// It ended in order.
    pub(super) fn close(self) {
        if let Self::Tunnel(flow) = self {
            flow.close();
        }
    }
}

fn read(
    socket: &tokio::net::UdpSocket,
    cx: &mut Context<'_>,
    room: &mut [u8],
) -> Poll<io::Result<Bytes>> {
    let mut room = ReadBuf::new(room);
    ready!(socket.poll_recv(cx, &mut room))?;
    Poll::Ready(Ok(Bytes::copy_from_slice(room.filled())))
}
