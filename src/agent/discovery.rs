//! The discovery client: follows one control plane at a time, the best that can be reached, and goes
//! on from what it holds wherever it goes (`spec/control-plane.md` §3.7, §9.2).

mod stream;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::future::OptionFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::channel::{Controls, Who};
use super::failover::{Beside, Failover, Seek, Timing};
use super::keep::view::{self, ViewFile};
use super::link::{self, Link, Refused};
use super::mirror::{MeshState, Mirror, Resources};
use super::order::{Order, Verdict};
use super::trust::Believed;
use crate::causes::chain;
use crate::wire::WAYPOINT;
use stream::{Stream, StreamError, Taken};

/// What is done beside following a control plane. Dropping it gives it up.
type Errand = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What came of it.
enum Done {
    /// Who of the better ones answered, in order, and why the ones before it did not.
    Looked(Option<usize>, Vec<(usize, String)>),
    /// A stream to a better one that has sent a whole view.
    Opened(usize, Result<Box<(Stream, Taken)>, StreamError>),
}

/// Follows the mesh.
pub(super) struct Discovery {
    controls: Controls,
    timing: Timing,
    /// Whom to believe, where the control plane says.
    believed: Option<Believed>,
    failover: Failover,
    order: Order,
    mesh: watch::Sender<Arc<MeshState>>,
    link: watch::Sender<Link>,
    /// What the next stream goes on from; empty while one is followed.
    mirror: Mirror,
    /// Better ones with whose revision what the present one sent did not add up.
    afresh: BTreeSet<usize>,
    held: watch::Sender<Resources>,
    /// The last one tried was not there.
    away: bool,
}

impl Discovery {
    /// A client of the mesh with this epoch; empty where control planes tell none.
    pub(super) fn new(
        controls: Controls,
        timing: Timing,
        epoch: Vec<u8>,
        believed: Option<Believed>,
        mesh: watch::Sender<Arc<MeshState>>,
        link: watch::Sender<Link>,
    ) -> Self {
        Self {
            failover: Failover::new(controls.urls().len(), timing, Instant::now()),
            order: Order::new(epoch, timing.patience),
            controls,
            timing,
            believed,
            mesh,
            link,
            mirror: Mirror::default(),
            afresh: BTreeSet::new(),
            held: watch::Sender::new(Resources::default()),
            away: false,
        }
    }

    /// Whom to believe, where the control plane says.
    pub(super) fn believed(&self) -> Option<Believed> {
        self.believed.clone()
    }

    /// Follows the mesh until `shutdown`, publishing each complete view and keeping it in `file`;
    /// begins with the one that is kept there.
    pub(super) async fn run(mut self, file: ViewFile, shutdown: CancellationToken) {
        let keeping = self.held.subscribe();
        // Who follows is gone at once when told to stop: what it heard last is kept for all that.
        let _open = self.held.clone();
        self.restore(&file).await;
        let following = self.follow(shutdown.clone());
        tokio::join!(following, view::keep(file, keeping, shutdown));
    }

    async fn follow(mut self, shutdown: CancellationToken) {
        loop {
            let step = async {
                match self.failover.seek(Instant::now()) {
                    Seek::Wait(until) => tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        () = self.back(), if self.away => self.failover.hurry(Instant::now()),
                    },
                    Seek::Try(control) => self.attempt(control).await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = step => {}
            }
        }
    }

    /// Returns once a control plane serves again. What that costs is little beside an attempt to
    /// follow it, so it is asked more often than waits between attempts allow.
    async fn back(&self) {
        let all: Vec<usize> = (0..self.controls.urls().len()).collect();
        loop {
            let wait = self.timing.back.mul_f64(0.5 + (self.timing.dice)());
            tokio::time::sleep(wait).await;
            if let Done::Looked(Some(_), _) = look(self.controls.clone(), all.clone()).await {
                return;
            }
        }
    }

    /// Begins with the mesh that was kept, so that the workloads of a machine that starts with no
    /// control plane in reach are served and protected as they were.
    async fn restore(&mut self, file: &ViewFile) {
        let reader = file.clone();
        let read = tokio::task::spawn_blocking(move || reader.load()).await;
        let Ok(Some((kept, mut responses))) = read else {
            return;
        };
        if self.controls.waypoints().is_empty() {
            // Nobody would ever be told that it is out of date.
            responses.retain(|response| response.type_url != WAYPOINT);
        }
        let mut mirror = Mirror::default();
        if !mirror.restore(responses) {
            return file.damaged("it does not add up to its revision");
        }
        let (workloads, services) = self.publish(&mut mirror);
        self.mirror = mirror;
        info!(workloads, services, "mesh view from disk in force");
        self.link.send_modify(|link| {
            link.kept = Some(kept);
            link.stale = Some(kept);
            link.viewed = true;
        });
    }

