//! The other origin of sockets and rules: the keeper, a process with the powers that both take,
//! which answers a few fixed verbs over a Unix socket (DESIGN §7). Its own half is
//! [`crate::keeper`].
//!
//! [`Kept`] asks, [`link::Link`] carries questions and answers and comes back after a keeper that
//! was away; [`protocol`] is what is said, [`channel`] how. Whoever lost the keeper keeps what it
//! has: its listeners, what is open, and a small [`stock`] of sockets to connect with.

pub(crate) mod channel;
mod datagrams;
mod host;
pub mod link;
pub(crate) mod protocol;
mod stock;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use socket2::Socket;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::attach::AttachError;
use super::command::Ran;
use super::error::CaptureError;
use super::reconcile::State;
use super::ruleset::WantedDatagrams;
use link::{Asked, Link, Order};
use protocol::{Answer, Family, Fault, Network, PlaceId, Verb};
use stock::Stock;

/// Longest wait for an answer, where the keeper has nothing to wait for itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for rules to be removed: the keeper runs `nft` and `ip` for it, more than once.
const REMOVAL: Duration = Duration::from_secs(60);
/// Questions that wait to be sent; who asks more waits. Each data plane thread has a few at most.
const ORDERS: usize = 256;

/// Asks the keeper.
#[derive(Clone)]
pub(super) struct Kept(Arc<Shared>);

struct Shared {
    path: PathBuf,
    orders: mpsc::Sender<Order>,
    next: AtomicU64,
    /// Every place that somebody holds.
    places: Mutex<HashMap<PlaceId, Weak<KeptPlace>>>,
    /// Places that nobody holds any more, of which the keeper has not heard.
    left: Mutex<Vec<PlaceId>>,
    leaving: Notify,
}

/// Why the keeper did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unkept {
    /// It did not answer, or is not there.
    #[error("the keeper at {} does not answer", path.display())]
    Silent {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It said why.
    #[error(transparent)]
    Refused(#[from] Fault),
}

impl From<Unkept> for io::Error {
    fn from(error: Unkept) -> Self {
        match error {
            Unkept::Refused(Fault::Kernel { errno }) => Self::from_raw_os_error(errno),
            Unkept::Refused(fault) => Self::other(fault),
            silent => Self::new(io::ErrorKind::NotConnected, silent),
        }
    }
}

impl Kept {
    /// The keeper that listens at `path`, and the component that carries what is said.
    pub(super) fn at(path: &Path) -> (Self, Link) {
        let (orders, ordered) = mpsc::channel(ORDERS);
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            orders,
            next: AtomicU64::new(1),
            places: Mutex::default(),
            left: Mutex::default(),
            leaving: Notify::new(),
        });
        (Self(Arc::clone(&shared)), Link::new(shared, ordered))
    }

    /// A place at the keeper.
    pub(super) async fn attach(&self, network: Network) -> Result<Arc<KeptPlace>, Unkept> {
        let shared = &self.0;
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        let verb = Verb::Attach {
            place: id,
            network: network.clone(),
        };
        // Held before it is asked for: dropped at any await, the keeper is told to let go.
        let place = Arc::new(KeptPlace {
            id,
            network,
            identity: Mutex::new(None),
            shared: Arc::clone(shared),
            gone: CancellationToken::new(),
            keeping: AtomicBool::new(false),
            dns: AtomicBool::new(false),
            udp: AtomicBool::new(false),
            datagrams: Mutex::new(None),
            rules: watch::Sender::new(State::Pending),
            host: host::Told::default(),
            stocks: Default::default(),
        });
        let (answer, _none) = self.ask(verb, PATIENCE).await?;
        let Answer::Attached { identity } = answer else {
            return Err(Fault::unexpected().into());
        };
        *held(&place.identity) = Some(identity);
        held(&shared.places).insert(id, Arc::downgrade(&place));
        Ok(place)
    }

    /// Asks once, and waits for the answer.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the answer to nobody; descriptors that come with it are closed.
    async fn ask(&self, verb: Verb, patience: Duration) -> Result<(Answer, Vec<OwnedFd>), Unkept> {
        let (tell, told) = oneshot::channel();
        let order = Order {
            verb,
            asked: Asked::Caller(tell),
        };
        let ended = || io::Error::new(io::ErrorKind::ConnectionAborted, "it ended meanwhile");
        let asking = async {
            let sent = self.0.orders.send(order).await;
            sent.map_err(|_link_ended| ended())?;
            told.await.unwrap_or_else(|_gone| Err(ended()))
        };
        let silence = io::Error::from(io::ErrorKind::TimedOut);
        let heard = timeout(patience, asking).await.unwrap_or(Err(silence));
        match heard.map_err(|source| self.silent(source))? {
            (Answer::Refused(fault), _none) => Err(fault.into()),
            heard => Ok(heard),
        }
    }

    fn silent(&self, source: io::Error) -> Unkept {
        Unkept::Silent {
            path: self.0.path.clone(),
            source,
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kept").field(&self.0.path).finish()
    }
}

