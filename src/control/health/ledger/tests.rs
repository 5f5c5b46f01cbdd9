use super::*;
use crate::wire::proto::lateen::workload_report::Capture;
use crate::wire::proto::lateen::{NodeReport, WorkloadReport};

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
        let mut ledger = Ledger::new(BTreeMap::new(), start);
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
        let placed = |node: &str, uid: &str| {
            let here = node == "edge-1" && self.placed.contains(&uid);
            here.then(Expected::default)
        };
        let context = Context {
            revision: self.revision,
            placed: &placed,
            known: &|_uid| true,
            declared: &|_node| true,
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
    let news = desk.say(Capture::Captured).news;
    assert_eq!(news.len(), 1);
    assert!(!news[0].before.captured && news[0].now.captured);
    assert_eq!(news[0].memory.node.as_deref(), Some("edge-1"));
    let again = desk
        .report(delta(11, vec![about("cart", Capture::Captured)]))
        .unwrap();
    assert_eq!(again, Heard::default());
    let failed = desk
        .report(delta(12, vec![about("cart", Capture::Failed)]))
        .unwrap();
    assert_eq!((failed.news.len(), failed.failed.len()), (0, 1));
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
    assert_eq!(health.workloads[0].detail.len(), 256);
}

#[test]
fn what_a_node_says_of_itself_is_kept_within_bounds() {
    let mut desk = Desk::new();
    let finding = Finding {
        code: "clock-behind".to_owned(),
        severity: 1,
        message: "é".repeat(900),
    };
    let certificates = Certificates {
        count: 3,
        failing: 1,
        soonest_not_after_ms: 9,
    };
    let said = |seq, findings| NodeReport {
        certificates: Some(certificates),
        findings,
        applied: vec![Applied::default(); 99],
        ..delta(seq, Vec::new())
    };
    desk.report(NodeReport {
        full: true,
        ..said(1, vec![finding; 99])
    });
    let kept = |desk: &Desk| desk.ledger.snapshot(desk.start).remove(0);
    let node = kept(&desk);
    assert_eq!(node.certificates, Some(certificates));
    assert_eq!((node.findings.len(), node.applied.len()), (16, 16));
    assert_eq!(node.findings[0].message.len(), 256);
    desk.report(said(2, Vec::new()));
    assert!(kept(&desk).findings.is_empty(), "as they are now");
}
