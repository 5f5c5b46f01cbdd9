//! What the keeper holds for whichever proxy is there: listeners while one wants them, rules also
//! while none does.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::hosting::{Hosting, capture};
use crate::capture::keeping::Keeping;
use crate::capture::kept::protocol::Fault;
use crate::capture::reconcile::State;
use crate::capture::{CaptureError, Captured, Datagrams, Place, Sockets, Terms, WantedDatagrams};

/// How long a proxy that is there may leave rules alone that it has not asked for: it takes up its
/// workloads first.
const FORSAKEN: Duration = Duration::from_secs(30);

/// Device and inode of a namespace.
type Identity = (u64, u64);

/// Everything that is held.
pub(super) struct Holdings {
    sockets: Sockets,
    listeners: Mutex<HashMap<(Identity, u16), Weak<TcpListener>>>,
    captured: Mutex<HashMap<Identity, Weak<Captured>>>,
    rules: Mutex<HashMap<Identity, Arc<Rules>>>,
    host: Mutex<Option<Arc<Hosting>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The rules of one namespace.
struct Rules {
    name: String,
    /// Whether they are with those for questions for names.
    dns: bool,
    /// Which datagrams come to the proxy, where those for datagrams are with them.
    datagrams: Option<watch::Sender<WantedDatagrams>>,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    gone: CancellationToken,
    ended: CancellationToken,
    holders: Mutex<Holders>,
}

/// Who wants them.
struct Holders {
    count: usize,
    /// When the last one left, or could have come.
    since: Instant,
}

/// Somebody who wants rules kept.
pub(super) struct Holder(Arc<Rules>);

impl Holdings {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            sockets: Sockets::own(terms),
            listeners: Mutex::default(),
            captured: Mutex::default(),
            rules: Mutex::default(),
            host: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// The listener on a port of a place: the one that is held, or a new one.
    pub(super) async fn listen(&self, place: &Place, port: u16) -> io::Result<Arc<TcpListener>> {
        let identity = place.identity().ok_or(io::ErrorKind::Unsupported)?;
        let key = (identity, port);
        let there = held(&self.listeners).get(&key).and_then(Weak::upgrade);
        if let Some(listener) = there {
            return Ok(listener);
        }
        let listener = Arc::new(self.sockets.listen(place, port).await?);
        let mut listeners = held(&self.listeners);
        listeners.retain(|_, listener| listener.strong_count() > 0);
        listeners.insert(key, Arc::downgrade(&listener));
        Ok(listener)
    }

    /// The sockets that captured datagrams of a place come to: those that are held, or new ones.
    pub(super) async fn capture_udp(&self, place: &Place) -> io::Result<Arc<Captured>> {
        let identity = place.identity().ok_or(io::ErrorKind::Unsupported)?;
        let there = held(&self.captured).get(&identity).and_then(Weak::upgrade);
        if let Some(captured) = there {
            return Ok(captured);
        }
        let captured = Arc::new(self.sockets.capture_udp(place).await?);
        let mut all = held(&self.captured);
        all.retain(|_, captured| captured.strong_count() > 0);
        all.insert(identity, Arc::downgrade(&captured));
        Ok(captured)
    }

    /// Keeps the rules of a place from here on, with those for questions for names or without, and with
    /// those for datagrams or without; those that are kept already are taken up as they are.
    pub(super) async fn keep(
        self: &Arc<Self>,
        place: &Place,
        dns: bool,
        udp: bool,
    ) -> io::Result<Holder> {
        let identity = place.identity().ok_or(io::ErrorKind::Unsupported)?;
        loop {
            let there = held(&self.rules).get(&identity).cloned();
            match there {
                Some(rules) if rules.stop.is_cancelled() => rules.ended.cancelled().await,
                Some(rules) if (rules.dns, rules.datagrams.is_some()) == (dns, udp) => {
                    return Ok(Holder::of(rules));
                }
                // They stay until the others take their place.
                Some(rules) => rules.stop.cancel(),
                None => break,
            }
        }
        let datagrams = udp.then(|| watch::Sender::new(WantedDatagrams::None));
        let (keeping, state) = match &datagrams {
            Some(told) => self.sockets.keep_udp(place, dns, told.subscribe()).await?,
            None => self.sockets.keep(place, dns).await?,
        };
        let rules = Arc::new(Rules {
            name: place.name().to_owned(),
            dns,
            datagrams,
            state,
            stop: self.stop.child_token(),
            gone: CancellationToken::new(),
            ended: CancellationToken::new(),
            holders: Mutex::new(Holders {
                count: 0,
                since: Instant::now(),
            }),
        });
        held(&self.rules).insert(identity, Arc::clone(&rules));
        let task = Arc::clone(self).hold(identity, place.clone(), keeping, Arc::clone(&rules));
        self.tasks.spawn(task);
        Ok(Holder::of(rules))
    }

