//! Gives certificates longer than their lives while no control plane is there that could renew them,
//! where the operator says so (`spec/control-plane.md` §6.7).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::link::Link;
use super::mirror::MeshState;
use crate::clock;
use crate::tls::{Grace, Trust};

/// How long a control plane has to be there to count: other nodes look for it once in 15 s, and have
/// to fetch certificates before they can do without grace.
const BACK: Duration = Duration::from_secs(30);

/// What decides on the grace.
pub(super) struct Watcher {
    trust: Trust,
    mesh: watch::Receiver<Arc<MeshState>>,
    link: watch::Receiver<Link>,
    alone: Option<SystemTime>,
    /// Since when a control plane is there again.
    back: Option<Instant>,
}

impl Watcher {
    /// Decides for whoever judges by `trust`; `heard` is when a control plane was last heard.
    pub(super) fn new(
        trust: Trust,
        mesh: watch::Receiver<Arc<MeshState>>,
        link: watch::Receiver<Link>,
        heard: SystemTime,
    ) -> Self {
        Self {
            trust,
            mesh,
            link,
            alone: Some(heard),
            back: None,
        }
    }

    /// Keeps the grace as it is to be until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.decide();
            let counts = self.back.map(|back| back + BACK);
            let counting = async {
                match counts {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.mesh.changed() => if changed.is_err() { return },
                changed = self.link.changed() => if changed.is_err() { return },
                () = counting => {}
            }
        }
    }

    fn decide(&mut self) {
        let mesh = Arc::clone(&self.mesh.borrow_and_update());
        let lasts = mesh.revision.as_ref().map(|r| r.expired_grace);
        let lasts = lasts.unwrap_or_default();
        let there = self.link.borrow_and_update().connected.is_some();
        self.back = match self.alone {
            Some(_) if there => self.back.or_else(|| Some(Instant::now())),
            _ => None,
        };
        if self.back.is_some_and(|back| back.elapsed() >= BACK) {
            self.alone = None;
            self.back = None;
        }
        if !there && self.alone.is_none() {
            self.alone = Some(clock::now());
        }
        let alone = self.alone;
        let (before, now) = (self.trust.grace(), Grace { lasts, alone });
        self.trust.give(now);
        tell(before, now);
    }
}

/// Says once when expired certificates begin to be taken, and when no longer.
fn tell(before: Grace, now: Grace) {
    let applies = |grace: Grace| grace.alone.is_some() && !grace.lasts.is_zero();
    match (applies(before), applies(now)) {
        (false, true) => warn!(
            grace = ?now.lasts,
            "no control plane is there: workloads' certificates that expire now are taken for longer"
        ),
        (true, false) => info!("expired certificates are taken no longer"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::TestCa;
    use crate::wire::convert::RevisionSummary;

    const HOUR: Duration = Duration::from_secs(3600);

    fn followed() -> Link {
        Link {
            connected: Some("https://c".to_owned()),
            ..Link::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn grace_is_for_as_long_as_nobody_is_there() {
        let trust = TestCa::new().trust();
        let mesh = watch::Sender::new(Arc::new(MeshState::default()));
        let link = watch::Sender::new(Link::default());
        let heard = clock::now() - HOUR;
        let watcher = Watcher::new(trust.clone(), mesh.subscribe(), link.subscribe(), heard);
        let mut task = tokio::task::JoinSet::new();
        task.spawn(watcher.run(CancellationToken::new()));
        let settle = || tokio::time::sleep(Duration::from_millis(1));
        settle().await;
        let grace = trust.grace();
        assert_eq!((grace.lasts, grace.alone), (Duration::ZERO, Some(heard)));
        let revision = RevisionSummary {
            epoch: [1; 16],
            serial: 0,
            number: 1,
            digest: [0; 32],
            source: String::new(),
            compiled_at: clock::now(),
            totals: [].into(),
            warnings: 0,
            expired_grace: HOUR,
            domain: String::new(),
        };
        mesh.send_replace(Arc::new(MeshState {
            revision: Some(revision),
            ..MeshState::default()
        }));
        settle().await;
        let want = Grace {
            lasts: HOUR,
            alone: Some(heard),
        };
        assert_eq!(trust.grace(), want, "from disk");
        link.send_replace(followed());
        tokio::time::sleep(BACK / 2).await;
        assert_eq!(trust.grace(), want, "others have not renewed yet");
        link.send_replace(Link::default());
        tokio::time::sleep(BACK).await;
        assert_eq!(trust.grace(), want, "it was gone again too soon");
        link.send_replace(followed());
        tokio::time::sleep(BACK + Duration::from_millis(1)).await;
        assert_eq!(trust.grace().alone, None);
        let before = clock::now();
        link.send_replace(Link::default());
        settle().await;
        assert!(trust.grace().alone.unwrap() >= before, "from its loss on");
    }
}
