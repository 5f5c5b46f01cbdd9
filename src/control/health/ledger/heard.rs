//! Reports: which of them count, and what they say (`spec/control-plane.md` §7.2).

use std::mem;
use std::sync::Arc;

use super::{Context, Heard, Ledger, Memory, StreamId, Subject};
use crate::model::workload::Health;
use crate::wire::convert::shortened;
use crate::wire::proto::lateen::workload_report::{Capture, Probe};
use crate::wire::proto::lateen::{NodeReport, WorkloadReport};

/// Most that is kept of one report: types, and findings.
const APPLIED: usize = 16;
const FINDINGS: usize = 16;

/// What a node last said of capturing one workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureState {
    /// It does not know.
    #[default]
    Unknown,
    /// Traffic is captured.
    Captured,
    /// Traffic is no longer captured, on purpose.
    Released,
    /// Traffic should be captured and is not.
    Failed,
}

/// What a node last said of probing one workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeVerdict {
    /// It does not know yet.
    #[default]
    Unknown,
    /// It passes.
    Passing,
    /// It fails.
    Failing,
    /// It is not probed, and exists.
    NoProbe,
}

/// What a node last said of one of its workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadHealth {
    /// Its uid.
    pub uid: Arc<str>,
    /// Whether it is captured.
    pub capture: CaptureState,
    /// Whether it passes its probe.
    pub probe: ProbeVerdict,
    /// Since when, in milliseconds since 1970 by the node's clock.
    pub since_ms: i64,
    /// How often it turned from passing to failing or back.
    pub transitions: u32,
    /// A stable word for what is wrong, or last was; empty when nothing is.
    pub code: String,
    /// The same for people, at most 256 bytes.
    pub detail: String,
}

impl WorkloadHealth {
    fn new(said: WorkloadReport) -> Self {
        Self {
            uid: Arc::from(said.uid.as_str()),
            capture: capture(&said),
            probe: probe(&said),
            since_ms: said.since_ms,
            transitions: said.transitions,
            code: said.code,
            detail: shortened(said.detail),
        }
    }
}

impl Ledger {
    /// Takes a report in; none when the stream is not the node's latest.
    pub(in crate::control::health) fn report(
        &mut self,
        name: &Arc<str>,
        stream: StreamId,
        report: NodeReport,
        context: &Context<'_>,
    ) -> Option<Heard> {
        let node = self.nodes.get_mut(name);
        let node = node.filter(|n| n.stream == Some(stream))?;
        node.heard_at = context.now;
        let host = report.host.as_ref();
        let rebooted = host.is_some_and(|h| h.boot_id != node.boot_id);
        if !report.full && (!node.synced || rebooted) {
            return Some(Heard {
                need_full: true,
                ..Heard::default()
            });
        }
        if node.synced && !rebooted && report.seq <= node.seq {
            return Some(Heard::default());
        }
        node.seq = report.seq;
        node.synced = true;
        let turned = node.draining != report.draining || node.given_up;
        let back = report.full && !report.draining && (node.draining || node.given_up);
        node.draining = report.draining;
        if let Some(host) = report.host {
            node.clock_ahead_ms = host.wall_clock_ms.saturating_sub(context.wall_clock_ms);
            node.boot_id.clone_from(&host.boot_id);
            node.host = host;
        }
        node.applied = bounded(report.applied, APPLIED, |a| {
            a.last_error = shortened(mem::take(&mut a.last_error))
        });
        node.certificates = report.certificates;
        node.findings = bounded(report.findings, FINDINGS, |f| {
            f.message = shortened(mem::take(&mut f.message))
        });
        if report.full {
            node.given_up = false;
            node.workloads.clear();
            node.ignored_by = None;
        }
        for uid in &report.gone {
            node.workloads.remove(uid.as_str());
        }
        if back {
            self.came_back(name);
        }
        let mut heard = Heard::default();
        for said in report.workloads {
            self.hear(name, said, context, &mut heard);
        }
        if turned {
            heard.news.extend(self.judge_all(name, context));
        }
        let node = self.nodes.get(name)?;
        heard.need_full = node.ignored_by.is_some_and(|by| by != context.revision);
        Some(heard)
    }

    /// A node that has just started is there before it listens.
    fn came_back(&mut self, node: &str) {
        let own = |subject: &&mut Subject| subject.memory.node.as_deref() == Some(node);
        let own = self.subjects.values_mut().filter(own);
        own.for_each(|subject| subject.absent = true);
    }

    fn hear(
        &mut self,
        name: &Arc<str>,
        said: WorkloadReport,
        context: &Context<'_>,
        heard: &mut Heard,
    ) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        let Some(expected) = (context.placed)(name, &said.uid) else {
            node.ignored_by = Some(context.revision);
            heard.strangers.push(said.uid);
            return;
        };
        let health = WorkloadHealth::new(said);
        let before = node.workloads.insert(health.uid.clone(), health.clone());
        let failed_before = before.is_some_and(|b| b.capture == CaptureState::Failed);
        let subject = self.subjects.entry(health.uid.clone());
        let new = || {
            // Nobody has seen it work yet.
            let health = match expected.probe && health.probe == ProbeVerdict::Unknown {
                true => Health::Unhealthy,
                false => Health::Healthy,
            };
            let memory = Memory {
                health,
                ..Memory::default()
            };
            Subject::new(memory, context.now)
        };
        let subject = subject.or_insert_with(new);
        subject.memory.node = Some(Arc::clone(name));
        match health.capture {
            CaptureState::Captured => subject.memory.captured = true,
            CaptureState::Released => subject.memory.captured = false,
            CaptureState::Failed | CaptureState::Unknown => {}
        }
        // Peers come through a tunnel, for which somebody must listen.
        let tunnelled = expected.capture && subject.memory.captured;
        subject.absent &= tunnelled && health.capture != CaptureState::Captured;
        match health.probe {
            ProbeVerdict::Passing | ProbeVerdict::NoProbe => subject.probe = Health::Healthy,
            ProbeVerdict::Failing => subject.probe = Health::Unhealthy,
            // A node that has just started does not know yet. Until it does nothing changes.
            ProbeVerdict::Unknown => {}
        }
        heard.news.extend(self.judge(&health.uid, context));
        if health.capture == CaptureState::Failed && !failed_before {
            heard.failed.push(health);
        }
    }
}

/// A state newer than this version says nothing to it.
fn capture(said: &WorkloadReport) -> CaptureState {
    match Capture::try_from(said.capture) {
        Ok(Capture::Captured) => CaptureState::Captured,
        Ok(Capture::Released) => CaptureState::Released,
        Ok(Capture::Failed) => CaptureState::Failed,
        Ok(Capture::Unknown) | Err(_) => CaptureState::Unknown,
    }
}

fn probe(said: &WorkloadReport) -> ProbeVerdict {
    match Probe::try_from(said.probe) {
        Ok(Probe::Passing) => ProbeVerdict::Passing,
        Ok(Probe::Failing) => ProbeVerdict::Failing,
        Ok(Probe::NoProbe) => ProbeVerdict::NoProbe,
        Ok(Probe::Unknown) | Err(_) => ProbeVerdict::Unknown,
    }
}

/// No more than `most`, each made to fit.
fn bounded<T>(mut all: Vec<T>, most: usize, fit: impl Fn(&mut T)) -> Vec<T> {
    all.truncate(most);
    all.iter_mut().for_each(fit);
    all
}
