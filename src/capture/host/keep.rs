//! Has the host's rules kept by whoever keeps rules.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Host, Outcome, Workloads};
use crate::capture::keeping::{By, Keeping};
use crate::capture::place::{Origin, Place};
use crate::capture::ruleset::WantedDatagrams;
use crate::capture::sockets::Sockets;

impl Sockets {
    /// Prepares to keep the rules of the host's network for the workloads that `workloads` tells of, with
    /// those for datagrams where `datagrams` tells to which destinations they come to the proxy; the
    /// ports that are declared the workloads tell. While it is `None`, what rules of before capture is
    /// captured. The receiver tells how the workloads are.
    ///
    /// # Errors
    /// When the place may not be entered, or the kernel's notices not be had there.
    pub async fn keep_host(
        &self,
        place: &Place,
        workloads: watch::Receiver<Workloads>,
        datagrams: Option<watch::Receiver<WantedDatagrams>>,
    ) -> io::Result<(Keeping, watch::Receiver<Arc<Outcome>>)> {
        match (&place.0, self.terms()) {
            (Origin::Own(ns), Some(terms)) => {
                let (host, outcome) = Host::new(ns.clone(), terms.clone(), workloads, datagrams)?;
                Ok((Keeping(By::Host(Box::new(host))), outcome))
            }
            (Origin::Own(_), None) => Err(io::ErrorKind::Unsupported.into()),
            (Origin::Kept(kept), _) => {
                let outcome = kept.keep_host(datagrams.is_some()).await?;
                let kept = Arc::clone(kept);
                Ok((Keeping(By::KeptHost(kept, workloads, datagrams)), outcome))
            }
        }
    }
}
