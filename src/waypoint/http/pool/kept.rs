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

/// Requests that share a connection at most: as many as every endpoint should take (RFC 9113 §6.5.2).
/// hyper does not say how many more one takes, and holds what is beyond without a word.
const STREAMS: u32 = 100;

/// Connections that wait at most, for everybody and for one client. Their keys are as many as clients
/// like, where TLS is begun by the name that a request has. Beyond it those that have waited longest
/// are closed, an eighth of them at once.
const MOST: (usize, usize) = (8192, 1024);

/// Whose connections are nobody else's.
type Client = (IpAddr, SpiffeId);

/// What a connection is good for.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) to: SocketAddr,
    /// Who may be there; none in plain text.
    pub(super) accepted: Option<Arc<BTreeSet<SpiffeId>>>,
    pub(super) client: Client,
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
    /// As many as may wait, in all and for each client: what is taken is not counted off until all are
    /// counted anew.
    at_most: (usize, HashMap<Client, usize>),
}

/// Whether a connection is one that as many may share as it is good for: who comes while it is opened
/// waits for it.
pub(super) fn is_for_many(version: Version, pool: &ConnectionPool) -> bool {
    let all_in_all = match pool.max_requests_per_connection {
        0 => u32::MAX,
        some => some,
    };
    version == Version::Http2 && all_in_all.min(pool.max_concurrent_streams) >= STREAMS
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
        let client = key.client.clone();
        let waiting = self.waiting.entry(key).or_default();
        if waiting.len() < WAITING {
            waiting.push(Waiting {
                connection,
                since: Instant::now(),
                idle: IDLE.min(pool.http_idle_timeout),
            });
            self.count_one(client);
        }
    }

    fn count_one(&mut self, client: Client) {
        let (all, ones) = &mut self.at_most;
        *all += 1;
        let one = match ones.get_mut(&client) {
            Some(one) => one,
            None => ones.entry(client.clone()).or_default(),
        };
        *one += 1;
        let over = (*all > MOST.0, *one > MOST.1);
        if over.1 {
            self.shrink(MOST.1, |key| key.client == client);
        }
        if over.0 {
            self.shrink(MOST.0, |_any| true);
        }
    }

    /// Counts anew, and lets the oldest go if there are more than may be.
    fn shrink(&mut self, most: usize, of: impl Fn(&Key) -> bool) {
        let those = self.waiting.iter().filter(|(key, _)| of(key));
        let waiting = those.flat_map(|(_, waiting)| waiting);
        let mut since: Vec<Instant> = waiting.map(|w| w.since).collect();
        if since.len() > most {
            let gone = since.len() - (most - most / 8);
            let (_older, last, _newer) = since.select_nth_unstable(gone - 1);
            for (_, waiting) in self.waiting.iter_mut().filter(|(key, _)| of(key)) {
                waiting.retain(|w| w.since > *last);
            }
        }
        self.count();
    }

    fn count(&mut self) {
        self.waiting.retain(|_key, waiting| !waiting.is_empty());
        let (all, ones) = &mut self.at_most;
        *all = 0;
        ones.clear();
        for (key, waiting) in &self.waiting {
            *all += waiting.len();
            *ones.entry(key.client.clone()).or_default() += waiting.len();
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
        for waiting in self.waiting.values_mut() {
            waiting.retain(|w| !w.connection.is_closed() && w.since.elapsed() < w.idle);
        }
        self.count();
    }

    /// Lets go of all.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.count();
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
                let most = streams.min(STREAMS);
                sender.is_ready() && u32::try_from(open).is_ok_and(|open| open < most)
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

#[cfg(test)]
mod tests {
    use hyper_util::rt::{TokioExecutor, TokioIo};

    use super::*;

    fn key(client: u32, port: u16) -> Arc<Key> {
        Arc::new(Key {
            to: SocketAddr::from(([192, 0, 2, 1], port)),
            accepted: None,
            client: (
                IpAddr::from(client.to_be_bytes()),
                "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap(),
            ),
            version: Version::Http2,
            group: None,
            secured: None,
        })
    }

    #[tokio::test]
    async fn there_are_so_many_and_the_oldest_go() {
        let (io, _peer) = tokio::io::duplex(1 << 16);
        let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await;
        let (sender, _connection) = shaken.unwrap();
        let mut kept = Kept::default();
        let pool = ConnectionPool::default();
        let keep = |kept: &mut Kept, client, port| {
            let connection = Connection::new(Sender::Http2(sender.clone()), 0, None);
            kept.keep(key(client, port), connection, &pool);
        };
        let has = |kept: &Kept, client, port| kept.waiting.contains_key(&key(client, port));
        keep(&mut kept, 9, 1);
        for port in 0..2000 {
            keep(&mut kept, 1, port);
            assert!(has(&kept, 1, port), "the newest stays");
            assert!(kept.waiting.len() <= 1 + MOST.1, "after {port}");
        }
        assert!(has(&kept, 1, 1500), "so many do");
        assert!(!has(&kept, 1, 0), "the oldest does not");
        assert!(has(&kept, 9, 1), "another client's is untouched");
        for client in 10..20_000 {
            keep(&mut kept, client, 1);
            assert!(has(&kept, client, 1), "the newest stays");
            assert!(kept.waiting.len() <= MOST.0, "after {client}");
        }
        assert!(!has(&kept, 9, 1));
        assert!(has(&kept, 19_999 - 7000, 1));
    }
}