    async fn hold(
        self: Arc<Self>,
        identity: Identity,
        place: Place,
        keeping: Keeping,
        rules: Arc<Rules>,
    ) {
        let _ended = rules.ended.clone().drop_guard();
        tokio::select! {
            () = keeping.run(rules.stop.clone()) => {}
            () = place.gone() => rules.gone.cancel(),
        }
        let mut all = held(&self.rules);
        if all
            .get(&identity)
            .is_some_and(|now| Arc::ptr_eq(now, &rules))
        {
            all.remove(&identity);
        }
    }

    /// Keeps the rules of the host's network from here on, with those for datagrams or without; those that
    /// are kept already are taken up as they are.
    pub(super) async fn keep_host(&self, place: &Place, udp: bool) -> io::Result<Arc<Hosting>> {
        loop {
            let there = held(&self.host).clone();
            match there {
                Some(hosting) if hosting.stop.is_cancelled() => hosting.ended.cancelled().await,
                Some(hosting) if hosting.captures_udp() == udp => return Ok(hosting),
                // They stay until the others take their place.
                Some(hosting) => hosting.stop.cancel(),
                None => break,
            }
            if self.stop.is_cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            held(&self.host).take_if(|hosting| hosting.ended.is_cancelled());
        }
        let stop = self.stop.child_token();
        let (hosting, keeping) = Hosting::new(&self.sockets, place, udp, stop).await?;
        *held(&self.host) = Some(Arc::clone(&hosting));
        let ended = hosting.ended.clone().drop_guard();
        let kept = keeping.run(hosting.stop.clone());
        self.tasks.spawn(async move {
            let _ended = ended;
            kept.await;
        });
        Ok(hosting)
    }

    /// Removes the rules of a place.
    pub(super) async fn release(&self, place: &Place) -> Result<(), CaptureError> {
        let there = place.identity().and_then(|identity| {
            let rules = held(&self.rules);
            rules.get(&identity).cloned()
        });
        if let Some(rules) = there {
            rules.stop.cancel();
            // Else they might be put back right after.
            rules.ended.cancelled().await;
        }
        self.sockets.release(place).await
    }

    /// Stops keeping rules that no proxy has asked for since one could have. They stay as they are,
    /// and whoever removes them is let.
    pub(super) fn forsake(&self) {
        for rules in held(&self.rules).values() {
            let holders = held(&rules.holders);
            if holders.count == 0 && holders.since.elapsed() > FORSAKEN {
                info!(
                    netns = rules.name,
                    "rules that no proxy wants are left to themselves"
                );
                rules.stop.cancel();
            }
        }
    }

    /// Gives every set of rules that nobody wants its full time from now on: a proxy has come.
    pub(super) fn wait_for_proxy(&self) {
        for rules in held(&self.rules).values() {
            held(&rules.holders).since = Instant::now();
        }
    }

    /// Ends everything that runs. The rules stay.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Holder {
    fn of(rules: Arc<Rules>) -> Self {
        held(&rules.holders).count += 1;
        Self(rules)
    }

    /// Has these datagrams captured from now on.
    pub(super) fn capture(&self, wanted: Datagrams) -> Result<(), Fault> {
        capture(self.0.datagrams.as_ref(), wanted)
    }

    /// How the rules are.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.0.state.clone()
    }

    /// Returns once their namespace is gone.
    pub(super) async fn gone(&self) {
        self.0.gone.cancelled().await;
    }
}

impl Clone for Holder {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.0))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut holders = held(&self.0.holders);
        holders.count -= 1;
        holders.since = Instant::now();
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
