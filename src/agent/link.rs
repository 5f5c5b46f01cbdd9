//! How the connections to the control planes are, for whoever asks.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::{info, warn};

/// How the connection to the control planes is.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// The control plane followed; `None` while there is none.
    pub connected: Option<String>,
    /// Since when it has been so; `None` before the first attempt.
    pub since: Option<SystemTime>,
    /// Why the last connection ended or failed; `None` while there is one.
    pub error: Option<String>,
    /// When the mesh view in force was kept, while it is one from disk.
    pub kept: Option<SystemTime>,
    /// Since when no control plane has vouched for the view in force; `None` while one does.
    pub stale: Option<SystemTime>,
    /// Whether a whole view has come into force.
    pub viewed: bool,
    /// How many responses have been refused, or parts of them.
    pub refusals: u32,
    /// Why the last of them was; `None` once all of its type is understood.
    pub refused: Option<Refused>,
    /// Every control plane, in order of preference.
    pub controls: Vec<ControlLine>,
}

/// A response that was refused, or parts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Of which type.
    pub type_url: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
}

/// One control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlLine {
    /// Where it is.
    pub url: String,
    /// Why it was of no use when it was last tried.
    pub error: Option<String>,
}

impl Link {
    /// Before any attempt.
    pub(super) fn new(urls: &[String]) -> Self {
        let line = |url: &String| ControlLine {
            url: url.clone(),
            error: None,
        };
        Self {
            controls: urls.iter().map(line).collect(),
            stale: Some(SystemTime::now()),
            ..Self::default()
        }
    }

    /// [`Link::stale`] in seconds since 1970.
    pub fn stale_since(&self) -> Option<u64> {
        let since = self.stale?.duration_since(SystemTime::UNIX_EPOCH);
        Some(since.unwrap_or_default().as_secs())
    }

    fn note(&mut self, control: usize, error: Option<String>) -> bool {
        let Some(line) = self.controls.get_mut(control) else {
            return false;
        };
        let changed = line.error != error;
        line.error = error;
        changed
    }
}

/// Notes what was heard of one control plane that is not followed.
pub(super) fn noted(link: &watch::Sender<Link>, control: usize, error: Option<String>) {
    link.send_if_modified(|link| link.note(control, error));
}

/// A control plane is followed from now on.
pub(super) fn connected(link: &watch::Sender<Link>, control: usize, url: &str) {
    info!(control = url, "connected to the control plane");
    link.send_modify(|link| {
        link.note(control, None);
        link.connected = Some(url.to_owned());
        link.since = Some(SystemTime::now());
        link.error = None;
        link.stale = None;
    });
}

/// An attempt failed or a stream ended. An outage is logged once, not at every attempt.
pub(super) fn lost(link: &watch::Sender<Link>, control: usize, reason: String) {
    link.send_if_modified(|link| {
        let url = link.controls.get(control).map(|line| line.url.clone());
        let new = link.note(control, Some(reason.clone()));
        let ended = link.connected.take().is_some();
        if !ended && !new && link.error.is_some() {
            return false;
        }
        warn!(
            control = url,
            error = reason.as_str(),
            "no connection to the control plane; the mesh view in force stays"
        );
        let now = SystemTime::now();
        if ended || link.since.is_none() {
            link.since = Some(now);
        }
        link.stale.get_or_insert(now);
        link.error = Some(reason);
        true
    });
}
