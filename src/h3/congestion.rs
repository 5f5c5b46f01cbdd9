//! Lets the end of a connection through where congestion would hold it back.
//!
//! quinn-proto up to 0.11.19 holds CONNECTION_CLOSE back like data while the congestion window is
//! full, and a closed connection takes no acknowledgement that would empty it: the peer hears
//! nothing, and its streams hang until it has been idle for too long. That is mended there (issue
//! 2785), and with a release that has it this can go.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn::Connection;
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

use super::error::Code;

/// More than is ever on the way, and so much that nothing is paced.
const UNBOUNDED: u64 = 1 << 40;

/// Congestion control as `inner` has it, until the connection is closed: for
/// [`quinn::TransportConfig::congestion_controller_factory`], at both ends. Without it connections
/// work, but whoever is at the other end may learn late that one was closed amid a transfer.
pub struct Closable {
    inner: Arc<dyn ControllerFactory + Send + Sync>,
}

impl Closable {
    /// Wraps `inner`.
    pub fn new(inner: impl ControllerFactory + Send + Sync + 'static) -> Self {
        let inner = Arc::new(inner);
        Self { inner }
    }
}

impl fmt::Debug for Closable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closable")
    }
}

impl ControllerFactory for Closable {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Gate {
            inner: Arc::clone(&self.inner).build(now, current_mtu),
            open: Arc::default(),
        })
    }
}

/// Closes a connection, unless it is closed: why it was is what its streams are to tell.
pub(super) fn close(quic: &Connection, code: Code, reason: &str) {
    if quic.close_reason().is_some() {
        return;
    }
    // A copy, which shares what opens it.
    if let Ok(gate) = quic.congestion_state().into_any().downcast::<Gate>() {
        gate.open.store(true, Ordering::Relaxed);
    }
    quic.close(code.quic(), reason.as_bytes());
}

struct Gate {
    inner: Box<dyn Controller>,
    open: Arc<AtomicBool>,
}

impl Controller for Gate {
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
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
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
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        match self.open.load(Ordering::Relaxed) {
            true => UNBOUNDED,
            false => self.inner.window(),
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            open: Arc::clone(&self.open),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    /// What was wrapped cannot be had so: that it is wrapped is what one has to know.
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
