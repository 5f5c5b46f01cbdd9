//! One proxy's connection: answers what it asks, and tells it how its places are.

mod datagrams;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::holdings::{Holder, Holdings};
use super::hosting::{Coming, Hosting, WORKLOADS};
use crate::capture::host::{Outcome, Wanted};
use crate::capture::kept::channel::Channel;
use crate::capture::kept::protocol::{
    Answer, DESCRIPTORS, Family, Fault, Message, Network, News, PlaceId, Question, Taken, VERSION,
    Verb, brief, pieces,
};
use crate::capture::reconcile::State;
use crate::capture::ruleset::{HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT};
use crate::capture::{AttachError, Captured, Netns, Place, Target};
use crate::causes::chain;

/// Places of one connection; a host has some thousand workloads at most.
const PLACES: usize = 16_384;
/// What one connection may have under way: a proxy runs four commands at once, and lets go of a
/// host's workloads at once at most.
const LATER: usize = 4096;
/// Longest time of a command.
const COMMAND: Duration = Duration::from_secs(3600);
/// Where names are asked for.
const DNS_PORT: u16 = 15053;
/// Ports that may be listened on: whoever takes the proxy over cannot be another program's server.
const PORTS: [u16; 4] = [OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT, DNS_PORT];
/// Between looks for rules that no proxy wants any more.
const LOOK: Duration = Duration::from_secs(5);

/// A connection whose other end is the proxy's user.
pub(super) struct Session {
    channel: Arc<Channel>,
    holdings: Arc<Holdings>,
    greeted: bool,
    places: HashMap<PlaceId, Held>,
    /// What is answered later.
    later: JoinSet<()>,
}

/// A place of this connection.
struct Held {
    place: Place,
    /// Held along with the proxy, so that another generation can have the same.
    listeners: Vec<Arc<TcpListener>>,
    captured: Option<Arc<Captured>>,
    rules: Option<Watched>,
    host: Option<WatchedHost>,
}

/// The host's rules, and what the proxy has told so far of the workloads that they are for.
struct WatchedHost {
    hosting: Arc<Hosting>,
    coming: Coming<Wanted>,
    datagrams: Coming<Taken>,
    /// Ends with this.
    _telling: JoinSet<()>,
}

/// Rules that the proxy is told of.
struct Watched {
    holder: Holder,
    coming: Coming<Taken>,
    /// Ends with this.
    _telling: JoinSet<()>,
}

/// An answer and what is sent with it; none where the answer comes later, or is not waited for.
type Reply = Result<(Answer, Vec<OwnedFd>), Fault>;

impl Session {
    pub(super) fn new(channel: Channel, holdings: Arc<Holdings>) -> Self {
        Self {
            channel: Arc::new(channel),
            holdings,
            greeted: false,
            places: HashMap::new(),
            later: JoinSet::new(),
        }
    }

