//! What a report says: everything, or what has changed since the last one.

use super::LEASE;
use super::state::{CaptureState, LocalStates, Verdict, WorkloadState};
use crate::clock::milliseconds;
use crate::wire::convert::shortened;
use crate::wire::proto::lateen::workload_report::{Capture, Probe};
use crate::wire::proto::lateen::{NodeReport, WorkloadReport};

/// All that a node tells of itself.
pub(super) fn full(seq: u64, now: &LocalStates) -> NodeReport {
    NodeReport {
        full: true,
        ..delta(seq, &LocalStates::default(), now)
    }
}

/// What has changed from `told` to `now`.
pub(super) fn delta(seq: u64, told: &LocalStates, now: &LocalStates) -> NodeReport {
    let news = now.iter();
    let news = news.filter(|(uid, state)| told.of(uid) != Some(*state));
    let gone = told.iter().map(|(uid, _)| uid);
    let gone = gone.filter(|uid| now.of(uid).is_none());
    NodeReport {
        seq,
        lease_ms: u32::try_from(LEASE.as_millis()).unwrap_or(u32::MAX),
        workloads: news.map(|(uid, state)| workload(uid, state)).collect(),
        gone: gone.map(ToString::to_string).collect(),
        draining: now.draining,
        ..NodeReport::default()
    }
}

/// There is room for one reason: that of the capture, where it fails, is behind the probe's too.
fn workload(uid: &str, state: &WorkloadState) -> WorkloadReport {
    let (capture, failed) = match &state.capture {
        None => (Capture::Unknown, None),
        Some(CaptureState::Captured) => (Capture::Captured, None),
        Some(CaptureState::Released) => (Capture::Released, None),
        Some(CaptureState::Failed(reason)) => (Capture::Failed, Some(reason)),
    };
    let probe = state.probe.as_ref();
    let verdict = match probe.map(|p| p.verdict).unwrap_or_default() {
        Verdict::Unknown => Probe::Unknown,
        Verdict::Passing => Probe::Passing,
        Verdict::Failing => Probe::Failing,
        Verdict::NoProbe => Probe::NoProbe,
    };
    let (code, detail) = match (failed, probe) {
        (Some(reason), _) => ("not-captured", reason.as_str()),
        (None, Some(probe)) => (probe.code, probe.detail.as_str()),
        (None, None) => ("", ""),
    };
    WorkloadReport {
        uid: uid.to_owned(),
        probe: verdict.into(),
        since_ms: probe.map_or(0, |p| milliseconds(p.since)),
        code: code.to_owned(),
        detail: shortened(detail.to_owned()),
        capture: capture.into(),
        transitions: probe.map_or(0, |p| p.transitions),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::agent::report::ProbeState;
    use crate::wire::convert::LONGEST_DETAIL;

    fn captured(state: CaptureState) -> WorkloadState {
        WorkloadState {
            capture: Some(state),
            probe: None,
        }
    }

    fn probed(verdict: Verdict, code: &'static str, transitions: u32) -> WorkloadState {
        WorkloadState {
            capture: Some(CaptureState::Captured),
            probe: Some(ProbeState {
                verdict,
                since: UNIX_EPOCH + Duration::from_millis(5),
                code,
                detail: code.to_uppercase(),
                transitions,
            }),
        }
    }

    fn states<const N: usize>(workloads: [(&str, WorkloadState); N]) -> LocalStates {
        let workloads = workloads.map(|(uid, state)| (uid.into(), state));
        LocalStates {
            workloads: BTreeMap::from(workloads),
            ..LocalStates::default()
        }
    }

    #[test]
    fn only_news_is_told() {
        let failed = CaptureState::Failed("é".repeat(200));
        let told = states([
            ("a", captured(CaptureState::Captured)),
            ("b", captured(CaptureState::Captured)),
            ("c", captured(CaptureState::Released)),
        ]);
        let now = states([
            ("a", captured(CaptureState::Captured)),
            ("b", captured(failed)),
        ]);
        let news = delta(2, &told, &now);
        assert_eq!((news.workloads.len(), news.full), (1, false));
        assert_eq!(news.workloads[0].uid, "b");
        assert_eq!(news.workloads[0].code, "not-captured");
        assert!(news.workloads[0].detail.len() <= LONGEST_DETAIL);
        assert_eq!(news.gone, ["c"]);
        assert!(delta(3, &now, &now).workloads.is_empty());
        let all = full(4, &now);
        assert_eq!((all.workloads.len(), all.full), (2, true));
        assert!(all.gone.is_empty());
    }

    #[test]
    fn a_probe_is_told_with_its_reason() {
        let passing = states([("a", probed(Verdict::Passing, "", 0))]);
        let failing = states([("a", probed(Verdict::Failing, "refused", 1))]);
        let news = delta(2, &passing, &failing).workloads.remove(0);
        assert_eq!(news.probe(), Probe::Failing);
        assert_eq!(
            (news.code.as_str(), news.detail.as_str()),
            ("refused", "REFUSED")
        );
        assert_eq!((news.since_ms, news.transitions), (5, 1));
        assert_eq!(news.capture(), Capture::Captured);
        let unknown = full(1, &states([("a", captured(CaptureState::Captured))]));
        assert_eq!(unknown.workloads[0].probe(), Probe::Unknown);
    }

    #[test]
    fn waypoints_are_told_of_as_workloads_are() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let (uid, other) = (Arc::from("wp"), Arc::from("other"));
        let mut now = states([("a", captured(CaptureState::Captured))]);
        assert!(now.serves(&uid, None, at(1)));
        assert!(!now.serves(&uid, None, at(2)), "no news");
        let told = full(1, &now);
        let uids: Vec<_> = told.workloads.iter().map(|w| w.uid.as_str()).collect();
        assert_eq!(uids, ["a", "wp"]);
        let said = &told.workloads[1];
        assert_eq!((said.probe(), said.since_ms), (Probe::Passing, 1000));
        assert_eq!(said.capture(), Capture::Unknown);
        let before = now.clone();
        assert!(now.serves(&uid, Some("cannot listen"), at(3)));
        let said = delta(2, &before, &now).workloads.remove(0);
        assert_eq!((said.probe(), said.since_ms), (Probe::Failing, 3000));
        assert_eq!(
            (said.code.as_str(), said.detail.as_str()),
            ("not-serving", "cannot listen")
        );
        assert_eq!(said.transitions, 1);
        // What a node captures is not what it serves.
        assert!(now.keep(|_| false));
        assert!(now.of("wp").is_some() && now.of("a").is_none());
        let before = now.clone();
        assert!(now.left("wp") && !now.left("wp"));
        assert_eq!(delta(3, &before, &now).gone, ["wp"]);
        assert!(now.serves(&other, Some("first"), at(4)));
        assert_eq!(delta(4, &before, &now).workloads[0].transitions, 0);
    }

    #[test]
    fn a_node_that_stops_says_so() {
        let now = states([]);
        let stopping = LocalStates {
            draining: true,
            ..now.clone()
        };
        assert!(!full(1, &now).draining);
        assert!(delta(2, &now, &stopping).draining);
    }
}
