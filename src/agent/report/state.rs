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
    /// The instances of waypoints that it is, by uid. They are nobody's to capture or to probe: they
    /// pass while they serve.
    pub waypoints: BTreeMap<Arc<str>, WorkloadState>,
    /// It is shutting down.
    pub draining: bool,
}

impl LocalStates {
    /// Its workloads, then the waypoints that it is.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &WorkloadState)> {
        self.workloads.iter().chain(&self.waypoints)
    }

    /// What is known of one of either.
    pub(super) fn of(&self, uid: &str) -> Option<&WorkloadState> {
        let workload = self.workloads.get(uid);
        workload.or_else(|| self.waypoints.get(uid))
    }

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

    /// Takes note that an instance of a waypoint serves, or why it does not; tells whether that is
    /// news.
    pub fn serves(&mut self, uid: &Arc<str>, unable: Option<&str>, now: SystemTime) -> bool {
        let known = self.waypoints.entry(Arc::clone(uid)).or_default();
        let verdict = match unable {
            None => Verdict::Passing,
            Some(_) => Verdict::Failing,
        };
        let before = known.probe.as_ref();
        let same = before.filter(|before| before.verdict == verdict);
        let turned = before.is_some() && same.is_none();
        let probe = Some(ProbeState {
            verdict,
            since: same.map_or(now, |same| same.since),
            code: unable.map_or("", |_| "not-serving"),
            detail: unable.unwrap_or_default().to_owned(),
            transitions: before.map_or(0, |b| b.transitions) + u32::from(turned),
        });
        let news = known.probe != probe;
        known.probe = probe;
        news
    }

    /// Takes note that it is no instance of a waypoint any more; tells whether that is news.
    pub fn left(&mut self, uid: &str) -> bool {
        self.waypoints.remove(uid).is_some()
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
