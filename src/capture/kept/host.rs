//! The host's network: the keeper is told of the workloads there, and tells how they are.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::protocol::{Fault, PlaceId, Verb, pieces};
use super::{KeptPlace, PATIENCE, Unkept, held};
use crate::capture::CaptureError;
use crate::capture::host::{Outcome, Standing, Wanted, Workloads};
use crate::capture::ruleset::host::Mark;
use crate::causes::chain;

/// Between attempts while a keeper does not take what it is told.
const RETRY: Duration = Duration::from_millis(500);

/// What a keeper is told of the host's network, also one that comes after this one.
pub(super) struct Told {
    /// The workloads, once it is known who they are; none where the host's rules are not kept.
    wanted: Mutex<Option<Workloads>>,
    outcome: watch::Sender<Arc<Outcome>>,
    /// Of an outcome that is told in pieces, those that have come.
    coming: Mutex<BTreeMap<Mark, Standing>>,
    /// Whether the keeper that is there has refused to keep the rules.
    not_kept: AtomicBool,
    refused: Notify,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            wanted: Mutex::default(),
            outcome: watch::Sender::new(Arc::default()),
            coming: Mutex::default(),
            not_kept: AtomicBool::new(false),
            refused: Notify::new(),
        }
    }
}

impl Told {
    /// The questions by which another keeper learns of it.
    pub(super) fn verbs(&self, place: PlaceId, udp: bool) -> Vec<Verb> {
        // What the one before had begun to tell is not gone on with.
        held(&self.coming).clear();
        let Some(workloads) = held(&self.wanted).clone() else {
            return Vec::new();
        };
        let mut verbs = vec![Verb::KeepHost { place, udp }];
        if let Some(workloads) = workloads {
            verbs.extend(told(place, &workloads));
        }
        verbs
    }

    /// Nobody wants the host's rules kept any more.
    pub(super) fn forget(&self) {
        *held(&self.wanted) = None;
    }

    /// Takes in a piece of an outcome.
    pub(super) fn note(
        &self,
        standings: Vec<(Mark, Standing)>,
        failed: Option<String>,
        more: bool,
    ) {
        let mut coming = held(&self.coming);
        coming.extend(standings);
        if more {
            return;
        }
        let failed = failed.map(|said| Arc::new(CaptureError::Told { said }));
        let workloads = std::mem::take(&mut *coming);
        self.outcome
            .send_replace(Arc::new(Outcome { workloads, failed }));
    }
}

fn told(place: PlaceId, workloads: &[Wanted]) -> Vec<Verb> {
    let pieces = pieces(workloads.to_vec());
    let last = pieces.len().saturating_sub(1);
    let numbered = pieces.into_iter().enumerate();
    let verbs = numbered.map(|(at, workloads)| Verb::Workloads {
        place,
        workloads,
        first: at == 0,
        more: at < last,
    });
    verbs.collect()
}

impl KeptPlace {
    /// Has the rules of the host's network kept, by whichever keeper is there, with those for datagrams, of
    /// which [`Self::tell_datagrams`] tells, or without. How they are it says at once, and the receiver
    /// has it.
    pub(in crate::capture) async fn keep_host(
        &self,
        udp: bool,
    ) -> io::Result<watch::Receiver<Arc<Outcome>>> {
        let mut outcome = self.host.outcome.subscribe();
        self.udp.store(udp, Ordering::Release);
        *held(&self.host.wanted) = Some(None);
        let kept = self.ask(self.to_keep_host(), PATIENCE).await;
        let failed = match kept {
            Ok(_done) => match timeout(PATIENCE, outcome.changed()).await {
                Ok(Ok(())) => return Ok(outcome),
                Ok(Err(_)) | Err(_) => io::ErrorKind::TimedOut.into(),
            },
            Err(e) => e.into(),
        };
        self.host.forget();
        Err(failed)
    }

    fn to_keep_host(&self) -> Verb {
        Verb::KeepHost {
            place: self.id,
            udp: self.udp.load(Ordering::Acquire),
        }
    }

    /// Tells the keeper of the workloads, whenever they are others, for ever, and again until it has
    /// taken them.
    pub(in crate::capture) async fn tell(&self, mut workloads: watch::Receiver<Workloads>) {
        let mut said = false;
        loop {
            let now = workloads.borrow_and_update().clone();
            let taken = self.told(now).await;
            if let Err(e) = &taken
                && !said
            {
                warn!(
                    error = chain(e),
                    "the keeper was not told of this host's workloads, trying again"
                );
            }
            said = taken.is_err();
            tokio::select! {
                Ok(()) = workloads.changed() => {}
                () = self.host.refused.notified() => sleep(RETRY).await,
                () = sleep(RETRY), if said => {}
            }
        }
    }

    async fn told(&self, workloads: Workloads) -> Result<(), Unkept> {
        if self.host.not_kept.load(Ordering::Acquire) {
            self.ask(self.to_keep_host(), PATIENCE).await?;
            for verb in self.datagrams_again() {
                self.ask(verb, PATIENCE).await?;
            }
            self.host.not_kept.store(false, Ordering::Release);
        }
        let Some(workloads) = workloads else {
            return Ok(());
        };
        *held(&self.host.wanted) = Some(Some(Arc::clone(&workloads)));
        for verb in told(self.id, &workloads) {
            self.ask(verb, PATIENCE).await?;
        }
        Ok(())
    }

