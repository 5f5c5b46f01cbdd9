//! Connections that are being opened and that others may share: one at a time for each key and thread,
//! however many requests come at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::kept::Key;

type What = (Arc<Key>, usize);
type Under = HashMap<What, watch::Receiver<bool>>;

/// Those that are being opened.
#[derive(Default)]
pub(super) struct Dialling(Mutex<Under>);

/// Whoever opens one. Dropped, those that wait look again.
pub(super) struct Dialler<'a> {
    of: &'a Dialling,
    what: What,
    failed: watch::Sender<bool>,
}

/// Somebody else opens one.
pub(super) struct Other(watch::Receiver<bool>);

impl Dialling {
    /// The turn to open one.
    ///
    /// # Errors
    /// Somebody else has it.
    pub(super) fn turn(&self, key: &Arc<Key>, lane: usize) -> Result<Dialler<'_>, Other> {
        let what = (Arc::clone(key), lane);
        let mut under = self.lock();
        if let Some(other) = under.get(&what) {
            return Err(Other(other.clone()));
        }
        let (failed, outcome) = watch::channel(false);
        under.insert((Arc::clone(key), lane), outcome);
        Ok(Dialler {
            of: self,
            what,
            failed,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Under> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dialler<'_> {
    /// There is no connection: nobody need wait for another to find out.
    pub(super) fn failed(&self) {
        self.failed.send_replace(true);
    }
}

impl Drop for Dialler<'_> {
    fn drop(&mut self) {
        self.of.lock().remove(&self.what);
    }
}

impl Other {
    /// Waits for its end. Returns whether it failed.
    pub(super) async fn failed(mut self) -> bool {
        self.0.wait_for(|failed| *failed).await.is_ok()
    }
}