    /// Answers until the other end is gone.
    ///
    /// # Errors
    /// When the other end says what cannot be understood.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let question = tokio::select! {
                question = self.channel.receive::<Question>() => question?,
                _now = look.tick() => {
                    self.holdings.forsake();
                    continue;
                }
                Some(_ended) = self.later.join_next() => continue,
            };
            // Descriptors that nobody asked for are closed.
            let Some((Question { id, verb }, _uninvited)) = question else {
                return Ok(());
            };
            self.greet(&verb)?;
            let Some(reply) = self.answer(id, verb).await else {
                continue;
            };
            let (answer, sockets) =
                reply.unwrap_or_else(|fault| (Answer::Refused(fault), Vec::new()));
            let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
            let message = Message::Answer { to: id, answer };
            self.channel.send(&message, &sockets).await?;
        }
    }

    /// Nothing is answered before both have found that they speak alike.
    fn greet(&mut self, verb: &Verb) -> io::Result<()> {
        let alike = matches!(verb, Verb::Hello { version } if *version == VERSION);
        if alike == self.greeted {
            let told = format!("it does not speak version {VERSION} of this protocol");
            return Err(io::Error::new(io::ErrorKind::InvalidData, told));
        }
        if alike {
            self.greeted = true;
            self.holdings.wait_for_proxy();
        }
        Ok(())
    }

    async fn answer(&mut self, id: u64, verb: Verb) -> Option<Reply> {
        let done = |reply: Result<(), Fault>| Some(reply.map(|()| (Answer::Done, Vec::new())));
        let sockets = |sockets: Result<Vec<OwnedFd>, Fault>| {
            Some(sockets.map(|sockets| (Answer::Done, sockets)))
        };
        match verb {
            Verb::Hello { .. } => done(Ok(())),
            Verb::Attach { place, network } => Some(self.attach(place, &network)),
            Verb::Listen { place, port } => {
                let listener = self.listen(place, port).await;
                sockets(listener.map(|listener| vec![listener]))
            }
            Verb::ListenUdp { place, at } => {
                let socket = self.listen_udp(place, at).await;
                sockets(socket.map(|socket| vec![socket]))
            }
            Verb::ListenTunnelsUdp { place } => {
                let socket = self.listen_tunnels_udp(place).await;
                sockets(socket.map(|socket| vec![socket]))
            }
            Verb::Dial {
                place,
                family,
                count,
            } => sockets(self.dial(place, family, count)),
            Verb::Udp { place, family } => {
                let socket = self.udp(place, family).await;
                sockets(socket.map(|socket| vec![socket]))
            }
            Verb::CaptureUdp { place } => sockets(self.capture_udp(place).await),
            Verb::AnswerUdp { place, from } => {
                let socket = self.answer_udp(place, from).await;
                sockets(socket.map(|socket| vec![socket]))
            }
            Verb::SpeakUdp { place, family } => {
                let socket = self.speak_udp(place, family);
                sockets(socket.map(|socket| vec![socket]))
            }
            Verb::Keep { place, dns, udp } => done(self.keep(place, dns, udp).await),
            Verb::Datagrams {
                place,
                datagrams,
                first,
                more,
            } => done(self.datagrams(place, datagrams, first, more)),
            Verb::KeepHost { place, udp } => done(self.keep_host(place, udp).await),
            Verb::Workloads {
                place,
                workloads,
                first,
                more,
            } => done(self.workloads(place, workloads, first, more)),
            Verb::Close { place } => done(self.close(place)),
            Verb::Release { place } => self.release(id, place).err().map(Err),
            Verb::Run {
                place,
                command,
                timeout,
            } => self.start(id, place, command, timeout).err().map(Err),
            Verb::Leave { place } => {
                self.places.remove(&place);
                done(Ok(()))
            }
        }
    }

    fn attach(&mut self, id: PlaceId, network: &Network) -> Reply {
        if self.places.len() >= PLACES || self.places.contains_key(&id) {
            return Err(Fault::told("too many places, or a number that is taken"));
        }
        let place = match network {
            Network::Host => Netns::current()?.into(),
            Network::Netns(name) => Place::from(open(name)?),
        };
        let identity = place.identity().ok_or(Fault::NoPlace)?;
        let held = Held {
            place,
            listeners: Vec::new(),
            captured: None,
            rules: None,
            host: None,
        };
        self.places.insert(id, held);
        Ok((Answer::Attached { identity }, Vec::new()))
    }

    async fn listen(&mut self, id: PlaceId, port: u16) -> Result<OwnedFd, Fault> {
        allowed(port)?;
        let held = self.places.get_mut(&id).ok_or(Fault::NoPlace)?;
        let listener = self.holdings.listen(&held.place, port).await?;
        let copy = listener.try_clone()?;
        // Asked for again and again, it is held once.
        held.listeners
            .retain(|other| !Arc::ptr_eq(other, &listener));
        held.listeners.push(listener);
        Ok(copy.into())
    }

    async fn listen_udp(&self, id: PlaceId, at: SocketAddr) -> Result<OwnedFd, Fault> {
        allowed(at.port())?;
        let place = self.place(id)?;
        Ok(self.holdings.sockets().listen_udp(place, at).await?.into())
    }

    fn dial(&self, id: PlaceId, family: Family, count: u8) -> Result<Vec<OwnedFd>, Fault> {
        let count = usize::from(count).clamp(1, DESCRIPTORS);
        let sockets = self.holdings.sockets();
        Ok(sockets.dialers(self.place(id)?, family, count)?)
    }

    async fn udp(&self, id: PlaceId, family: Family) -> Result<OwnedFd, Fault> {
        let any = match family {
            Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = self.holdings.sockets().udp(self.place(id)?, any).await?;
        Ok(socket.into())
    }

    async fn keep(&mut self, id: PlaceId, dns: bool, udp: bool) -> Result<(), Fault> {
        let held = self.places.get_mut(&id).ok_or(Fault::NoPlace)?;
        let holder = self.holdings.keep(&held.place, dns, udp).await?;
        let mut telling = JoinSet::new();
        telling.spawn(tell(Arc::clone(&self.channel), id, holder.clone()));
        held.rules = Some(Watched {
            holder,
            coming: Coming::most(datagrams::MOST),
            _telling: telling,
        });
        Ok(())
    }

    async fn keep_host(&mut self, id: PlaceId, udp: bool) -> Result<(), Fault> {
        let held = self.places.get_mut(&id).ok_or(Fault::NoPlace)?;
        let hosting = self.holdings.keep_host(&held.place, udp).await?;
        let mut telling = JoinSet::new();
        telling.spawn(tell_host(Arc::clone(&self.channel), id, hosting.outcome()));
        held.host = Some(WatchedHost {
            hosting,
            coming: Coming::most(WORKLOADS),
            datagrams: Coming::most(datagrams::MOST),
            _telling: telling,
        });
        Ok(())
    }

    fn workloads(
        &mut self,
        id: PlaceId,
        some: Vec<Wanted>,
        first: bool,
        more: bool,
    ) -> Result<(), Fault> {
        let held = self.places.get_mut(&id).ok_or(Fault::NoPlace)?;
        let host = held.host.as_mut().ok_or_else(|| {
            let said = "no rules of the host's network are kept for this place";
            Fault::told(said)
        })?;
        if let Some(all) = host.coming.take(some, first, more)? {
            host.hosting.tell(all);
        }
        Ok(())
    }

    fn close(&mut self, id: PlaceId) -> Result<(), Fault> {
        let held = self.places.get_mut(&id).ok_or(Fault::NoPlace)?;
        held.listeners.clear();
        held.captured = None;
        held.rules = None;
        held.host = None;
        Ok(())
    }

    /// Begins to remove rules; the answer comes when they are gone.
    fn release(&mut self, id: u64, place: PlaceId) -> Result<(), Fault> {
        let held = self.places.get_mut(&place).ok_or(Fault::NoPlace)?;
        held.rules = None;
        let (place, holdings) = (held.place.clone(), Arc::clone(&self.holdings));
        self.answer_later(id, async move {
            match holdings.release(&place).await {
                Ok(()) => Answer::Done,
                Err(e) => Answer::Refused(Fault::told(chain(&e))),
            }
        })
    }

    /// Starts a command; the answer comes when it has ended.
    fn start(
        &mut self,
        id: u64,
        place: PlaceId,
        command: Vec<Arc<str>>,
        timeout: Duration,
    ) -> Result<(), Fault> {
        let place = self.place(place)?.clone();
        let sockets = self.holdings.sockets().clone();
        self.answer_later(id, async move {
            let ran = sockets.run(&place, &command, timeout.min(COMMAND)).await;
            match ran {
                Ok(ran) => Answer::Ran(ran),
                Err(e) => Answer::Refused(e.into()),
            }
        })
    }

    /// Answers once that is known, and meanwhile what else is asked.
    fn answer_later(
        &mut self,
        id: u64,
        answer: impl Future<Output = Answer> + Send + 'static,
    ) -> Result<(), Fault> {
        if self.later.len() >= LATER {
            return Err(Fault::told("too much is under way already"));
        }
        let channel = Arc::clone(&self.channel);
        self.later.spawn(async move {
            let answer = answer.await;
            // A proxy that is gone is noticed where it is listened to.
            let _gone = channel.send(&Message::Answer { to: id, answer }, &[]).await;
        });
        Ok(())
    }

    fn place(&self, id: PlaceId) -> Result<&Place, Fault> {
        let held = self.places.get(&id).ok_or(Fault::NoPlace)?;
        Ok(&held.place)
    }
}

