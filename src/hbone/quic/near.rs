//! Congestion control that suits how far the peer is, as [`crate::capture::near`] does for TCP.
//!
//! On a way of a fraction of a millisecond what BBR estimates is less than what timers and
//! acknowledgements let go at once, and it starves itself. There CUBIC fills the way whatever is lost,
//! for it has made up for it within moments; and as nothing is on the way but what waits, more than a
//! little would only hold up what comes after.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, CubicConfig};
use quinn_proto::RttEstimator;

/// Shortest round trips below it are near.
const NEAR: Duration = Duration::from_millis(1);
/// Bytes on the way to a near peer, at most: what 10 Gbit/s has there in 100 µs. Twice as much waits at the
/// peer for its turn, which what is small waits for as well.
const MOST: u64 = 128 << 10;

/// Where packets wait longer on the way than this, it is a slow one; and where they wait less than that it is
/// none any more. 64 KiB wait 5 ms at 100 Mbit/s, and half a millisecond at 1 Gbit/s.
const SLOW: Duration = Duration::from_micros(2500);
const FAST: Duration = Duration::from_micros(1250);

/// Builds controllers that are `far`'s until the peer turns out to be near.
pub(super) struct ByDistance {
    far: Arc<dyn ControllerFactory + Send + Sync>,
}

impl ByDistance {
    pub(super) fn new(far: impl ControllerFactory + Send + Sync + 'static) -> Self {
        Self { far: Arc::new(far) }
    }
}

impl ControllerFactory for ByDistance {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Chosen {
            inner: Arc::clone(&self.far).build(now, current_mtu),
            near: false,
            room: Room::Full,
            mtu: current_mtu,
        })
    }
}

struct Chosen {
    inner: Box<dyn Controller>,
    near: bool,
    room: Room,
    mtu: u16,
}

/// How much may be on the way to a near peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// Half, for the way is a slow one, on which what is sent waits for what was sent before.
    Half,
    Full,
}

impl Room {
    fn bytes(self) -> u64 {
        match self {
            Self::Half => MOST / 2,
            Self::Full => MOST,
        }
    }

    /// The same once packets wait so long on the way.
    fn given(self, wait: Duration) -> Self {
        match self {
            Self::Full if wait > SLOW => Self::Half,
            Self::Half if wait < FAST => Self::Full,
            same => same,
        }
    }
}

impl Chosen {
    /// The shortest round trip only falls: who has been near once stays so on this path.
    fn look(&mut self, now: Instant, rtt: &RttEstimator) {
        if !self.near && rtt.min() < NEAR {
            self.near = true;
            self.inner = Arc::new(CubicConfig::default()).build(now, self.mtu);
        }
        self.room = self.room.given(rtt.get().saturating_sub(rtt.min()));
    }
}

impl Controller for Chosen {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.look(now, rtt);
        // Else it would grow unseen, and have far to fall before a loss counted.
        let full = self.near && self.inner.window() >= self.room.bytes();
        self.inner
            .on_ack(now, sent, bytes, app_limited || full, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        let largest = largest_packet_num_acked;
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        let persistent = is_persistent_congestion;
        self.inner
            .on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        match self.near {
            true => self.inner.window().min(self.room.bytes()),
            false => self.inner.window(),
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            near: self.near,
            room: self.room,
            mtu: self.mtu,
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use quinn::congestion::BbrConfig;

    use super::*;
    use crate::h3::Closable;
    use crate::h3::testing::{pair_of, transport, within};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn to_a_near_peer_little_is_on_the_way() {
        let bbr = Arc::new(BbrConfig::default());
        let far = bbr.build(Instant::now(), 1200).initial_window();
        assert!(far > MOST, "{far}: what is shown below would hold without");
        let mut sending = transport();
        let by = Closable::new(ByDistance::new(BbrConfig::default()));
        sending.congestion_controller_factory(Arc::new(by));
        let pair = pair_of(sending, transport()).await;
        let mut out = pair.client.open_uni().await.unwrap();
        let (mut sent, mut most) = (0, 0);
        let send = async {
            // A few packets at a time are acknowledged at once, and tell how near the peer is.
            while pair.client.congestion_state().window() > MOST {
                out.write_all(&[7; 4000]).await.unwrap();
                sent += 4000;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            while sent < 16 << 20 {
                out.write_all(&[7; 1 << 16]).await.unwrap();
                sent += 1 << 16;
                most = most.max(pair.client.congestion_state().window());
            }
            out.finish().unwrap();
        };
        let receive = async {
            let mut stream = pair.server.accept_uni().await.unwrap();
            stream.read_to_end(64 << 20).await.unwrap().len()
        };
        let ((), got) = within(async { tokio::join!(send, receive) }).await;
        assert_eq!(got, sent);
        assert!((MOST / 2..=MOST).contains(&most), "{most}");
    }

    #[test]
    fn where_packets_wait_half_as_much_is_on_the_way() {
        let ms = |tenths: u64| Duration::from_micros(100 * tenths);
        for (name, room, waits, want) in [
            ("at once", Room::Full, 0, Room::Full),
            ("a fast way that is busy", Room::Full, 20, Room::Full),
            ("a slow way", Room::Full, 26, Room::Half),
            ("still slow with half", Room::Half, 50, Room::Half),
            ("a little faster", Room::Half, 13, Room::Half),
            ("fast again", Room::Half, 12, Room::Full),
        ] {
            assert_eq!(room.given(ms(waits)), want, "{name}");
        }
        assert!(Room::Half.bytes() < Room::Full.bytes());
    }
}
