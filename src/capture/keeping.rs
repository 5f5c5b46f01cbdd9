//! The rules of a place, kept by whoever can.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::host::{Host, Workloads};
use super::kept::KeptPlace;
use super::reconcile::Reconcile;
use super::ruleset::WantedDatagrams;

/// The component that has a place's rules in force while it runs.
#[derive(Debug)]
pub struct Keeping(pub(super) By);

#[derive(Debug)]
pub(super) enum By {
    /// This process.
    Own(Box<Reconcile>),
    /// The keeper.
    Kept(Arc<KeptPlace>),
    /// The keeper, who is told which datagrams come to the proxy.
    KeptUdp(Arc<KeptPlace>, watch::Receiver<WantedDatagrams>),
    /// This process, on the host's network.
    Host(Box<Host>),
    /// The keeper, there.
    KeptHost(
        Arc<KeptPlace>,
        watch::Receiver<Workloads>,
        Option<watch::Receiver<WantedDatagrams>>,
    ),
}

impl Keeping {
    /// Applies the rules, and has them put back within a second of any change, until `shutdown`.
    /// They stay then: what they capture is refused, not leaked.
    pub async fn run(self, shutdown: CancellationToken) {
        match self.0 {
            By::Own(reconcile) => reconcile.run(shutdown).await,
            By::Kept(place) => {
                shutdown.cancelled().await;
                place.close().await;
            }
            By::KeptUdp(place, datagrams) => {
                let telling = place.tell_datagrams(datagrams);
                let _stopped: Option<()> = shutdown.run_until_cancelled(telling).await;
                place.close().await;
            }
            By::Host(host) => host.run(shutdown).await,
            By::KeptHost(place, workloads, datagrams) => {
                let datagrams = async {
                    match datagrams {
                        Some(datagrams) => place.tell_datagrams(datagrams).await,
                        None => std::future::pending().await,
                    }
                };
                let telling = async { tokio::join!(place.tell(workloads), datagrams) };
                let _stopped: Option<((), ())> = shutdown.run_until_cancelled(telling).await;
                place.close().await;
            }
        }
    }
}
