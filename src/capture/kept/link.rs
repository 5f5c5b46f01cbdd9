//! Carries what the proxy asks to the keeper and what the keeper says back, and finds it again when
//! it was away.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::channel::Channel;
use super::protocol::{Answer, Message, News, PlaceId, Question, VERSION, Verb};
use super::{CaptureError, KeptPlace, Refill, Shared, State, held};
use crate::causes::chain;

/// Wait after the first failed attempt, doubled with each further one.
const FIRST: Duration = Duration::from_millis(10);
/// Longest wait between attempts: a keeper that is back is found within it.
const LAST: Duration = Duration::from_millis(500);
/// Longest wait for the keeper's first word.
const GREETING: Duration = Duration::from_secs(2);

/// Whether the keeper is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linked {
    /// It answers.
    Up,
    /// It does not: what is open goes on, but nothing new is opened.
    Down {
        /// Since when.
        since: SystemTime,
        /// Why, as far as that is known.
        reason: String,
    },
}

/// What one of us asks.
pub(super) struct Order {
    pub(super) verb: Verb,
    pub(super) asked: Asked,
}

/// Who waits for the answer.
pub(super) enum Asked {
    /// Somebody.
    Caller(oneshot::Sender<Heard>),
    /// A stock of sockets.
    Stock(Refill),
    /// A place that another keeper is told of.
    Again(Weak<KeptPlace>),
    /// The rules of a place that another keeper is to keep.
    Kept(Weak<KeptPlace>),
    /// The rules of the host's network that another keeper is to keep, and for whom.
    KeptHost(Weak<KeptPlace>),
    /// Nobody.
    Nobody,
}

/// An answer, and the descriptors with it; or why there is none.
pub(super) type Heard = io::Result<(Answer, Vec<OwnedFd>)>;

/// The connection to the keeper, as a component.
pub struct Link {
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    state: watch::Sender<Linked>,
}

/// The questions that wait for an answer.
#[derive(Default)]
struct Open(Mutex<(u64, HashMap<u64, Asked>)>);

impl Link {
    pub(super) fn new(shared: Arc<Shared>, orders: mpsc::Receiver<Order>) -> Self {
        let state = watch::Sender::new(Linked::Down {
            since: SystemTime::now(),
            reason: "not asked yet".to_owned(),
        });
        Self {
            shared,
            orders,
            state,
        }
    }

    /// Tells whether the keeper is there.
    pub fn state(&self) -> watch::Receiver<Linked> {
        self.state.subscribe()
    }

    /// Carries until `shutdown`. Who asks while the keeper is away is told so at once.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let carried = async {
            let mut wait = FIRST;
            loop {
                let ended = match self.open().await {
                    Ok(channel) => {
                        wait = FIRST;
                        self.is_up();
                        self.carry(&channel).await
                    }
                    Err(e) => e,
                };
                self.is_down(&ended);
                self.refuse(wait, &ended).await;
                wait = (wait * 2).min(LAST);
            }
        };
        let _stopped: Option<()> = shutdown.run_until_cancelled(carried).await;
    }

    async fn open(&self) -> io::Result<Channel> {
        let channel = Channel::connect(&self.shared.path)?;
        let hello = Question {
            id: 0,
            verb: Verb::Hello { version: VERSION },
        };
        channel.send(&hello, &[]).await?;
        let said = timeout(GREETING, channel.receive()).await;
        let said = said.map_err(|_elapsed| io::ErrorKind::TimedOut)??;
        match said {
            Some((Message::Answer { answer, .. }, _none)) => match answer {
                Answer::Refused(fault) => Err(io::Error::other(fault)),
                _hello => Ok(channel),
            },
            Some((Message::News { .. }, _none)) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "it hung up: it serves another user than this process runs as, or runs another build",
            )),
        }
    }

    /// Carries until the connection breaks; says why it did. To send and to hear never wait for
    /// each other, or both ends could wait for ever.
    async fn carry(&mut self, channel: &Channel) -> io::Error {
        let open = Open::default();
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            ended = hear(&shared, channel, &open) => ended,
            ended = self.send(channel, &open) => ended,
        }
    }

    async fn send(&mut self, channel: &Channel, open: &Open) -> io::Error {
        for order in again(&self.shared) {
            if let Err(e) = open.ask(channel, order).await {
                return e;
            }
        }
        loop {
            let sent = tokio::select! {
                Some(order) = self.orders.recv() => open.ask(channel, order).await,
                () = self.shared.leaving.notified() => leave(&self.shared, channel, open).await,
            };
            if let Err(e) = sent {
                return e;
            }
        }
    }

    /// Answers those who ask for a time that there is nobody to ask.
    async fn refuse(&mut self, wait: Duration, reason: &io::Error) {
        // A keeper that comes has never heard of them.
        held(&self.shared.left).clear();
        let refusing = async {
            while let Some(order) = self.orders.recv().await {
                if let Asked::Caller(tell) = order.asked {
                    let error = io::Error::new(reason.kind(), chain(reason));
                    let _unheard = tell.send(Err(error));
                }
            }
        };
        tokio::select! {
            () = refusing => {}
            () = sleep(wait) => {}
        }
    }

    fn is_up(&self) {
        self.state.send_if_modified(|state| {
            let before = std::mem::replace(state, Linked::Up);
            before != Linked::Up
        });
        info!(socket = %self.shared.path.display(), "the keeper answers");
    }

    fn is_down(&self, error: &io::Error) {
        let told = chain(error);
        self.state.send_if_modified(|state| match state {
            Linked::Down { reason, .. } if *reason == told => false,
            Linked::Down { reason, .. } => {
                *reason = told;
                true
            }
            Linked::Up => {
                warn!(
                    socket = %self.shared.path.display(),
                    reason = told,
                    "the keeper is gone: what is open goes on, nothing new is opened"
                );
                *state = Linked::Down {
                    since: SystemTime::now(),
                    reason: told,
                };
                true
            }
        });
    }
}

