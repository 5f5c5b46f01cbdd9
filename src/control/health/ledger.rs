//! What nodes have said of themselves and their workloads, and what follows from it for the mesh,
//! as a pure value.
//!
//! One rule is above all others: absence of news never turns encryption off. Only a node that says
//! RELEASED takes back that a workload is captured; failure, silence, a lost lease, a restart of
//! this control plane and a move to another node do not (`spec/control-plane.md` §7.3).
//!
//! A workload is healthy while its node says that it passes, is not going down and has not died.
//! Who flaps is [`damping`]'s to say, which silence means death [`silence`]'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::memory::Memory;
use crate::control::revision::Expected;
use crate::model::compile::{Observed, Reported};
use crate::model::workload::Health;
use crate::wire::proto::lateen::{Applied, Certificates, Finding, HostInfo};

mod damping;
mod heard;
mod silence;

use damping::Damping;
use silence::Silence;

pub use heard::{CaptureState, ProbeVerdict, WorkloadHealth};

/// How long a node counts as reachable after it was last heard (§7.2).
pub const LEASE: Duration = Duration::from_secs(15);
/// How long a workload that no mesh file declares any more is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// How one node is, for `lateen status`.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeHealth {
    /// The node.
    pub node: Arc<str>,
    /// Whether its lease holds.
    pub reachable: bool,
    /// How long ago it was last heard.
    pub heard: Duration,
    /// It is shutting down.
    pub draining: bool,
    /// What it says of its host; empty until it has.
    pub host: HostInfo,
    /// Milliseconds its clock was ahead of ours when it last told it.
    pub clock_ahead_ms: i64,
    /// How far it has come, with whomever it follows.
    pub applied: Vec<Applied>,
    /// Its workloads' certificates, once it has told.
    pub certificates: Option<Certificates>,
    /// What it says somebody should look at.
    pub findings: Vec<Finding>,
    /// Its workloads, in the order of uids.
    pub workloads: Vec<WorkloadHealth>,
}

/// Names a report stream among those of its node.
pub(super) type StreamId = u64;

/// What this control plane knows when something happens.
pub(super) struct Context<'a> {
    /// The number of the revision in force.
    pub(super) revision: u64,
    /// What a node, the first, is to report of a workload, the second; none when that revision
    /// does not place it there.
    pub(super) placed: &'a dyn Fn(&str, &str) -> Option<Expected>,
    /// Whether it declares a workload.
    pub(super) known: &'a dyn Fn(&str) -> bool,
    /// Whether it declares a node that is to report.
    pub(super) declared: &'a dyn Fn(&str) -> bool,
    /// Now, for leases.
    pub(super) now: Instant,
    /// Now, for people: milliseconds since 1970.
    pub(super) wall_clock_ms: i64,
}

/// Something new of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) uid: Arc<str>,
    pub(super) before: Observed,
    pub(super) now: Observed,
    /// What is to be remembered of it.
    pub(super) memory: Memory,
}

/// What came of a report.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The node must send everything: it is not known which state its changes are to.
    pub(super) need_full: bool,
    /// What is to be published or remembered.
    pub(super) news: Vec<News>,
    /// Workloads that newly failed to be captured.
    pub(super) failed: Vec<WorkloadHealth>,
    /// Workloads it reported that are not its own; the report of these is ignored.
    pub(super) strangers: Vec<String>,
}

/// What came of looking at the clock.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// What is to be published or remembered.
    pub(super) news: Vec<News>,
    /// Nodes that were given up.
    pub(super) given_up: Vec<Arc<str>>,
    /// Whether most nodes fell silent at once, or no longer are; none when that did not change.
    pub(super) mass_loss: Option<bool>,
    /// Workloads that are remembered no longer.
    pub(super) forgotten: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Node {
    /// None until it opens one; it may only be remembered.
    stream: Option<StreamId>,
    /// A full report has come on this stream.
    synced: bool,
    seq: u64,
    boot_id: String,
    heard_at: Instant,
    draining: bool,
    /// It was silent for too long, or is revoked; ends with a full report.
    given_up: bool,
    host: HostInfo,
    clock_ahead_ms: i64,
    applied: Vec<Applied>,
    certificates: Option<Certificates>,
    findings: Vec<Finding>,
    workloads: BTreeMap<Arc<str>, WorkloadHealth>,
    /// The revision by which workloads were last found to be another's. A later one may place
    /// them here, so their report is asked for again.
    ignored_by: Option<u64>,
}

impl Node {
    fn new(now: Instant) -> Self {
        Self {
            stream: None,
            synced: false,
            seq: 0,
            boot_id: String::new(),
            heard_at: now,
            draining: false,
            given_up: false,
            host: HostInfo::default(),
            clock_ahead_ms: 0,
            applied: Vec::new(),
            certificates: None,
            findings: Vec::new(),
            workloads: BTreeMap::new(),
            ignored_by: None,
        }
    }
}