    /// Puts what is held in force; tells how many workloads and services there are.
    fn publish(&mut self, mirror: &mut Mirror) -> (usize, usize) {
        let mut state = mirror.state();
        if let Who::Guest(guest) = self.controls.who() {
            let known = Arc::clone(&self.mesh.borrow());
            state.placements = guest.placements(&state.view, &known.placements);
        }
        for waypoint in self.controls.waypoints() {
            // One of which nothing is told refuses everything (`spec/control-plane.md` §8.3).
            state.waypoints.entry(waypoint.clone()).or_default();
        }
        if let Some(revision) = &state.revision {
            self.order.applied(revision);
        }
        let size = state.view.size();
        self.mesh.send_replace(Arc::new(state));
        size
    }

    /// Tries one control plane, and follows it or those better than it while it can.
    async fn attempt(&mut self, control: usize) {
        let opened = Stream::open(&self.controls, control, &self.mirror, self.believed.clone());
        let opened = tokio::time::timeout(self.timing.silence, opened).await;
        let mut stream = match opened.unwrap_or(Err(StreamError::Silent)) {
            Ok(stream) => stream,
            Err(e) => return self.lost(control, &e),
        };
        stream.mirror = std::mem::take(&mut self.mirror);
        let (control, error) = self.read(stream).await;
        self.lost(control, &error);
    }

    /// Reads a stream, or the better one that takes its place, to its end; whose it was, and why.
    async fn read(&mut self, mut stream: Stream) -> (usize, StreamError) {
        let mut errand: Option<Errand> = None;
        loop {
            let beside = match errand {
                Some(_) => Beside::Content,
                None => self.failover.beside(Instant::now()),
            };
            let until = match beside {
                Beside::Look => {
                    let better = self.failover.better();
                    errand = Some(Box::pin(look(self.controls.clone(), better)));
                    None
                }
                Beside::Switch(better) => {
                    errand = Some(self.switch(better, &stream));
                    None
                }
                Beside::Wait(until) => Some(until),
                Beside::Content => None,
            };
            let wait = until.map(tokio::time::sleep_until);
            tokio::select! {
                response = stream.read(self.timing.silence) => {
                    let settled = match response {
                        Ok(response) => {
                            let taken = stream.take(response).await;
                            self.settle(&mut stream, taken).await
                        }
                        Err(e) => Err(e),
                    };
                    if let Err(e) = settled {
                        self.mirror = stream.mirror;
                        return (stream.control, e);
                    }
                }
                Some(done) = OptionFuture::from(errand.as_mut()) => {
                    errand = None;
                    if let Some(better) = self.done(done).await {
                        stream = better;
                    }
                }
                Some(()) = OptionFuture::from(wait) => {}
            }
        }
    }

    /// Puts a response in force as far as it may be, and answers it.
    async fn settle(&mut self, stream: &mut Stream, mut taken: Taken) -> Result<(), StreamError> {
        if let Some((type_url, error)) = taken.refused() {
            warn!(type_url, error, "parts of the mesh refused");
            let refused = Refused {
                type_url: Arc::from(type_url),
                reason: Arc::from(error),
            };
            self.link.send_modify(|link| {
                link.refusals = link.refusals.saturating_add(1);
                link.refused = Some(refused);
            });
        } else if !stream.mirror.lacks(taken.type_url()) {
            self.link.send_if_modified(|link| {
                let mended = link.refused.take_if(|r| *r.type_url == *taken.type_url());
                mended.is_some()
            });
        }
        if taken.lost {
            stream.part(taken).await;
            stream.mirror.forget();
            return Err(StreamError::Lost);
        }
        if taken.revision
            && let Err(e) = self.judge(&stream.mirror)
        {
            if matches!(e, StreamError::Older { .. }) {
                self.order.withheld(Instant::now());
            }
            taken.refuse(e.to_string());
            stream.part(taken).await;
            return Err(e);
        }
        if taken.complete {
            let (workloads, services) = self.publish(&mut stream.mirror);
            let number = self.mesh.borrow().revision.as_ref().map(|r| r.number);
            info!(revision = number, workloads, services, "mesh view in force");
            self.held.send_replace(stream.mirror.held());
            self.link.send_if_modified(|link| {
                let whole = stream.is_whole() && !link.viewed;
                link.viewed |= whole;
                link.kept.take().is_some() | whole
            });
        }
        stream.acknowledge(taken).await?;
        if stream.is_whole() {
            self.connected(stream.control);
        }
        Ok(())
    }

