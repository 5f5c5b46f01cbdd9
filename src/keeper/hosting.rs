//! The rules of the host's network: one component keeps them, for the workloads that the proxy last
//! told of, also while no proxy is there.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::capture::host::{Outcome, Wanted, Workloads};
use crate::capture::keeping::Keeping;
use crate::capture::kept::protocol::Fault;
use crate::capture::{Datagrams, Place, Sockets, WantedDatagrams};

/// Workloads of one host: no more than there are marks for them.
pub(super) const WORKLOADS: usize = 0x1000;

/// The host's rules, as they are kept.
pub(super) struct Hosting {
    told: watch::Sender<Workloads>,
    /// Which datagrams come to the proxy, where those for datagrams are with them.
    datagrams: Option<watch::Sender<WantedDatagrams>>,
    outcome: watch::Receiver<Arc<Outcome>>,
    /// They are to be kept in another way.
    pub(super) stop: CancellationToken,
    pub(super) ended: CancellationToken,
}

impl Hosting {
    /// Prepares to keep them, with those for datagrams or without; until the proxy has told of workloads
    /// they stay as they are.
    pub(super) async fn new(
        sockets: &Sockets,
        place: &Place,
        udp: bool,
        stop: CancellationToken,
    ) -> io::Result<(Arc<Self>, Keeping)> {
        let (told, workloads) = watch::channel(Workloads::None);
        let datagrams = udp.then(|| watch::Sender::new(WantedDatagrams::None));
        let wanted = datagrams.as_ref().map(watch::Sender::subscribe);
        let (keeping, outcome) = sockets.keep_host(place, workloads, wanted).await?;
        let hosting = Self {
            told,
            datagrams,
            outcome,
            stop,
            ended: CancellationToken::new(),
        };
        Ok((Arc::new(hosting), keeping))
    }

    /// Whether they are with those for datagrams.
    pub(super) fn captures_udp(&self) -> bool {
        self.datagrams.is_some()
    }

    /// Has these datagrams captured from now on.
    pub(super) fn capture(&self, wanted: Datagrams) -> Result<(), Fault> {
        capture(self.datagrams.as_ref(), wanted)
    }

    /// Keeps them for these workloads from now on.
    pub(super) fn tell(&self, workloads: Vec<Wanted>) {
        self.told.send_if_modified(|now| {
            let same = now.as_deref() == Some(&workloads[..]);
            if !same {
                *now = Some(Arc::from(workloads));
            }
            !same
        });
    }

    /// How the workloads are.
    pub(super) fn outcome(&self) -> watch::Receiver<Arc<Outcome>> {
        self.outcome.clone()
    }
}

/// Has these datagrams captured from now on, where any are.
pub(super) fn capture(
    told: Option<&watch::Sender<WantedDatagrams>>,
    wanted: Datagrams,
) -> Result<(), Fault> {
    let told = told.ok_or_else(|| Fault::told("the rules are without those for datagrams"))?;
    told.send_if_modified(|now| {
        let same = now.as_deref() == Some(&wanted);
        if !same {
            *now = Some(Arc::new(wanted));
        }
        !same
    });
    Ok(())
}

/// What a proxy tells of piece by piece. A piece whose predecessors went to another keeper is never taken
/// for all there are: that would let go of the others.
pub(super) struct Coming<T> {
    told: Option<Vec<T>>,
    most: usize,
}

impl<T> Coming<T> {
    /// Takes no more than so many.
    pub(super) fn most(most: usize) -> Self {
        Self { told: None, most }
    }

    /// Takes a piece in; all of them once there are no more.
    pub(super) fn take(
        &mut self,
        some: Vec<T>,
        first: bool,
        more: bool,
    ) -> Result<Option<Vec<T>>, Fault> {
        let told = self.told.take();
        let before = match first {
            true => Some(Vec::new()),
            false => told,
        };
        let mut all =
            before.ok_or_else(|| Fault::told("these come after others that were not told of"))?;
        all.extend(some);
        if all.len() > self.most {
            return Err(Fault::told(format!("more than {}", self.most)));
        }
        if more {
            self.told = Some(all);
            return Ok(None);
        }
        Ok(Some(all))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::capture::Target;
    use crate::capture::ruleset::host::Mark;

    fn wanted(user: &str) -> Wanted {
        Wanted {
            mark: Mark::all().next().unwrap(),
            target: Target::User(Arc::from(user)),
            addresses: BTreeSet::new(),
            ports: BTreeSet::new(),
            udp_ports: BTreeSet::new(),
        }
    }

    #[test]
    fn a_piece_is_never_taken_for_the_whole() {
        for (name, pieces, want) in [
            ("all at once", &[("a", true, false)][..], Some(Some(1))),
            (
                "two",
                &[("a", true, true), ("b", false, false)],
                Some(Some(2)),
            ),
            ("more to come", &[("a", true, true)], Some(None)),
            ("the last alone", &[("b", false, false)], None),
            (
                "told anew, then a piece of before",
                &[("a", true, true), ("a", true, false), ("b", false, false)],
                None,
            ),
            (
                "told anew in between",
                &[("a", true, true), ("b", true, true), ("c", false, false)],
                Some(Some(2)),
            ),
            (
                "with one that cannot be named",
                &[("a", true, true), ("b\"c", false, false)],
                Some(Some(2)),
            ),
        ] {
            let mut coming = Coming::most(WORKLOADS);
            let taken = pieces
                .iter()
                .map(|(user, first, more)| coming.take(vec![wanted(user)], *first, *more))
                .last()
                .unwrap();
            let told = taken.ok().map(|all| all.map(|all| all.len()));
            assert_eq!(told, want, "{name}");
        }
    }
}
