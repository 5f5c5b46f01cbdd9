//! A socket that sends in pieces what is more than one call of the system takes.
//!
//! The library hands over up to ten packets at once, whatever their size. The kernel, which cuts them from one
//! datagram, takes no more than a datagram has, and what is longer the library takes for a packet that was to
//! find out what the path takes: it would be lost without a word, and again each time it is repeated.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// Longest payload of a datagram of IPv4; of IPv6 a little more.
const AT_ONCE: usize = 65_535 - 28;

/// Any other socket, with that.
#[derive(Debug)]
pub(super) struct InPieces(pub(super) Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for InPieces {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.0).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // Where one does not leave, all are handed over again: a peer passes over what it has had.
        pieces(transmit).try_for_each(|contents| {
            self.0.try_send(&Transmit {
                contents,
                destination: transmit.destination,
                ecn: transmit.ecn,
                segment_size: transmit.segment_size,
                src_ip: transmit.src_ip,
            })
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}

/// As few as do, of whole packets each.
fn pieces<'a>(transmit: &Transmit<'a>) -> impl Iterator<Item = &'a [u8]> {
    let packets = match transmit.segment_size {
        Some(size) if size > 0 => (AT_ONCE / size).max(1) * size,
        _ => usize::MAX,
    };
    transmit.contents.chunks(packets)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::UdpSocket;
    use std::time::Duration;

    use quinn::{Runtime as _, TokioRuntime};

    use super::*;

    #[tokio::test]
    async fn what_is_too_much_at_once_arrives_whole() {
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let patience = Some(Duration::from_secs(5));
        there.set_read_timeout(patience).unwrap();
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = Arc::new(InPieces(TokioRuntime.wrap_udp_socket(here).unwrap()));
        let mut poller = Arc::clone(&socket).create_io_poller();
        let ready = poll_fn(|cx| poller.as_mut().poll_writable(cx));
        ready.await.unwrap();
        let contents: Vec<u8> = (0..10).flat_map(|packet| [packet; 8972]).collect();
        let sent = socket.try_send(&Transmit {
            destination: there.local_addr().unwrap(),
            ecn: None,
            contents: &contents,
            segment_size: Some(8972),
            src_ip: None,
        });
        sent.unwrap();
        for packet in 0..10 {
            let mut got = [0; 9000];
            let size = there.recv(&mut got).unwrap();
            assert_eq!((size, got[0], got[8971]), (8972, packet, packet));
        }
    }

    #[test]
    fn pieces_are_of_whole_packets_and_no_longer_than_a_datagram() {
        for (name, packets, size, want) in [
            ("ten usual ones", 14_520, Some(1452), vec![14_520]),
            (
                "ten of a jumbo link",
                89_720,
                Some(8972),
                vec![62_804, 26_916],
            ),
            (
                "the last one short",
                70_000,
                Some(8972),
                vec![62_804, 70_000 - 62_804],
            ),
            ("just as long", AT_ONCE, Some(AT_ONCE / 13), vec![AT_ONCE]),
            ("one", 1200, None, vec![1200]),
        ] {
            let contents = vec![0; packets];
            let transmit = Transmit {
                destination: SocketAddr::from(([127, 0, 0, 1], 1)),
                ecn: None,
                contents: &contents,
                segment_size: size,
                src_ip: None,
            };
            let got: Vec<_> = pieces(&transmit).map(<[u8]>::len).collect();
            assert_eq!(got, want, "{name}");
        }
    }
}