/// One workload, whoever reports it.
#[derive(Debug)]
struct Subject {
    memory: Memory,
    /// What others were last told to remember.
    kept: Memory,
    /// What its probe has come to; before it is told, what was last published.
    probe: Health,
    /// Its node went away, and since it is back has not said that it serves it again.
    absent: bool,
    /// Since when no mesh file declares it.
    lost: Option<Instant>,
    damping: Damping,
}

impl Subject {
    fn new(memory: Memory, now: Instant) -> Self {
        Self {
            probe: memory.health,
            absent: false,
            lost: None,
            damping: Damping::new(memory.health == Health::Healthy, now),
            kept: memory.clone(),
            memory,
        }
    }
}

/// All nodes that have reported, and their workloads.
#[derive(Debug)]
pub(super) struct Ledger {
    nodes: BTreeMap<Arc<str>, Node>,
    subjects: BTreeMap<Arc<str>, Subject>,
    reported: Reported,
    silence: Silence,
    streams: StreamId,
}

impl Ledger {
    /// Starts from what was known before a restart. Nodes that are remembered count as heard now,
    /// but for those of which no workload was healthy: they were dead, or may as well have been.
    pub(super) fn new(known: BTreeMap<Arc<str>, Memory>, now: Instant) -> Self {
        let mut nodes: BTreeMap<Arc<str>, Node> = BTreeMap::new();
        for memory in known.values() {
            if let Some(name) = &memory.node {
                let gone = || Node {
                    given_up: true,
                    ..Node::new(now)
                };
                let node = nodes.entry(Arc::clone(name)).or_insert_with(gone);
                node.given_up &= memory.health == Health::Unhealthy;
            }
        }
        let observed = |(uid, memory): (&Arc<str>, &Memory)| {
            let observed = Observed {
                captured: memory.captured,
                health: memory.health,
                held: false,
            };
            (Arc::clone(uid), observed)
        };
        Self {
            nodes,
            reported: known.iter().map(observed).collect(),
            subjects: known
                .into_iter()
                .map(|(uid, memory)| (uid, Subject::new(memory, now)))
                .collect(),
            silence: Silence::new(now),
            streams: 0,
        }
    }

    /// What is known of workloads, for the next revision.
    pub(super) fn reported(&self) -> &Reported {
        &self.reported
    }

    /// A node opens a stream, which takes the place of any it had.
    pub(super) fn opened(&mut self, node: &Arc<str>, now: Instant) -> StreamId {
        self.streams += 1;
        let stream = self.streams;
        let entry = self.nodes.entry(node.clone());
        let entry = entry.or_insert_with(|| Node::new(now));
        entry.stream = Some(stream);
        entry.synced = false;
        stream
    }

    /// Ends the stream of a node; tells whether it is known.
    pub(super) fn closed(&mut self, node: &str) -> bool {
        self.streams += 1;
        let entry = self.nodes.get_mut(node);
        entry.is_some_and(|entry| {
            // Nobody's, so that what is still on its way is not heard.
            entry.stream = Some(self.streams);
            entry.synced = false;
            true
        })
    }

    /// Takes a node's workloads out of service until it reports again on another stream.
    pub(super) fn revoked(&mut self, node: &str, context: &Context<'_>) -> Vec<News> {
        if !self.closed(node) {
            return Vec::new();
        }
        if let Some(entry) = self.nodes.get_mut(node) {
            entry.given_up = true;
        }
        self.judge_all(node, context)
    }

    /// Looks at the clock: gives up nodes that have been silent for too long, and lets workloads
    /// go that have calmed down.
    pub(super) fn pass(&mut self, context: &Context<'_>) -> Passed {
        let now = context.now;
        if self.silence.stalled(now) {
            // What was said meanwhile was not heard.
            let silent = self.nodes.values_mut().filter(|node| !node.given_up);
            silent.for_each(|node| node.heard_at = now);
        }
        self.nodes
            .retain(|name, node| (context.declared)(name) || node.heard_at + LEASE > now);
        // Those that are known to be dead say nothing of a loss.
        let nodes = self.nodes.values().filter(|node| !node.given_up);
        let heard: Vec<Instant> = nodes.map(|node| node.heard_at).collect();
        let mut passed = Passed::default();
        if self.silence.look(&heard, now) {
            passed.mass_loss = Some(self.silence.mass_loss());
        }
        for (name, node) in &mut self.nodes {
            if !node.given_up && self.silence.gives_up(node.heard_at, now) {
                node.given_up = true;
                // It is not known any more which state its changes are to.
                node.synced = false;
                passed.given_up.push(Arc::clone(name));
            }
        }
        for name in &passed.given_up {
            passed.news.extend(self.judge_all(name, context));
        }
        let calm = |(uid, subject): (&Arc<str>, &Subject)| {
            let due = subject.damping.due().filter(|due| *due <= now);
            due.map(|_| Arc::clone(uid))
        };
        let calm: Vec<_> = self.subjects.iter().filter_map(calm).collect();
        let calm = calm.iter().filter_map(|uid| self.judge(uid, context));
        passed.news.extend(calm);
        passed.forgotten = self.forget(context);
        passed
    }

