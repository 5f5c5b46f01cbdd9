//! The rules of a place, kept by whoever can.

use tokio_util::sync::CancellationToken;

use super::host::Host;
use super::reconcile::Reconcile;

/// The component that has a place's rules in force while it runs.
#[derive(Debug)]
pub struct Keeping(pub(super) By);

#[derive(Debug)]
pub(super) enum By {
    /// This process.
    Own(Reconcile),
    /// This process, on the host's network.
    Host(Box<Host>),
}

impl Keeping {
    /// Applies the rules, and has them put back within a second of any change, until `shutdown`.
    /// They stay then: what they capture is refused, not leaked.
    pub async fn run(self, shutdown: CancellationToken) {
        match self.0 {
            By::Own(reconcile) => reconcile.run(shutdown).await,
            By::Host(host) => host.run(shutdown).await,
        }
    }
}
