//! The latest time that a control plane and this machine agreed on: where a machine whose clock began
//! anew at boot goes on from.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tracing::warn;

use crate::causes::chain;
use crate::clock;
use crate::files;

/// Between writes: a machine that is off for a minute need not know that minute.
const EVERY: Duration = Duration::from_secs(600);
/// Difference of the clocks that is told, and not believed.
const APART: Duration = Duration::from_secs(300);

/// Where the time is kept. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::agent) struct ClockFile {
    path: PathBuf,
    written: Arc<Mutex<Option<Instant>>>,
    apart: watch::Sender<Option<Duration>>,
}

impl ClockFile {
    /// The file of a state directory.
    pub(in crate::agent) fn of(state: &Path) -> Self {
        Self {
            path: state.join("agent/clock"),
            written: Arc::default(),
            apart: watch::Sender::default(),
        }
    }

    /// How far the clock of the control plane that was heard last is from ours, where that is too far to
    /// be believed.
    pub(in crate::agent) fn apart(&self) -> watch::Receiver<Option<Duration>> {
        self.apart.subscribe()
    }

    /// Takes what is kept for proven, and says so when the system's clock is behind it. Blocks on the
    /// disk.
    pub(in crate::agent) fn load(&self) {
        if let Some(time) = self.kept() {
            clock::at_least(time);
        }
        if let Some(by) = clock::behind() {
            warn!(
                code = "clock-behind",
                seconds = by.as_secs(),
                "this machine's clock is behind what its certificates and its control plane have proven; going by those"
            );
        }
    }

    /// The latest that a control plane can have been heard before this process began: the time kept may
    /// be older than the last contact by as long as writes are apart.
    pub(in crate::agent) fn heard_by(&self) -> SystemTime {
        let now = clock::now();
        self.kept().map_or(now, |kept| now.min(kept + EVERY))
    }

    /// The time kept.
    pub(in crate::agent) fn kept(&self) -> Option<SystemTime> {
        let text = files::read(&self.path).ok()??;
        let seconds: u64 = std::str::from_utf8(&text).ok()?.trim().parse().ok()?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }

    /// What time a control plane says it is, in milliseconds since 1970; tells how far the clocks are
    /// apart where that is too far to be believed. Blocks on the disk, now and then.
    pub(in crate::agent) fn heard(&self, milliseconds: i64) -> Option<Duration> {
        let theirs = UNIX_EPOCH + Duration::from_millis(u64::try_from(milliseconds).ok()?);
        let ours = clock::now();
        let apart = theirs
            .duration_since(ours)
            .or_else(|e| Ok::<_, std::time::SystemTimeError>(e.duration()));
        let apart = apart.unwrap_or_default();
        let far = Some(apart).filter(|apart| *apart > APART);
        self.apart.send_replace(far);
        if far.is_some() {
            return far;
        }
        clock::at_least(theirs.min(ours));
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.is_some_and(|at| at.elapsed() < EVERY) {
            return None;
        }
        *written = Some(Instant::now());
        drop(written);
        let since = theirs.duration_since(UNIX_EPOCH).unwrap_or_default();
        if let Err(e) = files::write(&self.path, since.as_secs().to_string().as_bytes()) {
            warn!(
                error = chain(&e),
                "the time is not kept for a start with a clock that is behind"
            );
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(time: SystemTime) -> i64 {
        let since = time.duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(since.as_millis()).unwrap()
    }

    #[test]
    fn a_time_that_both_agree_on_is_kept_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("agent")).unwrap();
        let file = ClockFile::of(dir.path());
        let now = SystemTime::now();
        let far = now + Duration::from_secs(86_400);
        let apart = file.apart();
        assert!(file.heard(milliseconds(far)).is_some());
        assert!(apart.borrow().is_some_and(|by| by.as_secs() > 86_000));
        assert!(
            file.heard(milliseconds(now - Duration::from_secs(86_400)))
                .is_some()
        );
        assert_eq!(
            file.kept(),
            None,
            "somebody is wrong, and it is not known who"
        );
        assert_eq!(file.heard(milliseconds(now)), None);
        assert_eq!(*apart.borrow(), None);
        let kept = file.kept().unwrap();
        assert!(now.duration_since(kept).unwrap() < Duration::from_secs(2));
        std::fs::write(dir.path().join("agent/clock"), "soon").unwrap();
        assert_eq!(file.kept(), None);
    }
}