    /// Drops what is long declared nowhere.
    fn forget(&mut self, context: &Context<'_>) -> Vec<Arc<str>> {
        let now = context.now;
        let mut forgotten = Vec::new();
        self.subjects.retain(|uid, subject| {
            subject.lost = match (context.known)(uid) {
                true => None,
                false => subject.lost.or(Some(now)),
            };
            let keep = subject.lost.is_none_or(|since| now < since + REMEMBERED);
            if !keep {
                forgotten.push(Arc::clone(uid));
            }
            keep
        });
        for uid in &forgotten {
            self.reported.forget(uid);
        }
        forgotten
    }

    /// Whether most nodes have fallen silent at once.
    pub(super) fn mass_loss(&self) -> bool {
        self.silence.mass_loss()
    }

    /// When to look at the clock again at the latest, if nothing else happens before.
    pub(super) fn due(&self, now: Instant) -> Instant {
        let nodes = self.nodes.values().filter(|node| !node.given_up);
        let silent = nodes.map(|node| self.silence.due(node.heard_at));
        let held = self.subjects.values().filter_map(|s| s.damping.due());
        // What is due and was not done waits for the others, so it is looked at now and then.
        let due = silent.chain(held).filter(|due| *due > now).min();
        let due = due.unwrap_or(now + LEASE);
        due.min(now + LEASE)
    }

    /// How every node that was heard since the start is, in the order of their names.
    pub(super) fn snapshot(&self, now: Instant) -> Vec<NodeHealth> {
        let health = |(name, node): (&Arc<str>, &Node)| {
            node.stream?;
            let heard = now.saturating_duration_since(node.heard_at);
            Some(NodeHealth {
                node: name.clone(),
                reachable: heard <= LEASE,
                heard,
                draining: node.draining,
                host: node.host.clone(),
                clock_ahead_ms: node.clock_ahead_ms,
                applied: node.applied.clone(),
                certificates: node.certificates,
                findings: node.findings.clone(),
                workloads: node.workloads.values().cloned().collect(),
            })
        };
        self.nodes.iter().filter_map(health).collect()
    }

    /// Judges every workload that `node` runs.
    fn judge_all(&mut self, node: &str, context: &Context<'_>) -> Vec<News> {
        let of_node = |(_, subject): &(&Arc<str>, &Subject)| {
            let own = subject.memory.node.as_deref();
            own == Some(node)
        };
        let uids = self.subjects.iter().filter(of_node);
        let uids: Vec<_> = uids.map(|(uid, _)| Arc::clone(uid)).collect();
        uids.iter()
            .filter_map(|uid| self.judge(uid, context))
            .collect()
    }

    /// Decides what is published of a workload; none when that, and what is remembered of it, stays
    /// the same.
    fn judge(&mut self, uid: &Arc<str>, context: &Context<'_>) -> Option<News> {
        let subject = self.subjects.get_mut(uid)?;
        // What became of a node says nothing of a workload that has moved away.
        let name = subject.memory.node.as_deref();
        let name = name.filter(|node| (context.placed)(node, uid).is_some());
        let node = name.and_then(|name| self.nodes.get(name));
        let absent = name.is_some() && subject.absent;
        let up = subject.probe == Health::Healthy && node.is_none_or(|node| !node.given_up);
        let draining = node.is_some_and(|node| node.draining);
        let now = Observed {
            captured: subject.memory.captured,
            health: match up && !draining && !absent {
                true => Health::Healthy,
                false => Health::Unhealthy,
            },
            // To drain and come back is no sign of trouble, and does not count.
            held: subject.damping.hear(up, context.now),
        };
        let before = self.reported.of(uid);
        subject.memory.health = now.health;
        let new = self.reported.set(Arc::clone(uid), now) || subject.memory != subject.kept;
        subject.kept.clone_from(&subject.memory);
        new.then(|| News {
            uid: Arc::clone(uid),
            before,
            now,
            memory: subject.memory.clone(),
        })
    }
}

#[cfg(test)]
mod fleet;
#[cfg(test)]
mod tests;
