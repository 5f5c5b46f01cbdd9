//! Connections that are kept for the next request.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};

use super::super::upload::Upload;
use super::Version;
use crate::identity::SpiffeId;
use crate::model::traffic::ConnectionPool;
use crate::waypoint::endpoints::{GroupKey, Place};
use crate::waypoint::secure::Secured;

/// How long a connection waits for another request at most: shorter than most programs keep theirs,
/// since what is sent as they close it is lost.
const IDLE: Duration = Duration::from_secs(60);
/// Connections to one endpoint that wait for one client; more are closed.
const WAITING: usize = 64;

/// What a connection is good for.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) to: SocketAddr,
    /// Who may be there; none in plain text.
    pub(super) accepted: Option<Arc<BTreeSet<SpiffeId>>>,
    pub(super) client: (IpAddr, SpiffeId),
    pub(super) version: Version,
    /// Whose limits it counts for.
    pub(super) group: Option<GroupKey>,
    /// TLS of the program's own.
    pub(super) secured: Option<Arc<Secured>>,
}

pub(super) enum Sender {
    Http1(http1::SendRequest<Upload>),
    Http2(http2::SendRequest<Upload>),
}

/// A connection, or one of several handles of it.
pub(super) struct Connection {
    pub(super) sender: Sender,
    about: Arc<About>,
}

/// What all handles of a connection share.
struct About {
    /// The thread that moves its bytes.
    lane: usize,
    /// Requests that it has served.
    served: AtomicU32,
    /// Its place among the connections.
    _place: Option<Place>,
}

/// A connection nobody uses, or one that others may use besides.
struct Waiting {
    connection: Connection,
    since: Instant,
    /// How long it may wait.
    idle: Duration,
}

#[derive(Default)]
pub(super) struct Kept {
    waiting: HashMap<Arc<Key>, Vec<Waiting>>,
}

impl Kept {
    /// A connection that can take a request now, on this thread if one is given. One of HTTP/2 stays for others, too, as long as it may
    /// serve more.
    pub(super) fn take(
        &mut self,
        key: &Key,
        pool: &ConnectionPool,
        lane: Option<usize>,
    ) -> Option<Connection> {
        let waiting = self.waiting.get_mut(key)?;
        waiting.retain(|w| !w.connection.is_closed());
        let ready = |w: &Waiting| {
            let here = lane.is_none_or(|lane| w.connection.about.lane == lane);
            here && w.connection.is_ready(pool.max_concurrent_streams)
        };
        let ready = waiting.iter().rposition(ready)?;
        let one = waiting.get_mut(ready)?;
        if let Some(shared) = one.connection.shared() {
            one.since = Instant::now();
            if one.connection.is_worn(pool, 1) {
                waiting.swap_remove(ready);
            }
            return Some(shared);
        }
        Some(waiting.swap_remove(ready).connection)
    }

    pub(super) fn keep(&mut self, key: Arc<Key>, connection: Connection, pool: &ConnectionPool) {
        if connection.is_worn(pool, 0) {
            return;
        }
        let waiting = self.waiting.entry(key).or_default();
        if waiting.len() < WAITING {
            waiting.push(Waiting {
                connection,
                since: Instant::now(),
                idle: IDLE.min(pool.http_idle_timeout),
            });
        }
    }

    /// Lets go of a connection of a group that nobody uses now, if there is one.
    pub(super) fn evict(&mut self, group: &GroupKey) -> bool {
        for (key, waiting) in &mut self.waiting {
            if key.group.as_ref() != Some(group) {
                continue;
            }
            if let Some(idle) = waiting.iter().position(|w| w.connection.is_idle()) {
                waiting.swap_remove(idle);
                return true;
            }
        }
        false
    }

    /// Lets go of those that have waited for too long.
    pub(super) fn reap(&mut self) {
        self.waiting.retain(|_key, waiting| {
            waiting.retain(|w| !w.connection.is_closed() && w.since.elapsed() < w.idle);
            !waiting.is_empty()
        });
    }

    /// Lets go of all.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

impl Connection {
    pub(super) fn new(sender: Sender, lane: usize, place: Option<Place>) -> Self {
        let about = About {
            lane,
            served: AtomicU32::new(0),
            _place: place,
        };
        Self {
            sender,
            about: Arc::new(about),
        }
    }

    /// Another handle of it, where it can have several.
    pub(super) fn shared(&self) -> Option<Self> {
        let Sender::Http2(shared) = &self.sender else {
            return None;
        };
        Some(Self {
            sender: Sender::Http2(shared.clone()),
            about: Arc::clone(&self.about),
        })
    }

    /// It serves one more request.
    pub(super) fn serves(&self) {
        self.about.served.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it has served all that it may, once it has served so many more.
    fn is_worn(&self, pool: &ConnectionPool, more: u32) -> bool {
        let most = pool.max_requests_per_connection;
        let served = self.about.served.load(Ordering::Relaxed);
        most > 0 && served.saturating_add(more) >= most
    }

    fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    fn is_ready(&self, streams: u32) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_ready(),
            // One handle is kept, each of the others is a stream.
            Sender::Http2(sender) => {
                let open = Arc::strong_count(&self.about).saturating_sub(1);
                sender.is_ready() && u32::try_from(open).is_ok_and(|open| open < streams)
            }
        }
    }

    /// Whether nobody uses it, where this is the handle that is kept.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.about) == 1
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}
