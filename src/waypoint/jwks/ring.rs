//! How requests are judged by keys from elsewhere.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::SystemTime;

use futures::future::join_all;

use super::KeySets;
use super::source::{Known, Source};
use crate::clock;
use crate::model::authentication::{Invalid, Jwt, Keyring};
use crate::model::declaration::Remote;

/// The keys as they are while one request is judged, and which of them it lacks.
pub(in crate::waypoint) struct Ring<'a> {
    sets: &'a KeySets,
    now: SystemTime,
    lacks: RefCell<Vec<Lack>>,
}

/// A source that may know more by now, or if it is asked.
struct Lack {
    of: Remote,
    /// After how many rounds it did not know; none where nobody has begun to ask it.
    known: Option<(Arc<Source>, u64)>,
}

impl<'a> Ring<'a> {
    pub(in crate::waypoint) fn new(sets: &'a KeySets) -> Self {
        Self {
            sets,
            now: clock::now(),
            lacks: RefCell::default(),
        }
    }

    /// Has the sources asked that did not know enough. Whether one of them may know more now.
    pub(in crate::waypoint) async fn renew(self) -> bool {
        let (sets, lacks) = (self.sets, self.lacks.into_inner());
        let asked = lacks.into_iter().map(|Lack { of, known }| async move {
            match known {
                Some((source, since)) => source.renewed(since, of.timeout).await,
                None => sets.is_named(&of).await,
            }
        });
        join_all(asked).await.contains(&true)
    }
}

impl Keyring for Ring<'_> {
    fn verify(&self, of: &Remote, jwt: &Jwt<'_>) -> Result<(), Invalid> {
        let lacks = |known| {
            let of = of.clone();
            self.lacks.borrow_mut().push(Lack { of, known });
        };
        let Some(source) = self.sets.source(of) else {
            lacks(None);
            return Err(Invalid::NoKeys);
        };
        let (known, since) = source.known();
        let fetching = self.sets.fetching.load();
        let fresh = known.filter(|known| {
            // A clock that was set back makes nothing older.
            let age = self.now.duration_since(known.at).unwrap_or_default();
            age <= fetching.stale_limit
        });
        let judged = match &fresh {
            Some(known) => known.keys.verify(jwt),
            None => Err(Invalid::NoKeys),
        };
        let named = |known: &Arc<Known>| known.keys.knows(jwt.kid());
        if judged.is_err() && !fresh.as_ref().is_some_and(named) {
            lacks(Some((source, since)));
        }
        judged
    }
}