fn allowed(port: u16) -> Result<(), Fault> {
    match PORTS.contains(&port) {
        true => Ok(()),
        false => Err(Fault::told(format!("port {port} is none of the mesh's"))),
    }
}

fn open(name: &Arc<str>) -> Result<Netns, Fault> {
    Target::Netns(Arc::clone(name))
        .attach()
        .map_err(|e| match e {
            AttachError::Missing { .. } => Fault::Missing,
            AttachError::Forbidden { source, .. } | AttachError::Open { source, .. } => {
                source.into()
            }
        })
}

/// Tells how the rules of a place are, until its network is gone.
async fn tell(channel: Arc<Channel>, place: PlaceId, rules: Holder) {
    let mut state = rules.state();
    loop {
        let now = state.borrow_and_update().clone();
        let news = match now {
            State::Pending => None,
            State::InPlace => Some(News::InPlace),
            State::Failed(e) => Some(News::Failed {
                said: brief(chain(&*e)),
            }),
        };
        if let Some(news) = news
            && channel
                .send(&Message::News { place, news }, &[])
                .await
                .is_err()
        {
            // Noticed where the proxy is listened to.
            return;
        }
        let gone = tokio::select! {
            changed = state.changed() => changed.is_err(),
            () = rules.gone() => true,
        };
        if gone {
            let news = News::Gone;
            let _told_or_gone = channel.send(&Message::News { place, news }, &[]).await;
            return;
        }
    }
}

/// Tells how the workloads of the host's network are, whenever that changes.
async fn tell_host(
    channel: Arc<Channel>,
    place: PlaceId,
    mut outcome: watch::Receiver<Arc<Outcome>>,
) {
    loop {
        let now = Arc::clone(&outcome.borrow_and_update());
        let failed = now.failed.as_deref().map(|e| brief(chain(e)));
        let standings = now
            .workloads
            .iter()
            .map(|(mark, standing)| (*mark, standing.clone()));
        let mut pieces = pieces(standings.collect());
        let last = pieces.pop().unwrap_or_default();
        let piece = |(standings, more)| News::Workloads {
            standings,
            failed: failed.clone(),
            more,
        };
        let all = pieces.into_iter().map(|piece| (piece, true));
        for news in all.chain([(last, false)]).map(piece) {
            if channel
                .send(&Message::News { place, news }, &[])
                .await
                .is_err()
            {
                // Noticed where the proxy is listened to.
                return;
            }
        }
        if outcome.changed().await.is_err() {
            return;
        }
    }
}