    /// Whether a revision may come into force.
    fn judge(&self, mirror: &Mirror) -> Result<(), StreamError> {
        let Some(revision) = mirror.revision() else {
            return Ok(());
        };
        match self.order.judge(revision, Instant::now()) {
            Verdict::Apply => Ok(()),
            Verdict::Overdue => {
                warn!(
                    serial = revision.serial,
                    in_force = self.order.serial(),
                    "no control plane has had a revision as new as the one in force for long; an older one is applied"
                );
                Ok(())
            }
            Verdict::Older => Err(StreamError::Older {
                found: revision.serial,
                in_force: self.order.serial(),
            }),
            Verdict::Foreign => Err(StreamError::Foreign),
        }
    }

    /// Opens a stream to a better one beside the present one, from what that one holds unless the two
    /// do not agree on it.
    fn switch(&self, control: usize, present: &Stream) -> Errand {
        let mirror = match self.afresh.contains(&control) {
            true => Mirror::default(),
            false => present.mirror.clone(),
        };
        let silence = self.timing.silence;
        let whole = Stream::whole(
            self.controls.clone(),
            control,
            mirror,
            self.believed.clone(),
            silence,
        );
        Box::pin(async move { Done::Opened(control, whole.await.map(Box::new)) })
    }

    /// Takes note of what came of an errand; the stream that is to take the present one's place, if
    /// there is one.
    async fn done(&mut self, done: Done) -> Option<Stream> {
        let (control, opened) = match done {
            Done::Looked(answered, failed) => {
                for (control, reason) in failed {
                    link::noted(&self.link, control, Some(reason));
                }
                if let Some(control) = answered {
                    link::noted(&self.link, control, None);
                }
                self.failover.looked(answered, Instant::now());
                return None;
            }
            Done::Opened(control, opened) => (control, opened),
        };
        let failed = match opened {
            Ok(opened) => {
                let (mut stream, mut taken) = *opened;
                match self.judge(&stream.mirror) {
                    Ok(()) => match self.settle(&mut stream, taken).await {
                        Ok(()) => return Some(stream),
                        Err(e) => e,
                    },
                    Err(e) => {
                        taken.refuse(e.to_string());
                        stream.part(taken).await;
                        e
                    }
                }
            }
            Err(e) => e,
        };
        link::noted(&self.link, control, Some(chain(&failed)));
        if matches!(failed, StreamError::Lost) {
            self.afresh.insert(control);
        }
        self.failover.stay(control, Instant::now());
        None
    }

    /// A control plane has sent a whole view.
    fn connected(&mut self, control: usize) {
        let Some(url) = self.controls.urls().get(control) else {
            return;
        };
        if self.link.borrow().connected.as_ref() == Some(url) {
            return;
        }
        self.controls.set_best(control);
        self.afresh.clear();
        self.failover.following(control, Instant::now());
        link::connected(&self.link, control, url);
    }

    fn lost(&mut self, control: usize, error: &StreamError) {
        self.failover.failed(control, Instant::now());
        // One that is there and cannot be followed is tried again no sooner than waits allow.
        self.away = matches!(error, StreamError::Channel(e) if e.is_absence());
        link::lost(&self.link, control, chain(error));
        self.capture_unseen();
    }

    /// Captures what is named on this host when nobody is there to say what it is: it must not go
    /// out plainly until somebody is.
    fn capture_unseen(&self) {
        let Who::Guest(guest) = self.controls.who() else {
            return;
        };
        self.mesh.send_if_modified(|mesh| {
            let placements = guest.placements(&mesh.view, &mesh.placements);
            if placements == mesh.placements {
                return false;
            }
            *mesh = Arc::new(MeshState {
                revision: mesh.revision.clone(),
                view: Arc::clone(&mesh.view),
                placements,
                waypoints: mesh.waypoints.clone(),
            });
            true
        });
    }
}

/// Sees which is the first of these that is fit to be followed.
async fn look(controls: Controls, better: Vec<usize>) -> Done {
    let mut failed = Vec::new();
    for control in better {
        match controls.serves(control).await {
            Ok(()) => return Done::Looked(Some(control), failed),
            Err(e) => failed.push((control, chain(&e))),
        }
    }
    Done::Looked(None, failed)
}

#[cfg(test)]
mod tests;
