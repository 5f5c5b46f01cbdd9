//! What the driver of a connection, its streams and whoever opens them have in common.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use quinn::{Connection, ConnectionError, Side};
use tokio::sync::{Notify, watch};

use super::budget::Rate;
use super::datagram::Demux;
use super::error::{Code, Ended, Fault, StreamError};
use super::head::Bounds;
use super::linger::Linger;
use super::settings::Settings;
use super::{Config, congestion};

/// What is known of the connection's course.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Status {
    /// The peer's SETTINGS, once they have come.
    pub(super) peer: Option<Settings>,
    /// The peer's GOAWAY: requests on streams from this id on are passed over.
    pub(super) peer_leaves: Option<u64>,
    /// Our GOAWAY.
    pub(super) leaving: Option<u64>,
    /// Nothing more comes.
    pub(super) over: bool,
}

impl Status {
    /// Whether new requests cannot be made.
    pub(super) fn is_leaving(&self) -> bool {
        self.over || self.leaving.is_some() || self.peer_leaves.is_some()
    }
}

pub(super) struct Shared {
    pub(super) quic: Connection,
    pub(super) config: Config,
    pub(super) status: watch::Sender<Status>,
    pub(super) demux: Mutex<Demux>,
    /// Told that a stream lingers.
    pub(super) lingers: Notify,
    /// Told that no stream is left.
    pub(super) idle: Notify,
    /// The peer is to be asked whether it is there.
    pub(super) probes: Notify,
    fault: OnceLock<Fault>,
    live: AtomicUsize,
    /// Streams that have ended for their owners and are to be seen off, until nobody does. No more
    /// than there are streams, of which QUIC bounds the number.
    lingering: Mutex<Option<Vec<Linger>>>,
    /// Whether datagrams may be sent, looked up for each that is.
    datagrams: AtomicBool,
    /// Requests that came to nothing by the peer's doing.
    wasted: Mutex<Rate>,
    /// Requests that came after our GOAWAY, apart from those: a client may have made many before it
    /// heard of that.
    late: Mutex<Rate>,
    /// Frames of the control stream and streams of the peer's own, none of which is needed often.
    chatter: Mutex<Rate>,
    /// Request streams that have been taken up, and from where on none is.
    requests: Mutex<Requests>,
}

#[derive(Default)]
struct Requests {
    /// The id that comes next.
    next: u64,
    /// From here on they are passed over.
    end: Option<u64>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(quic: Connection, config: Config) -> Arc<Self> {
        let server = quic.side() == Side::Server;
        Arc::new(Self {
            status: watch::Sender::new(Status::default()),
            demux: Mutex::new(Demux::new(server)),
            lingers: Notify::new(),
            idle: Notify::new(),
            probes: Notify::new(),
            fault: OnceLock::new(),
            live: AtomicUsize::new(0),
            lingering: Mutex::new(Some(Vec::new())),
            datagrams: AtomicBool::new(false),
            wasted: Mutex::new(Rate::new(config.wasted)),
            late: Mutex::new(Rate::new(config.wasted)),
            chatter: Mutex::new(Rate::new(config.chatter)),
            requests: Mutex::default(),
            quic,
            config,
        })
    }

    pub(super) fn is_server(&self) -> bool {
        self.quic.side() == Side::Server
    }

