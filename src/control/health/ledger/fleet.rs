//! What becomes of workloads' health as their nodes speak and fall silent.

use super::*;
use crate::wire::proto::lateen::workload_report::{Capture, Probe};
use crate::wire::proto::lateen::{NodeReport, WorkloadReport};

/// Nodes `edge-1` to `edge-N`, each with one workload of its own, `w-1` to `w-N`.
struct Fleet {
    ledger: Ledger,
    start: Instant,
    now: Instant,
    /// When the clock is looked at next.
    due: Instant,
    streams: BTreeMap<Arc<str>, (StreamId, u64)>,
    /// What was remembered last of each workload.
    kept: BTreeMap<Arc<str>, Memory>,
    /// Workloads that have moved to a node that has never reported.
    moved: Vec<&'static str>,
    /// Workloads that are declared no longer.
    removed: Vec<&'static str>,
    expected: Expected,
}

impl Fleet {
    /// All of them have reported that they pass, and time enough has gone by since the start.
    fn of(nodes: usize) -> Self {
        let start = Instant::now();
        let mut fleet = Self {
            ledger: Ledger::new(BTreeMap::new(), start),
            start,
            now: start,
            due: start,
            streams: BTreeMap::new(),
            kept: BTreeMap::new(),
            moved: Vec::new(),
            removed: Vec::new(),
            expected: Expected {
                capture: true,
                probe: false,
            },
        };
        fleet.now = start + silence::GIVE_UP;
        fleet.look();
        for number in 1..=nodes {
            fleet.open(number);
            let news = fleet.full(number, Probe::Passing, false);
            assert!(!news.is_empty(), "its node is news");
        }
        fleet
    }

    /// The same after a restart of the control plane.
    fn restarted(&mut self) {
        self.ledger = Ledger::new(self.kept.clone(), self.now);
        self.start = self.now;
        self.due = self.ledger.due(self.now);
        self.streams.clear();
    }

    fn open(&mut self, number: usize) {
        let node = Arc::from(format!("edge-{number}"));
        let stream = self.ledger.opened(&node, self.now);
        self.streams.insert(node, (stream, 0));
    }

