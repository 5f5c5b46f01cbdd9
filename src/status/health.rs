//! How services and workloads are, as `lateen status` says it.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::agent::report::{ProbeState, Verdict};
use crate::control::health::NodeHealth;
use crate::model::compile::{ByService, Endpoints};
use crate::model::service::ServiceKey;

/// One service's endpoints, as the control plane publishes them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceLine {
    /// `namespace/hostname`.
    pub name: String,
    /// Endpoints that should be given traffic.
    pub healthy: u32,
    /// All of them.
    pub total: u32,
    /// What is wrong, if anything.
    pub problem: Option<String>,
}

pub(super) fn services(endpoints: &ByService) -> Vec<ServiceLine> {
    let line = |(key, count): (&ServiceKey, &Endpoints)| ServiceLine {
        name: key.to_string(),
        healthy: count.healthy,
        total: count.total,
        problem: count
            .all_failing()
            .then(|| "all endpoints failing, using all".to_owned()),
    };
    endpoints.iter().map(line).collect()
}

/// Difference of clocks that somebody should look at (`spec/control-plane.md` §6.7).
const APART_MS: i64 = 300_000;

/// The gravest of what somebody should look at on a node.
pub(super) fn finding(node: &NodeHealth) -> Option<String> {
    // Of several that are as grave, the first.
    let gravest = node.findings.iter().rev().max_by_key(|f| f.severity);
    let told = gravest.map(|f| format!("{}: {}", f.code, f.message));
    told.or_else(|| {
        let ahead = node.clock_ahead_ms;
        let known = node.host.wall_clock_ms > 0 && ahead.abs() > APART_MS;
        let way = if ahead > 0 { "ahead" } else { "behind" };
        known.then(|| format!("clock-apart: its clock is {} s {way}", ahead.abs() / 1000))
    })
}

/// How one local workload's probe is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProbeLine {
    /// `passing`, `failing`, `starting` or `none`; empty before the first result.
    pub state: String,
    /// Seconds it has been so.
    pub since: Option<u64>,
    /// What was last wrong.
    pub reason: Option<String>,
    /// How often it turned from passing to failing or back.
    pub transitions: u32,
}

impl ProbeLine {
    pub(super) fn of(state: Option<&ProbeState>) -> Self {
        let Some(state) = state else {
            return Self::default();
        };
        let word = match state.verdict {
            Verdict::Unknown => "starting",
            Verdict::Passing => "passing",
            Verdict::Failing => FAILING,
            Verdict::NoProbe => "none",
        };
        let since = SystemTime::now().duration_since(state.since);
        let reason = format!("{}: {}", state.code, state.detail);
        Self {
            state: word.to_owned(),
            since: since.ok().map(|since| since.as_secs()),
            reason: (!state.code.is_empty()).then_some(reason),
            transitions: state.transitions,
        }
    }

    /// Whether it keeps the workload out of service.
    pub fn failing(&self) -> bool {
        self.state == FAILING
    }
}

const FAILING: &str = "failing";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto::lateen::{Finding, HostInfo};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn the_gravest_finding_is_told() {
        let found = |code: &str, severity| Finding {
            code: code.to_owned(),
            severity,
            message: "m".to_owned(),
        };
        for (name, findings, ahead_ms, want) in [
            ("nothing", vec![], 0, None),
            ("a small difference", vec![], 299_000, None),
            (
                "ahead",
                vec![],
                46_800_000,
                Some("clock-apart: its clock is 46800 s ahead"),
            ),
            (
                "behind",
                vec![],
                -301_000,
                Some("clock-apart: its clock is 301 s behind"),
            ),
            ("one", vec![found("a", 1)], -301_000, Some("a: m")),
            (
                "a graver one",
                vec![found("a", 1), found("b", 2)],
                0,
                Some("b: m"),
            ),
            (
                "two as grave",
                vec![found("a", 1), found("b", 1)],
                0,
                Some("a: m"),
            ),
        ] {
            let host = HostInfo {
                wall_clock_ms: 1,
                ..HostInfo::default()
            };
            let node = NodeHealth {
                node: Arc::from("edge-1"),
                reachable: true,
                heard: Duration::ZERO,
                draining: false,
                host,
                clock_ahead_ms: ahead_ms,
                applied: Vec::new(),
                certificates: None,
                findings,
                workloads: Vec::new(),
            };
            assert_eq!(finding(&node).as_deref(), want, "{name}");
        }
    }
}
