//! What a node knows of its own workloads, as the node role tells it and reports carry it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// How far the capture of one workload has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureState {
    /// Its traffic goes through this node.
    Captured,
    /// It was, and has been let go.
    Released,
    /// It should be and is not, for this reason.
    Failed(String),
}

/// What probing a workload has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet: it has just been taken up, or is given time to start.
    #[default]
    Unknown,
    /// It answers as it should.
    Passing,
    /// It does not.
    Failing,
    /// It is not probed, and exists as far as is known.
    NoProbe,
}

/// How one workload is, by its probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeState {
    /// Whether it passes.
    pub verdict: Verdict,
    /// Since when the verdict is this one.
    pub since: SystemTime,
    /// A stable word for what was last wrong; empty when nothing was.
    pub code: &'static str,
    /// The same for people.
    pub detail: String,
    /// How often it turned from passing to failing or back.
    pub transitions: u32,
}

/// What is known of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadState {
    /// How its capture is; none while nothing is done about it.
    pub capture: Option<CaptureState>,
    /// How its probe is; none before the first result.
    pub probe: Option<ProbeState>,
}

/// What a node tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalStates {
    /// Its workloads by uid.
    pub workloads: BTreeMap<Arc<str>, WorkloadState>,
    /// It is shutting down.
    pub draining: bool,
}

impl LocalStates {
    /// Takes note of a capture; tells whether that is news.
    pub fn captured(&mut self, uid: &Arc<str>, state: CaptureState) -> bool {
        let known = self.workloads.entry(Arc::clone(uid)).or_default();
        let state = Some(state);
        let news = known.capture != state;
        known.capture = state;
        news
    }

    /// Takes note that nothing is known of a capture any more; tells whether that is news.
    pub fn forgotten(&mut self, uid: &Arc<str>) -> bool {
        let Some(known) = self.workloads.get_mut(uid) else {
            return false;
        };
        let news = known.capture.take().is_some();
        if *known == WorkloadState::default() {
            self.workloads.remove(uid);
        }
        news
    }

    /// Drops workloads that are not `placed` here; tells whether that is news.
    pub fn keep(&mut self, placed: impl Fn(&str) -> bool) -> bool {
        let before = self.workloads.len();
        self.workloads.retain(|uid, _| placed(uid));
        self.workloads.len() != before
    }

    /// Takes note of a probe, or that there is none any more; tells whether that is news.
    pub fn probed(&mut self, uid: &Arc<str>, state: Option<ProbeState>) -> bool {
        let known = self.workloads.entry(Arc::clone(uid)).or_default();
        let news = known.probe != state;
        known.probe = state;
        if *known == WorkloadState::default() {
            self.workloads.remove(uid);
        }
        news
    }
}
