//! The rules of a place, kept by whoever can.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::kept::KeptPlace;
use super::reconcile::Reconcile;

/// The component that has a place's rules in force while it runs.
#[derive(Debug)]
pub struct Keeping(pub(super) By);

#[derive(Debug)]
pub(super) enum By {
    /// This process.
    Own(Reconcile),
    /// The keeper.
    Kept(Arc<KeptPlace>),
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
        }
    }
}
