//! The rules of the host's network: one component keeps them, for the workloads that the proxy last
//! told of, also while no proxy is there.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use crate::capture::host::{Outcome, Wanted, Workloads};
use crate::capture::keeping::Keeping;
use crate::capture::{Place, Sockets};

/// Workloads of one host: no more than there are marks for them.
pub(super) const WORKLOADS: usize = 0x1000;

/// The host's rules, as they are kept.
pub(super) struct Hosting {
    told: watch::Sender<Workloads>,
    outcome: watch::Receiver<Arc<Outcome>>,
}

impl Hosting {
    /// Prepares to keep them; until the proxy has told of workloads they stay as they are.
    pub(super) async fn new(sockets: &Sockets, place: &Place) -> io::Result<(Arc<Self>, Keeping)> {
        let (told, workloads) = watch::channel(Workloads::None);
        let (keeping, outcome) = sockets.keep_host(place, workloads).await?;
        Ok((Arc::new(Self { told, outcome }), keeping))
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
