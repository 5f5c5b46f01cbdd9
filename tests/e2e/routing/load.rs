//! Changes under load: row 77.

use std::time::{Duration, Instant};

use super::written::{named, route};
use super::{Bench, ECHO};
use crate::programs::client::{Load, Many, Order, Tally};

/// Between changes.
const PACE: Duration = Duration::from_millis(200);

/// What the rules are in turn: other backends, other weights, other matches, none.
fn rules(turn: usize) -> String {
    match turn % 6 {
        0 => route(&["-> v1:50 v2:50"]),
        1 => route(&["-> v1:90 v2:10"]),
        2 => route(&["P/never -> v2", "-> v2:1 v3:1"]),
        3 => String::new(),
        4 => named("http-route", "another", "parent-refs = [{ name = \"echo\", port = 80 }]", &["GET -> v3 ; retry = { attempts = 1 }"]),
        _ => "[[destination-rule]]\nname = \"d\"\nnamespace = \"shop\"\nhost = \"echo\"\ntraffic-policy = { load-balancer = { simple = \"ROUND_ROBIN\" } }\n".to_owned(),
    }
}

/// The instances in turn: one takes over from the other while both serve.
const INSTANCES: [&[&str]; 4] = [
    &["gate-1", "gate-2"],
    &["gate-1"],
    &["gate-1", "gate-2"],
    &["gate-2"],
];

/// The instances in turn: one in the place of the other.
const INSTEAD: [&[&str]; 2] = [&["gate-1"], &["gate-2"]];

/// Turns for which the instances stay, once they are those.
const STAY: usize = 6;

/// How one set of instances comes in the place of another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Swap {
    /// As an operator does it: none is taken away before its successor serves and clients know of it.
    Careful,
    /// One goes as the other comes, whoever knows of it: for a moment nobody serves.
    Blind,
}

impl Swap {
    fn instances(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Careful => &INSTANCES,
            Self::Blind => &INSTEAD,
        }
    }
}

/// Which instances there are, and since when.
struct Instances {
    swap: Swap,
    now: &'static [&'static str],
    /// When they were written, in milliseconds since 1970; and turns since they have been in force.
    written: Option<u64>,
    stayed: usize,
    changes: usize,
}

impl Instances {
    fn gateway(&self) -> String {
        format!("nodes = {:?}", self.now)
    }

    fn of(swap: Swap, changes: usize) -> Self {
        let turns = swap.instances();
        Self {
            swap,
            now: turns[changes % turns.len()],
            written: None,
            stayed: 0,
            changes,
        }
    }

    /// Goes on to the next ones after a while.
    fn turn(&mut self, bench: &Bench) {
        let written = *self
            .written
            .get_or_insert_with(|| bench.turn.last_written());
        let blind = self.swap == Swap::Blind;
        if blind || self.stayed > 0 || in_force(bench, self.now, written) {
            self.stayed += 1;
        }
        if self.stayed > STAY {
            *self = Self::of(self.swap, self.changes + 1);
        }
    }
}

/// Whether these instances serve, and the client's node knows what was written by then.
fn in_force(bench: &Bench, instances: &[&str], written: u64) -> bool {
    let status = |host: &str| bench.turn.status(host);
    let control = status("control").and_then(|s| s.control);
    let read = control.filter(|control| control.read > Some(written));
    let Some(revision) = read.and_then(|control| control.revision) else {
        return false;
    };
    let known = status("client").and_then(|s| s.node?.revision);
    let serves = |gate: &&str| {
        let known = status(gate).filter(|s| {
            let node = s.node.as_ref();
            node.is_some_and(|node| node.revision >= Some(revision))
        });
        known.is_some_and(|s| s.waypoints.iter().any(|w| !w.listens.is_empty()))
    };
    known >= Some(revision) && instances.iter().all(serves)
}

/// Changes everything again and again under load; how requests ended, and how often there was a change.
fn changed_under_load(bench: &Bench, swap: Swap, seconds: u64, per_second: u64) -> (Tally, usize) {
    let request = Many {
        to: ECHO.to_owned(),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        headers: Vec::new(),
        body: String::new(),
        count: 0,
        connections: 16,
    };
    let load = Order::Load(Load {
        request,
        per_second,
        seconds,
    });
    let mut client = bench.client.lock().unwrap();
    client.say(&serde_json::to_string(&load).unwrap());
    let begun = Instant::now();
    let mut turn = 0;
    let mut instances = Instances::of(swap, 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let text = super::written::mesh(&rules(turn), &instances.gateway(), turn);
        bench.turn.write_mesh_file("mesh.toml", &text);
        instances.turn(bench);
        turn += 1;
        let due = PACE * u32::try_from(turn).unwrap();
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    let changes = instances.changes;
    assert!(
        changes >= 3,
        "both were alone for a while: {changes} changes"
    );
    let tally = serde_json::from_str(&client.line()).unwrap();
    (tally, turn)
}

fn fails_nobody(swap: Swap, seconds: u64) {
    const PER_SECOND: u64 = 500;
    let bench = Bench::new();
    let revision = || {
        bench
            .turn
            .status("control")
            .unwrap()
            .control
            .unwrap()
            .revision
            .unwrap()
    };
    let before = revision();
    let gates = ["gate-1", "gate-2"].map(|gate| (gate, bench.logged_by(gate)));
    let (tally, turns) = changed_under_load(&bench, swap, seconds, PER_SECOND);
    let revisions = revision() - before;
    let well: usize = tally
        .iter()
        .filter(|(o, _)| o.starts_with("200 "))
        .map(|(_, n)| n)
        .sum();
    let failed: Vec<_> = tally
        .iter()
        .filter(|(o, _)| !o.starts_with("200 "))
        .collect();
    assert!(failed.is_empty(), "of {well} and these: {failed:?}");
    let asked = usize::try_from(PER_SECOND * seconds).unwrap();
    // A busy machine asks more slowly than it was told to, never so much more.
    assert!(well > asked / 5, "{well} of {asked} were asked: {tally:?}");
    for server in ["v1", "v2", "v3", "echo-1", "echo-2"] {
        assert!(tally.contains_key(&format!("200 {server}")), "{tally:?}");
    }
    // What is written while the directory is read comes with the next revision.
    let least = u64::try_from(turns / 4).unwrap();
    assert!(
        revisions > least,
        "{revisions} revisions of {turns} changes"
    );
    for (gate, before) in gates {
        let requests = bench.logs_since(gate, before, "request complete", 101);
        assert!(requests > 100, "{gate} has had {requests} requests");
    }
}

#[test]
fn changes_of_routes_weights_and_instances_fail_no_request() {
    fails_nobody(Swap::Careful, 20);
}

#[test]
fn instances_in_the_place_of_others_fail_no_request() {
    fails_nobody(Swap::Blind, 20);
}

#[test]
#[ignore = "takes ten minutes"]
fn ten_minutes_of_changes_fail_no_request() {
    fails_nobody(Swap::Careful, 600);
}

#[test]
#[ignore = "takes ten minutes"]
fn ten_minutes_of_instances_in_the_place_of_others_fail_no_request() {
    fails_nobody(Swap::Blind, 600);
}
