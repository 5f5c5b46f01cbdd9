//! Has the host's rules kept by whoever keeps rules.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Host, Outcome, Workloads};
use crate::capture::keeping::{By, Keeping};
use crate::capture::place::{Origin, Place};
use crate::capture::sockets::Sockets;

impl Sockets {
    /// Prepares to keep the rules of the host's network for the workloads that `workloads` tells of;
    /// the receiver tells how they are.
    ///
    /// # Errors
    /// When the place may not be entered, or the kernel's notices not be had there.
    pub async fn keep_host(
        &self,
        place: &Place,
        workloads: watch::Receiver<Workloads>,
    ) -> io::Result<(Keeping, watch::Receiver<Arc<Outcome>>)> {
        match (&place.0, self.terms()) {
            (Origin::Own(ns), Some(terms)) => {
                let (host, outcome) = Host::new(ns.clone(), terms.clone(), workloads)?;
                Ok((Keeping(By::Host(Box::new(host))), outcome))
            }
            (Origin::Own(_), None) => Err(io::ErrorKind::Unsupported.into()),
            (Origin::Kept(kept), _) => {
                let outcome = kept.keep_host().await?;
                let kept = Arc::clone(kept);
                Ok((Keeping(By::KeptHost(kept, workloads)), outcome))
            }
        }
    }
}