    /// How large a field section we take.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            size: self.config.field_section,
            count: self.config.fields,
        }
    }

    /// Closes the connection for a fault of the peer's; the first one counts.
    pub(super) fn fail(&self, fault: Fault) -> StreamError {
        // What is found out after the end was no reason for it.
        if let Some(error) = self.quic.close_reason() {
            return StreamError::Ended(self.ended(&error));
        }
        let fault = *self.fault.get_or_init(|| fault);
        congestion::close(&self.quic, fault.code, fault.why);
        StreamError::Ended(Ended::Fault(fault))
    }

    /// Closes the connection in order.
    pub(super) fn close(&self) {
        congestion::close(&self.quic, Code::NO_ERROR, "");
    }

    /// What QUIC's end of the connection means.
    pub(super) fn ended(&self, error: &ConnectionError) -> Ended {
        match (error, self.fault.get()) {
            (ConnectionError::LocallyClosed, Some(fault)) => Ended::Fault(*fault),
            (ConnectionError::LocallyClosed, None) => Ended::Here,
            (ConnectionError::ApplicationClosed(close), _) => Ended::Peer {
                code: close.error_code.into(),
            },
            (other, _) => Ended::Lost(other.clone()),
        }
    }

    /// Takes up the peer's settings.
    pub(super) fn learn(&self, settings: Settings) {
        let datagrams = settings.datagrams && self.config.datagrams;
        self.datagrams.store(datagrams, Ordering::Release);
        self.status
            .send_modify(|status| status.peer = Some(settings));
    }

    /// Whether datagrams may be sent: both ends have said that they take them (RFC 9297 §2.1.1).
    pub(super) fn sends_datagrams(&self) -> bool {
        self.datagrams.load(Ordering::Acquire)
    }

    /// Takes up the peer's GOAWAY, whose id may never grow (RFC 9114 §5.2).
    pub(super) fn peer_leaves(&self, id: u64) -> Result<(), Fault> {
        if self
            .status
            .borrow()
            .peer_leaves
            .is_some_and(|before| id > before)
        {
            return Err(Fault::new(Code::ID_ERROR, "GOAWAY takes back what it said"));
        }
        self.status
            .send_modify(|status| status.peer_leaves = Some(id));
        Ok(())
    }

    /// Takes no more requests, and makes none: tells the peer with which it ends.
    pub(super) fn leave(&self) {
        let end = {
            let mut requests = lock(&self.requests);
            let next = requests.next;
            *requests.end.get_or_insert(next)
        };
        // A client names a push, of which there are none (§5.2).
        let id = if self.is_server() { end } else { 0 };
        self.status.send_if_modified(|status| {
            let first = status.leaving.is_none();
            status.leaving.get_or_insert(id);
            first
        });
    }

    /// Takes a request stream of the peer's up, unless none is taken any more.
    pub(super) fn take_up(&self, id: u64) -> bool {
        let mut requests = lock(&self.requests);
        if requests.end.is_some_and(|end| id >= end) {
            return false;
        }
        requests.next = requests.next.max(id + 4);
        true
    }

    /// Counts a request that came to nothing by the peer's doing.
    pub(super) fn waste(&self) {
        let spent = lock(&self.wasted).spend("too many requests come to nothing");
        if let Err(fault) = spent {
            self.fail(fault);
        }
    }

    /// Counts a request that came too late.
    pub(super) fn late(&self) {
        let spent = lock(&self.late).spend("too many requests come after GOAWAY");
        if let Err(fault) = spent {
            self.fail(fault);
        }
    }

    /// Counts what a peer needs to say seldom.
    pub(super) fn chatter(&self) -> Result<(), Fault> {
        lock(&self.chatter).spend("too much is said on control streams")
    }

    /// Streams that are open, or being opened or seen off.
    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    /// Hands a stream over to the driver, which sees it off.
    pub(super) fn linger(&self, linger: Linger) {
        // Without one it is dropped, once the lock is.
        let mut held = lock(&self.lingering);
        let unwanted = match &mut *held {
            Some(lingering) => {
                lingering.push(linger);
                None
            }
            None => Some(linger),
        };
        drop(held);
        drop(unwanted);
        self.lingers.notify_one();
    }

    /// What has been handed over.
    pub(super) fn lingering(&self) -> Vec<Linger> {
        let mut held = lock(&self.lingering);
        held.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The driver is gone: nothing more comes, and no stream is seen off.
    pub(super) fn end(&self) {
        self.close();
        let unwanted = lock(&self.lingering).take();
        drop(unwanted);
        self.status.send_modify(|status| status.over = true);
    }
}

/// Keeps a connection from being closed in order while there is a stream.
pub(super) struct Live {
    shared: Arc<Shared>,
}

impl Live {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        shared.live.fetch_add(1, Ordering::AcqRel);
        Self { shared }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.shared.live.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.idle.notify_one();
        }
    }
}
