//! What nodes have said of themselves and their workloads, as a pure value.
//!
//! One rule is above all others: absence of news never turns encryption off. Only a node that says
//! RELEASED takes back that a workload is captured; failure, silence, a lost lease, a restart of
//! this control plane and a move to another node do not (`spec/control-plane.md` §7.3).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::compile::{Observed, Reported};
use crate::wire::proto::lateen::workload_report::Capture;
use crate::wire::proto::lateen::{HostInfo, NodeReport, WorkloadReport};

/// How long a node counts as reachable after it was last heard (§7.2).
pub const LEASE: Duration = Duration::from_secs(15);

/// Longest text kept of a workload's detail, in bytes.
const LONGEST_DETAIL: usize = 256;

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

/// What a node last said of one of its workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadHealth {
    /// Its uid.
    pub uid: Arc<str>,
    /// Whether it is captured.
    pub capture: CaptureState,
    /// A stable word for what is wrong; empty when nothing is.
    pub code: String,
    /// The same for people, at most 256 bytes.
    pub detail: String,
}

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
    /// Its workloads, in the order of uids.
    pub workloads: Vec<WorkloadHealth>,
}

/// Names a report stream among those of its node.
pub(super) type StreamId = u64;

/// What this control plane knows when a report arrives.
pub(super) struct Context<'a> {
    /// The number of the revision in force.
    pub(super) revision: u64,
    /// Whether that revision places a workload on the reporting node.
    pub(super) placed: &'a dyn Fn(&str) -> bool,
    /// Now, for leases.
    pub(super) now: Instant,
    /// Now, for people: milliseconds since 1970.
    pub(super) wall_clock_ms: i64,
}

/// What came of a report.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The node must send everything: it is not known which state its changes are to.
    pub(super) need_full: bool,
    /// Workloads whose capture began (true) or ended.
    pub(super) learned: Vec<(Arc<str>, bool)>,
    /// Workloads that newly failed to be captured.
    pub(super) failed: Vec<WorkloadHealth>,
    /// Workloads it reported that are not its own; the report of these is ignored.
    pub(super) strangers: Vec<String>,
}

#[derive(Debug)]
struct Node {
    stream: StreamId,
    /// A full report has come on this stream.
    synced: bool,
    seq: u64,
    boot_id: String,
    heard_at: Instant,
    draining: bool,
    host: HostInfo,
    clock_ahead_ms: i64,
    workloads: BTreeMap<Arc<str>, WorkloadHealth>,
    /// The revision by which workloads were last found to be another's. A later one may place
    /// them here, so their report is asked for again.
    ignored_by: Option<u64>,
}

/// All nodes that have reported.
#[derive(Debug)]
pub(super) struct Ledger {
    nodes: BTreeMap<Arc<str>, Node>,
    reported: Reported,
    streams: StreamId,
}

