//! How services and workloads are, as `lateen status` says it.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::agent::report::{ProbeState, Verdict};
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