/// A place at the keeper; it is let go when this is dropped.
pub(super) struct KeptPlace {
    id: PlaceId,
    network: Network,
    /// Which namespace it is, whatever it is called.
    identity: Mutex<Option<(u64, u64)>>,
    shared: Arc<Shared>,
    gone: CancellationToken,
    /// Its rules are to be kept, also by a keeper that comes after this one.
    keeping: AtomicBool,
    /// With those for questions for names.
    dns: AtomicBool,
    /// With those for datagrams.
    udp: AtomicBool,
    /// These, once it is known which.
    datagrams: Mutex<WantedDatagrams>,
    rules: watch::Sender<State>,
    /// Of the host's network, what a keeper is told.
    host: host::Told,
    stocks: [Stock; 2],
}

impl KeptPlace {
    pub(super) fn name(&self) -> &str {
        self.network.name()
    }

    /// Returns once the keeper says that the network is gone or another.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// A socket that no address is known of yet.
    pub(super) async fn listen(&self, port: u16) -> io::Result<OwnedFd> {
        let place = self.id;
        self.one(Verb::Listen { place, port }).await
    }

    pub(super) async fn listen_udp(&self, at: SocketAddr) -> io::Result<OwnedFd> {
        let place = self.id;
        self.one(Verb::ListenUdp { place, at }).await
    }

    pub(super) async fn udp(&self, to: IpAddr) -> io::Result<OwnedFd> {
        let (place, family) = (self.id, Family::of(to));
        self.one(Verb::Udp { place, family }).await
    }

    /// A marked TCP socket that may bear any address and is neither bound nor connected.
    pub(super) async fn dialer(self: &Arc<Self>, to: IpAddr) -> io::Result<Socket> {
        let family = Family::of(to);
        let stock = &self.stocks[family as usize];
        let (taken, ask) = stock.take();
        if let Some(socket) = taken {
            if let Some(count) = ask {
                self.refill(family, count);
            }
            return Ok(socket.into());
        }
        let (place, count) = (self.id, ask.unwrap_or(1));
        let _refilled = ask.map(|_| Refill::of(self, family));
        let asked = self
            .ask(
                Verb::Dial {
                    place,
                    family,
                    count,
                },
                PATIENCE,
            )
            .await;
        let (_answer, mut sockets) = asked?;
        let socket = sockets.pop().ok_or_else(Fault::unexpected);
        stock.put(sockets);
        Ok(socket.map_err(Unkept::from)?.into())
    }

    /// Has the stock filled without waiting for it.
    fn refill(self: &Arc<Self>, family: Family, count: u8) {
        let place = self.id;
        let order = Order {
            verb: Verb::Dial {
                place,
                family,
                count,
            },
            asked: Asked::Stock(Refill::of(self, family)),
        };
        // With as many questions waiting, whoever finds the stock empty asks itself.
        let _unasked = self.shared.orders.try_send(order);
    }

    /// Whether an address is one of the network's own now: only such a one can be bound by a socket
    /// that is no longer allowed to bear foreign ones.
    pub(super) async fn owns(self: &Arc<Self>, ip: IpAddr) -> bool {
        let Ok(socket) = self.dialer(ip).await else {
            return false;
        };
        let plain = match ip {
            IpAddr::V4(_) => socket
                .set_ip_transparent_v4(false)
                .and_then(|()| socket.set_freebind_v4(false)),
            IpAddr::V6(_) => socket
                .set_ip_transparent_v6(false)
                .and_then(|()| socket.set_freebind_v6(false)),
        };
        let any_port = SocketAddr::new(ip, 0);
        plain.and_then(|()| socket.bind(&any_port.into())).is_ok()
    }