impl Open {
    async fn ask(&self, channel: &Channel, order: Order) -> io::Result<()> {
        if let Asked::Caller(tell) = &order.asked
            && tell.is_closed()
        {
            // Nobody waits any more, and nobody would let go of what is opened.
            return Ok(());
        }
        let id = {
            let mut open = held(&self.0);
            open.0 += 1;
            let id = open.0;
            open.1.insert(id, order.asked);
            id
        };
        let question = Question {
            id,
            verb: order.verb,
        };
        match channel.send(&question, &[]).await {
            // Longer than any message may be: the fault of who asked, not of the connection.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                self.heard(id, Err(e));
                Ok(())
            }
            other => other,
        }
    }

    fn heard(&self, id: u64, heard: Heard) {
        let asked = held(&self.0).1.remove(&id);
        match (asked, heard) {
            (Some(Asked::Caller(tell)), heard) => {
                // Who does not wait any more leaves the sockets to be closed.
                let _unheard = tell.send(heard);
            }
            (Some(Asked::Stock(refill)), Ok((_done, sockets))) => refill.put(sockets),
            (Some(Asked::Again(place)), Ok((answer, _none))) => {
                let Some(place) = place.upgrade() else {
                    return;
                };
                let was = *held(&place.identity);
                if !matches!(answer, Answer::Attached { identity } if Some(identity) == was) {
                    place.gone.cancel();
                }
            }
            (Some(Asked::Kept(place)), Ok((Answer::Refused(fault), _none))) => {
                let Some(place) = place.upgrade() else {
                    return;
                };
                warn!(place = place.name(), error = %fault, "the keeper does not keep the rules");
                // Who has it taken up asks another time.
                place.gone.cancel();
            }
            (Some(Asked::KeptHost(place)), Ok((Answer::Refused(fault), _none))) => {
                if let Some(place) = place.upgrade() {
                    place.host_refused(&fault);
                }
            }
            _ => {}
        }
    }
}

/// What a keeper has to be told that has not been told by us before.
fn again(shared: &Shared) -> Vec<Order> {
    // Those the last one was to forget, this one has never heard of.
    held(&shared.left).clear();
    let places: Vec<Arc<KeptPlace>> = {
        let places = held(&shared.places);
        places.values().filter_map(Weak::upgrade).collect()
    };
    let mut orders = Vec::new();
    for place in places {
        orders.push(Order {
            verb: Verb::Attach {
                place: place.id,
                network: place.network.clone(),
            },
            asked: Asked::Again(Arc::downgrade(&place)),
        });
        let order = |verb| Order {
            verb,
            asked: Asked::KeptHost(Arc::downgrade(&place)),
        };
        let udp = place.udp.load(Ordering::Acquire);
        let host = place.host.verbs(place.id, udp);
        if !host.is_empty() {
            let datagrams = place.datagrams_again();
            orders.extend(host.into_iter().chain(datagrams).map(order));
        }
        if place.keeping.load(Ordering::Acquire) {
            orders.push(Order {
                verb: place.to_keep(),
                asked: Asked::Kept(Arc::downgrade(&place)),
            });
            let order = |verb| Order {
                verb,
                asked: Asked::Kept(Arc::downgrade(&place)),
            };
            orders.extend(place.datagrams_again().into_iter().map(order));
        }
    }
    orders
}

async fn leave(shared: &Shared, channel: &Channel, open: &Open) -> io::Result<()> {
    let left = std::mem::take(&mut *held(&shared.left));
    for place in left {
        let order = Order {
            verb: Verb::Leave { place },
            asked: Asked::Nobody,
        };
        open.ask(channel, order).await?;
    }
    Ok(())
}

async fn hear(shared: &Shared, channel: &Channel, open: &Open) -> io::Error {
    loop {
        match channel.receive().await {
            Ok(Some((Message::Answer { to, answer }, sockets))) => {
                open.heard(to, Ok((answer, sockets)));
            }
            Ok(Some((Message::News { place, news }, _none))) => note(shared, place, news),
            Ok(None) => return io::Error::new(io::ErrorKind::ConnectionAborted, "it has ended"),
            Err(e) => return e,
        }
    }
}

fn note(shared: &Shared, place: PlaceId, news: News) {
    let place = held(&shared.places).get(&place).and_then(Weak::upgrade);
    let Some(place) = place else {
        return;
    };
    let state = match news {
        News::InPlace => State::InPlace,
        News::Failed { said } => State::Failed(Arc::new(CaptureError::Told { said })),
        News::Gone => return place.gone.cancel(),
        News::Workloads {
            standings,
            failed,
            more,
        } => return place.host.note(standings, failed, more),
    };
    place.rules.send_if_modified(|old| {
        let news = !matches!((&*old, &state), (State::InPlace, State::InPlace));
        *old = state;
        news
    });
}