impl Ledger {
    /// Starts from what was known before a restart.
    pub(super) fn new(reported: Reported) -> Self {
        Self {
            nodes: BTreeMap::new(),
            reported,
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
        let entry = self.nodes.entry(node.clone()).or_insert_with(|| Node {
            stream,
            synced: false,
            seq: 0,
            boot_id: String::new(),
            heard_at: now,
            draining: false,
            host: HostInfo::default(),
            clock_ahead_ms: 0,
            workloads: BTreeMap::new(),
            ignored_by: None,
        });
        entry.stream = stream;
        entry.synced = false;
        stream
    }

    /// Takes a report in; none when the stream is not the node's latest.
    pub(super) fn report(
        &mut self,
        node: &str,
        stream: StreamId,
        report: NodeReport,
        context: &Context<'_>,
    ) -> Option<Heard> {
        let node = self.nodes.get_mut(node).filter(|n| n.stream == stream)?;
        node.heard_at = context.now;
        node.draining = report.draining;
        let rebooted = report
            .host
            .as_ref()
            .is_some_and(|h| h.boot_id != node.boot_id);
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
        if let Some(host) = report.host {
            node.clock_ahead_ms = host.wall_clock_ms.saturating_sub(context.wall_clock_ms);
            node.boot_id.clone_from(&host.boot_id);
            node.host = host;
        }
        if report.full {
            node.workloads.clear();
            node.ignored_by = None;
        }
        for uid in &report.gone {
            node.workloads.remove(uid.as_str());
        }
        let mut heard = Heard::default();
        for said in report.workloads {
            node.hear(&mut self.reported, said, context, &mut heard);
        }
        heard.need_full = node.ignored_by.is_some_and(|by| by != context.revision);
        Some(heard)
    }

    /// How every node is, in the order of their names.
    pub(super) fn snapshot(&self, now: Instant) -> Vec<NodeHealth> {
        let health = |(name, node): (&Arc<str>, &Node)| {
            let heard = now.saturating_duration_since(node.heard_at);
            NodeHealth {
                node: name.clone(),
                reachable: heard <= LEASE,
                heard,
                draining: node.draining,
                host: node.host.clone(),
                clock_ahead_ms: node.clock_ahead_ms,
                workloads: node.workloads.values().cloned().collect(),
            }
        };
        self.nodes.iter().map(health).collect()
    }
}

impl Node {
    fn hear(
        &mut self,
        reported: &mut Reported,
        said: WorkloadReport,
        context: &Context<'_>,
        heard: &mut Heard,
    ) {
        if !(context.placed)(&said.uid) {
            self.ignored_by = Some(context.revision);
            heard.strangers.push(said.uid);
            return;
        }
        let health = WorkloadHealth {
            uid: Arc::from(said.uid.as_str()),
            capture: capture(&said),
            code: said.code,
            detail: shortened(said.detail),
        };
        let uid = health.uid.clone();
        let captured = match health.capture {
            CaptureState::Captured => Some(true),
            CaptureState::Released => Some(false),
            CaptureState::Failed | CaptureState::Unknown => None,
        };
        if let Some(captured) = captured {
            let observed = Observed {
                captured,
                ..reported.of(&uid)
            };
            if reported.set(uid.clone(), observed) {
                heard.learned.push((uid.clone(), captured));
            }
        }
        let before = self.workloads.insert(uid, health.clone());
        let failed_before = before.is_some_and(|b| b.capture == CaptureState::Failed);
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

fn shortened(mut detail: String) -> String {
    let mut ends = (0..=LONGEST_DETAIL).rev();
    let end = ends.find(|at| detail.is_char_boundary(*at));
    detail.truncate(end.unwrap_or_default());
    detail
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Desk {
        ledger: Ledger,
        node: Arc<str>,
        stream: StreamId,
        start: Instant,
        revision: u64,
        placed: Vec<&'static str>,
    }

    impl Desk {
        fn new() -> Self {
            let start = Instant::now();
            let mut ledger = Ledger::new(Reported::default());
            let node = Arc::from("edge-1");
            let stream = ledger.opened(&node, start);
            Self {
                ledger,
                node,
                stream,
                start,
                revision: 1,
                placed: vec!["cart"],
            }
        }

        fn report(&mut self, report: NodeReport) -> Option<Heard> {
            let placed = |uid: &str| self.placed.contains(&uid);
            let context = Context {
                revision: self.revision,
                placed: &placed,
                now: self.start,
                wall_clock_ms: 1_000,
            };
            self.ledger
                .report(&self.node, self.stream, report, &context)
        }

        fn say(&mut self, capture: Capture) -> Heard {
            self.report(full(10, vec![about("cart", capture)])).unwrap()
        }

        fn captured(&self) -> bool {
            self.ledger.reported().of("cart").captured
        }
    }

    fn about(uid: &str, capture: Capture) -> WorkloadReport {
        WorkloadReport {
            uid: uid.to_owned(),
            capture: capture.into(),
            ..WorkloadReport::default()
        }
    }

    fn delta(seq: u64, workloads: Vec<WorkloadReport>) -> NodeReport {
        NodeReport {
            seq,
            workloads,
            ..NodeReport::default()
        }
    }

    fn full(seq: u64, workloads: Vec<WorkloadReport>) -> NodeReport {
        NodeReport {
            full: true,
            ..delta(seq, workloads)
        }
    }

    fn booted(boot_id: &str, report: NodeReport) -> NodeReport {
        let host = HostInfo {
            boot_id: boot_id.to_owned(),
            wall_clock_ms: 61_000,
            ..HostInfo::default()
        };
        NodeReport {
            host: Some(host),
            ..report
        }
    }

    #[test]
    fn only_released_takes_capture_back() {
        for (name, said, want) in [
            ("captured", vec![Capture::Captured], true),
            (
                "released",
                vec![Capture::Captured, Capture::Released],
                false,
            ),
            ("failed", vec![Capture::Captured, Capture::Failed], true),
            ("unknown", vec![Capture::Captured, Capture::Unknown], true),
            ("failed from the start", vec![Capture::Failed], false),
            ("again", vec![Capture::Released, Capture::Captured], true),
        ] {
            let mut desk = Desk::new();
            for capture in said {
                desk.stream = desk.ledger.opened(&desk.node.clone(), desk.start);
                desk.say(capture);
            }
            assert_eq!(desk.captured(), want, "{name}");
        }
    }

    #[test]
    fn silence_changes_nothing() {
        let mut desk = Desk::new();
        desk.say(Capture::Captured);
        desk.report(full(11, vec![])).unwrap();
        desk.report(NodeReport {
            gone: vec!["cart".to_owned()],
            ..delta(12, vec![])
        });
        assert!(desk.captured());
        let late = desk
            .ledger
            .snapshot(desk.start + LEASE + Duration::from_secs(1));
        assert!(!late[0].reachable && late[0].workloads.is_empty());
        assert!(desk.captured());
        assert!(desk.ledger.snapshot(desk.start + LEASE)[0].reachable);
    }

    #[test]
    fn learns_each_change_once() {
        let mut desk = Desk::new();
        assert_eq!(
            desk.say(Capture::Captured).learned,
            [(Arc::from("cart"), true)]
        );
        let again = desk
            .report(delta(11, vec![about("cart", Capture::Captured)]))
            .unwrap();
        assert_eq!(again, Heard::default());
        let failed = desk
            .report(delta(12, vec![about("cart", Capture::Failed)]))
            .unwrap();
        assert_eq!((failed.learned.len(), failed.failed.len()), (0, 1));
        let still = desk
            .report(delta(13, vec![about("cart", Capture::Failed)]))
            .unwrap();
        assert!(still.failed.is_empty());
    }

    #[test]
    fn sequence() {
        let captured = || vec![about("cart", Capture::Captured)];
        type Said = (NodeReport, bool, bool);
        let cases: [(&str, Vec<Said>); 6] = [
            ("a delta first", vec![(delta(1, captured()), true, false)]),
            ("full first", vec![(full(1, captured()), false, true)]),
            (
                "then deltas",
                vec![
                    (full(1, vec![]), false, false),
                    (delta(2, captured()), false, true),
                ],
            ),
            (
                "an older one is ignored",
                vec![
                    (full(5, vec![]), false, false),
                    (delta(5, captured()), false, false),
                ],
            ),
            (
                "another boot needs everything",
                vec![
                    (booted("a", full(1, vec![])), false, false),
                    (booted("b", delta(2, captured())), true, false),
                    (booted("b", full(1, captured())), false, true),
                ],
            ),
            (
                "an unknown state",
                vec![(
                    full(
                        1,
                        vec![WorkloadReport {
                            capture: 77,
                            ..about("cart", Capture::Captured)
                        }],
                    ),
                    false,
                    false,
                )],
            ),
        ];
        for (name, said) in cases {
            let mut desk = Desk::new();
            for (report, need_full, want) in said {
                let heard = desk.report(report).unwrap();
                assert_eq!(
                    (heard.need_full, desk.captured()),
                    (need_full, want),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_restarted_agent_counts_from_the_beginning() {
        let mut desk = Desk::new();
        desk.report(booted("a", full(900, vec![]))).unwrap();
        let old = desk.stream;
        desk.stream = desk.ledger.opened(&desk.node.clone(), desk.start);
        let fresh = booted("a", full(1, vec![about("cart", Capture::Captured)]));
        assert!(!desk.report(fresh).unwrap().need_full);
        assert!(desk.captured());
        desk.stream = old;
        assert!(
            desk.report(full(901, vec![])).is_none(),
            "the newer stream wins"
        );
    }

    #[test]
    fn others_workloads_are_ignored_until_a_revision_places_them() {
        let mut desk = Desk::new();
        let both = || {
            vec![
                about("cart", Capture::Captured),
                about("web", Capture::Captured),
            ]
        };
        let heard = desk.report(full(1, both())).unwrap();
        assert_eq!(heard.strangers, ["web"]);
        assert!(!desk.ledger.reported().of("web").captured);
        assert!(!desk.report(delta(2, vec![])).unwrap().need_full);
        desk.revision = 2;
        desk.placed.push("web");
        assert!(
            desk.report(delta(3, vec![])).unwrap().need_full,
            "it may be its own now"
        );
        assert!(!desk.report(full(4, both())).unwrap().need_full);
        assert!(desk.ledger.reported().of("web").captured);
    }

    #[test]
    fn status() {
        let mut desk = Desk::new();
        let told = WorkloadReport {
            code: "netns-missing".to_owned(),
            detail: "é".repeat(200),
            ..about("cart", Capture::Failed)
        };
        desk.report(booted("a", full(1, vec![told]))).unwrap();
        let health = desk.ledger.snapshot(desk.start).pop().unwrap();
        assert_eq!(health.clock_ahead_ms, 60_000);
        assert_eq!(health.host.boot_id, "a");
        assert_eq!(health.workloads[0].code, "netns-missing");
        assert_eq!(health.workloads[0].detail.len(), LONGEST_DETAIL);
    }
}