    fn context<T>(&mut self, work: impl FnOnce(&mut Ledger, &Context<'_>) -> T) -> T {
        let (moved, removed, expected) = (&self.moved, &self.removed, self.expected);
        let placed = |node: &str, uid: &str| {
            let own = node.strip_prefix("edge-") == uid.strip_prefix("w-");
            (own && !moved.contains(&uid) && !removed.contains(&uid)).then_some(expected)
        };
        let context = Context {
            revision: 1,
            placed: &placed,
            known: &|uid| !removed.contains(&uid),
            declared: &|node| node.starts_with("edge-"),
            now: self.now,
            wall_clock_ms: 0,
        };
        work(&mut self.ledger, &context)
    }

    fn send(&mut self, number: usize, report: NodeReport) -> Heard {
        let node: Arc<str> = Arc::from(format!("edge-{number}"));
        let (stream, seq) = self.streams.get_mut(&node).unwrap();
        *seq += 1;
        let (stream, seq) = (*stream, *seq);
        let report = NodeReport { seq, ..report };
        let heard = self.context(|ledger, context| ledger.report(&node, stream, report, context));
        let heard = heard.unwrap();
        self.keep(&heard.news);
        heard
    }

    fn keep(&mut self, news: &[News]) {
        for news in news {
            self.kept.insert(news.uid.clone(), news.memory.clone());
        }
    }

    fn full(&mut self, number: usize, probe: Probe, draining: bool) -> Vec<News> {
        let report = NodeReport {
            full: true,
            workloads: vec![about(number, probe)],
            draining,
            ..NodeReport::default()
        };
        let heard = self.send(number, report);
        assert!(!heard.need_full);
        heard.news
    }

    fn say(&mut self, number: usize, probe: Probe) {
        let report = NodeReport {
            workloads: vec![about(number, probe)],
            ..NodeReport::default()
        };
        assert!(!self.send(number, report).need_full);
    }

    /// Lets time go by in which `speaking` nodes report every 5 s, looking at the clock when due.
    fn wait(&mut self, seconds: u64, speaking: &[usize]) {
        let end = self.now + Duration::from_secs(seconds);
        let mut word = self.now + LEASE / 3;
        while self.now < end {
            let due = self.due;
            self.now = due.min(word).min(end);
            if self.now == word {
                for number in speaking {
                    self.send(*number, NodeReport::default());
                }
                word += LEASE / 3;
            }
            if self.now == due {
                self.look();
            }
        }
    }

    fn look(&mut self) -> Passed {
        let passed = self.context(Ledger::pass);
        self.keep(&passed.news);
        self.due = self.ledger.due(self.now);
        assert!(
            self.due > self.now && self.due <= self.now + LEASE,
            "it is looked at in time"
        );
        passed
    }

    fn observed(&self, number: usize) -> Observed {
        self.ledger.reported().of(&format!("w-{number}"))
    }

    fn healthy(&self, number: usize) -> bool {
        self.observed(number).health == Health::Healthy
    }

    fn reachable(&self, number: usize) -> bool {
        self.ledger.snapshot(self.now)[number - 1].reachable
    }
}

fn about(number: usize, probe: Probe) -> WorkloadReport {
    WorkloadReport {
        uid: format!("w-{number}"),
        probe: probe.into(),
        capture: Capture::Captured.into(),
        ..WorkloadReport::default()
    }
}

#[test]
fn healthy_while_it_passes() {
    use Probe::{Failing, NoProbe, Passing, Unknown};
    for (name, said, want) in [
        ("passing", vec![Passing], true),
        ("not probed", vec![NoProbe], true),
        ("failing", vec![Failing], false),
        ("not known from the start", vec![Unknown], true),
        (
            "not known any more: as before",
            vec![Failing, Unknown],
            false,
        ),
        ("passing again", vec![Failing, Passing], true),
        ("no probe any more", vec![Failing, NoProbe], true),
    ] {
        let mut fleet = Fleet::of(1);
        for probe in said {
            fleet.say(1, probe);
        }
        assert_eq!(fleet.healthy(1), want, "{name}");
        assert!(fleet.observed(1).captured, "{name}");
        assert_eq!(fleet.kept["w-1"].health, fleet.observed(1).health, "{name}");
    }
}

#[test]
fn a_node_that_dies_takes_its_workloads_out_but_not_away() {
    let mut fleet = Fleet::of(3);
    fleet.wait(15, &[2, 3]);
    assert!(fleet.reachable(1), "its lease just holds");
    fleet.wait(1, &[2, 3]);
    assert!(!fleet.reachable(1) && fleet.healthy(1));
    fleet.wait(13, &[2, 3]);
    assert!(fleet.healthy(1), "not before 30 s");
    fleet.wait(1, &[2, 3]);
    assert!(!fleet.healthy(1) && fleet.observed(1).captured);
    assert!(fleet.healthy(2) && fleet.healthy(3));
    // Not with the first word, but with the first that says everything.
    let late = fleet.send(1, NodeReport::default());
    assert!(late.need_full && !fleet.healthy(1));
    fleet.full(1, Probe::Unknown, false);
    assert!(fleet.healthy(1) && fleet.reachable(1));
}

#[test]
fn a_node_that_comes_back_with_a_failing_workload() {
    let mut fleet = Fleet::of(3);
    fleet.wait(31, &[2, 3]);
    fleet.open(1);
    fleet.full(1, Probe::Failing, false);
    assert!(!fleet.healthy(1));
    fleet.say(1, Probe::Passing);
    assert!(fleet.healthy(1));
}

#[test]
fn a_node_that_drains_takes_its_workloads_out_at_once() {
    let mut fleet = Fleet::of(3);
    for _restart in 0..5 {
        let going = NodeReport {
            draining: true,
            ..NodeReport::default()
        };
        fleet.send(1, going);
        assert!(!fleet.healthy(1) && fleet.healthy(2));
        assert!(fleet.ledger.snapshot(fleet.now)[0].draining);
        fleet.open(1);
        assert!(!fleet.healthy(1), "a stream says nothing yet");
        fleet.full(1, Probe::Unknown, false);
        assert!(fleet.healthy(1));
    }
    assert!(!fleet.observed(1).held, "a planned restart is no flapping");
}

#[test]
fn most_nodes_do_not_die_at_once() {
    for (name, nodes, speaking, healthy) in [
        ("one of five", 5, vec![1, 2, 3, 4], 4),
        ("80 % of five", 5, vec![1], 5),
        ("three of five", 5, vec![1, 2], 5),
        ("half of six", 6, vec![1, 2, 3], 3),
        ("all", 4, vec![], 4),
        ("both of two: no mass", 2, vec![], 0),
    ] {
        let mut fleet = Fleet::of(nodes);
        fleet.wait(1000, &speaking);
        let left = (1..=nodes).filter(|n| fleet.healthy(*n)).count();
        assert_eq!(left, healthy, "{name}");
        // Back from wherever they were, they are as they say.
        for number in 1..=nodes {
            fleet.open(number);
            fleet.full(number, Probe::Passing, false);
        }
        fleet.wait(100, &(1..=nodes).collect::<Vec<_>>());
        assert!((1..=nodes).all(|n| fleet.healthy(n)), "{name}");
    }
}

#[test]
fn those_who_speak_are_heard_while_most_are_silent() {
    let mut fleet = Fleet::of(5);
    fleet.wait(40, &[1]);
    fleet.say(1, Probe::Failing);
    assert!(!fleet.healthy(1) && fleet.healthy(2));
}

#[test]
fn a_restart_of_the_control_plane_changes_nothing() {
    let mut fleet = Fleet::of(4);
    fleet.say(2, Probe::Failing);
    fleet.wait(31, &[1, 2, 3]);
    let before: Vec<_> = (1..=4).map(|n| fleet.observed(n)).collect();
    assert!(!fleet.healthy(2) && !fleet.healthy(4));
    fleet.restarted();
    let after: Vec<_> = (1..=4).map(|n| fleet.observed(n)).collect();
    assert_eq!(before, after);
    assert!(
        fleet.ledger.snapshot(fleet.now).is_empty(),
        "nobody was heard yet"
    );
    for number in 1..=3 {
        fleet.open(number);
        assert!(fleet.full(number, Probe::Unknown, false).is_empty());
    }
    fleet.wait(60, &[1, 2, 3]);
    let later: Vec<_> = (1..=4).map(|n| fleet.observed(n)).collect();
    assert_eq!(before, later);
}

#[test]
fn a_node_that_died_while_nobody_listened() {
    let mut fleet = Fleet::of(4);
    fleet.restarted();
    for number in 1..=3 {
        fleet.open(number);
        fleet.full(number, Probe::Passing, false);
    }
    fleet.wait(29, &[1, 2, 3]);
    assert!(fleet.healthy(4), "it has two leases to say something");
    fleet.wait(2, &[1, 2, 3]);
    assert!(!fleet.healthy(4));
}

#[test]
fn one_that_flaps_is_held_back_until_it_is_calm() {
    let mut fleet = Fleet::of(3);
    let mut held_at = None;
    for fall in 1..=5 {
        fleet.say(1, Probe::Failing);
        fleet.wait(3, &[1, 2, 3]);
        fleet.say(1, Probe::Passing);
        fleet.wait(3, &[1, 2, 3]);
        if fleet.observed(1).held && held_at.is_none() {
            held_at = Some(fall);
        }
    }
    assert_eq!(held_at, Some(4), "three are free");
    assert!(
        fleet.healthy(1),
        "it passes; the mesh decides what being held means"
    );
    fleet.wait(60, &[1, 2, 3]);
    assert!(fleet.observed(1).held);
    fleet.wait(240, &[1, 2, 3]);
    assert!(!fleet.observed(1).held, "after five minutes at the latest");
}

#[test]
fn what_has_moved_away_does_not_die_with_its_old_node() {
    let mut fleet = Fleet::of(3);
    fleet.moved.push("w-1");
    fleet.wait(40, &[2, 3]);
    assert!(fleet.healthy(1));
}

#[test]
fn a_stall_of_the_control_plane_is_as_a_restart() {
    let mut fleet = Fleet::of(4);
    fleet.now += Duration::from_secs(90);
    let passed = fleet.look();
    assert_eq!((passed.given_up, passed.mass_loss), (vec![], None));
    assert!((1..=4).all(|n| fleet.healthy(n)));
    fleet.wait(29, &[2, 3, 4]);
    assert!(fleet.healthy(1), "it has two leases to say something");
    fleet.wait(2, &[2, 3, 4]);
    assert!(!fleet.healthy(1) && fleet.healthy(2));
}

#[test]
fn those_long_dead_are_no_mass_loss_after_a_restart() {
    let mut fleet = Fleet::of(6);
    for alive in [&[1, 2, 3, 4, 5][..], &[1, 2, 3, 4], &[1, 2, 3], &[1, 2]] {
        fleet.wait(100, alive);
    }
    fleet.restarted();
    for number in 1..=2 {
        fleet.open(number);
        fleet.full(number, Probe::Passing, false);
    }
    fleet.wait(100, &[1, 2]);
    assert!(!fleet.ledger.mass_loss());
    fleet.wait(31, &[1]);
    let left: Vec<_> = (1..=6).filter(|n| fleet.healthy(*n)).collect();
    assert_eq!(left, [1], "a death is noticed");
}

#[test]
fn a_node_is_back_for_a_workload_once_it_serves_it() {
    use Capture::{Captured, Failed, Unknown};
    for (name, capture, said, want) in [
        ("named as captured", true, Some(Captured), true),
        ("not named yet", true, None, false),
        ("not captured yet", true, Some(Unknown), false),
        ("cannot be captured", true, Some(Failed), false),
        ("not to be captured", false, Some(Unknown), true),
        ("not named, nor to be captured", false, None, false),
    ] {
        let mut fleet = Fleet::of(3);
        fleet.expected.capture = capture;
        let going = NodeReport {
            draining: true,
            ..NodeReport::default()
        };
        fleet.send(1, going);
        fleet.open(1);
        let state = said.map(|capture| WorkloadReport {
            capture: capture.into(),
            ..about(1, Probe::Passing)
        });
        let back = NodeReport {
            full: true,
            workloads: state.into_iter().collect(),
            ..NodeReport::default()
        };
        fleet.send(1, back);
        assert_eq!(fleet.healthy(1), want, "{name}");
        fleet.say(1, Probe::Unknown);
        assert!(fleet.healthy(1), "{name}: captured at last");
        assert!(!fleet.observed(1).held, "{name}");
    }
}

#[test]
fn a_new_workload_has_to_pass_first() {
    use Probe::{Failing, NoProbe, Passing, Unknown};
    for (name, probe, said, want) in [
        ("not known yet", true, vec![Unknown], false),
        ("passing", true, vec![Passing], true),
        ("passing at last", true, vec![Unknown, Passing], true),
        ("failing", true, vec![Failing], false),
        ("without a check", false, vec![Unknown], true),
        ("without a check, there", false, vec![NoProbe], true),
        ("restarted", true, vec![Passing, Unknown], true),
    ] {
        let mut fleet = Fleet::of(0);
        fleet.expected.probe = probe;
        for probe in said {
            fleet.open(1);
            fleet.full(1, probe, false);
        }
        assert_eq!(fleet.healthy(1), want, "{name}");
        let kept = fleet.kept["w-1"].health;
        assert_eq!(kept, fleet.observed(1).health, "{name}");
    }
}

#[test]
fn a_revoked_node_is_out_until_it_reports_again() {
    let mut fleet = Fleet::of(3);
    let news = fleet.context(|ledger, context| ledger.revoked("edge-1", context));
    assert_eq!(news.len(), 1);
    assert!(!fleet.healthy(1) && fleet.healthy(2) && fleet.observed(1).captured);
    let node: Arc<str> = Arc::from("edge-1");
    let (stream, _) = fleet.streams[&node];
    let late = fleet
        .context(|ledger, context| ledger.report(&node, stream, NodeReport::default(), context));
    assert_eq!(late, None, "its stream is heard no more");
    fleet.open(1);
    fleet.full(1, Probe::Passing, false);
    assert!(fleet.healthy(1));
    let nobody = fleet.context(|ledger, context| ledger.revoked("edge-9", context));
    assert_eq!(nobody, []);
}

#[test]
fn what_is_long_declared_nowhere_is_forgotten() {
    let mut fleet = Fleet::of(2);
    let forgotten = |fleet: &mut Fleet| fleet.look().forgotten;
    fleet.removed = vec!["w-1"];
    assert_eq!(forgotten(&mut fleet), []);
    fleet.wait(3500, &[1, 2]);
    fleet.removed.clear();
    assert_eq!(forgotten(&mut fleet), [], "it is back");
    fleet.removed = vec!["w-1"];
    forgotten(&mut fleet);
    fleet.wait(3599, &[1, 2]);
    assert!(fleet.observed(1).captured);
    fleet.now += Duration::from_secs(1);
    assert_eq!(forgotten(&mut fleet), [Arc::from("w-1")]);
    assert!(!fleet.observed(1).captured && fleet.observed(2).captured);
    assert_eq!(fleet.ledger.subjects.len(), 1);
}
