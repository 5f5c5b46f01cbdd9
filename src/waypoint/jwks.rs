//! The keys of those whose tokens this waypoint believes, as far as they are elsewhere
//! (`spec/waypoint-l7.md` §5.4).
//!
//! [`KeySets`] holds what is known of each source that is named, [`keeper`] has one task for each that
//! gets them and gets them again, by [`fetch`], and [`store`] keeps them over restarts. [`ring`] is how
//! requests are judged by them, and has a source asked at once for a key that it does not know.

mod fetch;
mod keeper;
mod ring;
mod source;
mod store;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::model::authentication::Fetching;
use crate::model::declaration::Remote;
pub(super) use keeper::Keeper;
pub(super) use ring::Ring;
use source::Source;

/// The sources that are named, and what is known of each.
pub(super) struct KeySets {
    sources: watch::Sender<HashMap<Remote, Arc<Source>>>,
    fetching: ArcSwap<Fetching>,
}

impl Default for KeySets {
    fn default() -> Self {
        Self {
            sources: watch::Sender::default(),
            fetching: ArcSwap::from_pointee(Fetching::usual()),
        }
    }
}

impl KeySets {
    /// One that is named.
    fn source(&self, of: &Remote) -> Option<Arc<Source>> {
        self.sources.borrow().get(of).cloned()
    }

    /// Whether one is named within its own patience: a request may come by a revision that is in force
    /// since a moment ago.
    async fn is_named(&self, of: &Remote) -> bool {
        let mut sources = self.sources.subscribe();
        let named = sources.wait_for(|all| all.contains_key(of));
        // The sender is ours.
        tokio::time::timeout(of.timeout, named).await.is_ok()
    }

    fn insert(&self, of: Remote, source: Arc<Source>) {
        self.sources.send_modify(|all| {
            all.insert(of, source);
        });
    }

    fn remove(&self, of: &Remote) {
        self.sources.send_modify(|all| {
            all.remove(of);
        });
    }
}