    /// Has the rules kept, by whichever keeper is there, until [`Self::close`].
    pub(super) async fn keep(&self, dns: bool) -> io::Result<watch::Receiver<State>> {
        let state = self.rules.subscribe();
        self.dns.store(dns, Ordering::Release);
        self.keeping.store(true, Ordering::Release);
        let kept = self.ask(self.to_keep(), PATIENCE).await;
        match kept {
            Ok(_done) => Ok(state),
            Err(e) => {
                self.keeping.store(false, Ordering::Release);
                Err(e.into())
            }
        }
    }

    /// What a keeper is told that is to keep them.
    fn to_keep(&self) -> Verb {
        Verb::Keep {
            place: self.id,
            dns: self.dns.load(Ordering::Acquire),
            udp: self.udp.load(Ordering::Acquire),
        }
    }

    /// Closes the keeper's copies of the listeners. The rules stay.
    pub(super) async fn close(&self) {
        self.keeping.store(false, Ordering::Release);
        self.udp.store(false, Ordering::Release);
        *held(&self.datagrams) = None;
        self.host.forget();
        // A keeper that is not there has no copies.
        let _gone = self.ask(Verb::Close { place: self.id }, PATIENCE).await;
    }

    /// Removes the rules.
    pub(super) async fn release(&self) -> Result<(), CaptureError> {
        let released = self.ask(Verb::Release { place: self.id }, REMOVAL).await;
        match released {
            Ok(_done) => Ok(()),
            Err(Unkept::Refused(fault)) => Err(CaptureError::Told {
                said: fault.to_string(),
            }),
            Err(silent) => Err(CaptureError::Keeper {
                source: silent.into(),
            }),
        }
    }

    /// Runs a command there; `None` where it takes longer than `timeout`.
    pub(super) async fn run(
        &self,
        command: &[Arc<str>],
        timeout: Duration,
    ) -> io::Result<Option<Ran>> {
        let verb = Verb::Run {
            place: self.id,
            command: command.to_vec(),
            timeout,
        };
        let (answer, _none) = self.ask(verb, timeout + PATIENCE).await?;
        match answer {
            Answer::Ran(ran) => Ok(ran),
            _ => Err(Unkept::from(Fault::unexpected()).into()),
        }
    }

    async fn one(&self, verb: Verb) -> io::Result<OwnedFd> {
        let (_answer, mut sockets) = self.ask(verb, PATIENCE).await?;
        let socket = sockets.pop().ok_or_else(Fault::unexpected);
        Ok(socket.map_err(Unkept::from)?)
    }

    async fn ask(&self, verb: Verb, patience: Duration) -> Result<(Answer, Vec<OwnedFd>), Unkept> {
        let heard = Kept(Arc::clone(&self.shared)).ask(verb, patience).await;
        if let Err(Unkept::Refused(Fault::NoPlace)) = &heard {
            // The keeper is another one, and found it gone.
            self.gone.cancel();
        }
        heard
    }
}

/// Sockets on their way to a stock; dropped once they are there, or will not come.
struct Refill {
    place: Weak<KeptPlace>,
    family: Family,
}

impl Refill {
    fn of(place: &Arc<KeptPlace>, family: Family) -> Self {
        let place = Arc::downgrade(place);
        Self { place, family }
    }

    fn put(&self, sockets: Vec<OwnedFd>) {
        if let Some(place) = self.place.upgrade() {
            place.stocks[self.family as usize].put(sockets);
        }
    }
}

impl Drop for Refill {
    fn drop(&mut self) {
        if let Some(place) = self.place.upgrade() {
            place.stocks[self.family as usize].refilled();
        }
    }
}

impl Drop for KeptPlace {
    fn drop(&mut self) {
        held(&self.shared.places).remove(&self.id);
        held(&self.shared.left).push(self.id);
        self.shared.leaving.notify_one();
    }
}

impl fmt::Debug for KeptPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut place = f.debug_struct("KeptPlace");
        place.field("id", &self.id).field("network", &self.network);
        place.finish_non_exhaustive()
    }
}

/// The attachment's error in the words of [`super::attach`].
pub(super) fn unattached(name: &Arc<str>, error: Unkept) -> AttachError {
    let name = Arc::clone(name);
    if let Unkept::Refused(Fault::Missing) = error {
        return AttachError::Missing { name };
    }
    let source = io::Error::from(error);
    match source.kind() {
        io::ErrorKind::PermissionDenied => AttachError::Forbidden { name, source },
        _ => AttachError::Open { name, source },
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
