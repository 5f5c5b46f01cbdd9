//! Congestion control that suits how far the peer is, as [`crate::capture::near`] does for TCP.
//!
//! On a way of a fraction of a millisecond what BBR estimates is less than what timers and
//! acknowledgements let go at once, and it starves itself. There CUBIC fills the way whatever is lost,
//! for it has made up for it within moments; and as nothing is on the way but what waits, more than a
//! little would only hold up what comes after.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// Shortest round trips below it are near.
const NEAR: Duration = Duration::from_millis(1);
/// Bytes on the way to a near peer, at most: what 10 Gbit/s has there in 100 µs. Twice as much waits at the
/// peer for its turn, which what is small waits for as well.
const MOST: u64 = 128 << 10;

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
            mtu: current_mtu,
        })
    }
}

struct Chosen {
    inner: Box<dyn Controller>,
    near: bool,
    mtu: u16,
}

impl Chosen {
    /// The shortest round trip only falls: who has been near once stays so on this path.
    fn look(&mut self, now: Instant, rtt: &RttEstimator) {
        if !self.near && rtt.min() < NEAR {
            self.near = true;
            self.inner = Arc::new(CubicConfig::default()).build(now, self.mtu);
        }
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
        let full = self.near && self.inner.window() >= MOST;
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
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            near: self.near,
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