    /// A keeper that came after another does not keep the host's rules, or not for all.
    pub(super) fn host_refused(&self, fault: &Fault) {
        let said = fault.to_string();
        warn!(error = said, "the keeper does not keep this host's rules");
        self.host.not_kept.store(true, Ordering::Release);
        self.host.refused.notify_one();
        let failed = Some(Arc::new(CaptureError::Told { said }));
        self.host.outcome.send_modify(|outcome| {
            let workloads = outcome.workloads.clone();
            *outcome = Arc::new(Outcome { workloads, failed });
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::net::{SocketAddrUnix, SocketFlags, accept_with, bind, listen};
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::capture::attach::Target;
    use crate::capture::kept::channel::{self, Channel};
    use crate::capture::kept::protocol::{Answer, Message, News, Question, VERSION};
    use crate::capture::{Sockets, keeping};

    const LONG: Duration = Duration::from_secs(20);

    /// Stands in for a keeper, one connection at a time.
    struct Stand(OwnedFd);

    impl Stand {
        fn at(path: &Path) -> Self {
            let socket = channel::socket().unwrap();
            bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
            listen(&socket, 4).unwrap();
            Self(socket)
        }

        async fn accept(&self) -> Channel {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            loop {
                if let Ok(socket) = accept_with(&self.0, flags) {
                    return Channel::new(socket).unwrap();
                }
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Answers all that is asked, refusing what `refused` says, until `done` says so of a question.
    async fn answer(
        channel: &Channel,
        mut refused: impl FnMut(&Verb) -> bool,
        done: impl Fn(&Verb) -> bool,
    ) {
        while let Some((Question { id, verb }, _none)) = channel.receive().await.unwrap() {
            let no = refused(&verb);
            let answer = match &verb {
                _ if no => Answer::Refused(Fault::told("not now")),
                Verb::Hello { version: VERSION } | Verb::KeepHost { .. } => Answer::Done,
                Verb::Attach { .. } => Answer::Attached { identity: (1, 2) },
                _ => Answer::Done,
            };
            let message = Message::Answer { to: id, answer };
            channel.send(&message, &[]).await.unwrap();
            if let (Verb::KeepHost { place, .. }, false) = (&verb, no) {
                let news = News::Workloads {
                    standings: Vec::new(),
                    failed: None,
                    more: false,
                };
                let message = Message::News {
                    place: *place,
                    news,
                };
                channel.send(&message, &[]).await.unwrap();
            }
            if !no && done(&verb) {
                return;
            }
        }
    }

    fn are_workloads(verb: &Verb) -> bool {
        matches!(verb, Verb::Workloads { .. })
    }

    /// Does something as the keeper of a proxy that has workloads captured.
    async fn beside<F: Future<Output = ()>>(
        work: impl FnOnce(Stand, watch::Receiver<Arc<Outcome>>) -> F,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keeper.sock");
        let stand = Stand::at(&path);
        let (sockets, link) = Sockets::kept(&path);
        let workloads = Wanted {
            mark: Mark::all().next().unwrap(),
            target: Target::User("1001".into()),
            addresses: BTreeSet::new(),
            ports: BTreeSet::new(),
            udp_ports: BTreeSet::new(),
        };
        let (_told, workloads) = watch::channel(Some(Arc::from([workloads])));
        let stop = CancellationToken::new();
        let (tell, told) = tokio::sync::oneshot::channel();
        let proxy = async {
            let place = sockets.host().await.unwrap();
            let (keeping, outcome): (keeping::Keeping, _) =
                sockets.keep_host(&place, workloads, None).await.unwrap();
            let _heard = tell.send(outcome);
            keeping.run(stop.clone()).await;
        };
        let keeper = async {
            let first = stand.accept().await;
            answer(
                &first,
                |_| false,
                |verb| matches!(verb, Verb::KeepHost { .. }),
            )
            .await;
            let outcome = told.await.unwrap();
            drop(first);
            timeout(LONG, work(stand, outcome)).await.expect("in time");
        };
        tokio::select! {
            () = proxy => panic!("the proxy ended"),
            () = link.run(stop.clone()) => panic!("the link ended"),
            () = keeper => {}
        }
    }

    #[tokio::test]
    async fn what_a_keeper_did_not_take_it_is_told_again() {
        beside(async |stand, _outcome| {
            let channel = stand.accept().await;
            let mut left = 3;
            let not_at_first = |verb: &Verb| {
                left -= i32::from(are_workloads(verb));
                are_workloads(verb) && left > 0
            };
            answer(&channel, not_at_first, are_workloads).await;
        })
        .await;
    }

    #[tokio::test]
    async fn a_keeper_that_does_not_keep_the_rules_is_told_of_and_asked_again() {
        beside(async |stand, mut outcome| {
            let channel = stand.accept().await;
            let mut refused = false;
            let once = |verb: &Verb| {
                let now = matches!(verb, Verb::KeepHost { .. }) && !refused;
                refused |= now;
                now
            };
            let kept = |verb: &Verb| matches!(verb, Verb::KeepHost { .. });
            let told = outcome.wait_for(|now| now.failed.is_some());
            let (_answered, told) = tokio::join!(answer(&channel, once, kept), told);
            assert!(told.is_ok());
        })
        .await;
    }
}
