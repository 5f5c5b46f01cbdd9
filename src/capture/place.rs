//! Where a workload is, as whoever serves it holds it: a network that sockets are opened in and
//! rules are kept in, without the powers that either takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::kept::KeptPlace;
use super::netns::Netns;

/// Between looks at whether a name still means the same namespace.
const LOOK: Duration = Duration::from_millis(500);

/// A network. It lives as long as this is held, whatever becomes of its name.
#[derive(Clone, Debug)]
pub struct Place(pub(super) Origin);

/// Who can enter it.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// This process.
    Own(Netns),
    /// The keeper.
    Kept(Arc<KeptPlace>),
}

impl From<Netns> for Place {
    fn from(ns: Netns) -> Self {
        Self(Origin::Own(ns))
    }
}

impl Place {
    /// What it was opened by.
    pub fn name(&self) -> &str {
        match &self.0 {
            Origin::Own(ns) => ns.name(),
            Origin::Kept(place) => place.name(),
        }
    }

    /// Which network it is, whatever it is called, where this process has it open.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        match &self.0 {
            Origin::Own(ns) => Some(ns.identity()),
            Origin::Kept(_) => None,
        }
    }

    /// Returns once the name means another network, or none, within 500 ms. Of a place at the keeper
    /// that is told while its rules are kept.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn gone(&self) {
        match &self.0 {
            Origin::Own(ns) => replaced(ns).await,
            Origin::Kept(place) => place.gone().await,
        }
    }
}

async fn replaced(ns: &Netns) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if Netns::named(ns.name()).map_or(true, |now| now != *ns) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_place_is_gone_with_its_name() {
        let named = |name: &str| Place::from(Netns::named(name).unwrap());
        let stays = named("/proc/self/ns/net");
        let gone = tokio::time::timeout(Duration::from_secs(3), stays.gone()).await;
        assert!(gone.is_err(), "{} is there", stays.name());

        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("cart");
        std::os::unix::fs::symlink("/proc/self/ns/net", &link).unwrap();
        let goes = named(link.to_str().unwrap());
        std::fs::remove_file(&link).unwrap();
        let gone = tokio::time::timeout(Duration::from_secs(3), goes.gone()).await;
        assert!(gone.is_ok(), "{}", goes.name());
    }
}
