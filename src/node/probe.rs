//! Probes the workloads of this host and tells how they are (`spec/control-plane.md` §7.1).
//!
//! Each workload placed here has a task of its own that asks ([`ask`]) and counts ([`tally`]). One
//! without a `health` table is not asked anything, but has to exist: a namespace that is gone, or a unit
//! that does not run, takes its workload out of service.

mod ask;
mod exec;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::agent::report::{LocalStates, ProbeState, Verdict};
use crate::agent::{MeshState, Placement};
use crate::capture::Sockets;
use crate::model::declaration::{Capture, HealthCheck};
use ask::{Asker, Failure, Presence, Question, Side};
use tally::{Rules, Tally};

/// Commands of `exec` probes that run at once.
const COMMANDS: usize = 4;

/// How a workload that is not probed is looked for.
const EXISTENCE: Rules = Rules {
    interval: Duration::from_secs(2),
    rise: 1,
    fall: 2,
    start_timeout: Duration::from_secs(60),
};

/// The probes of a host, as a component.
pub(super) struct Probes {
    mesh: watch::Receiver<Arc<MeshState>>,
    states: watch::Sender<LocalStates>,
    sockets: Sockets,
    /// Of whom nothing runs on this host's own network.
    absent: watch::Receiver<BTreeSet<Arc<str>>>,
    commands: Arc<Semaphore>,
    running: BTreeMap<Arc<str>, Running>,
    tasks: JoinSet<()>,
}

struct Running {
    subject: Subject,
    stop: CancellationToken,
    task: Option<Id>,
}

/// All that probing a workload depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    capture: Option<Capture>,
    check: Option<HealthCheck>,
    /// Where it answers.
    address: Option<IpAddr>,
}

impl Probes {
    pub(super) fn new(
        mesh: watch::Receiver<Arc<MeshState>>,
        states: watch::Sender<LocalStates>,
        sockets: Sockets,
        absent: watch::Receiver<BTreeSet<Arc<str>>>,
    ) -> Self {
        Self {
            mesh,
            states,
            sockets,
            absent,
            commands: Arc::new(Semaphore::new(COMMANDS)),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Probes exactly the workloads placed here until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let state = Arc::clone(&self.mesh.borrow_and_update());
            self.follow(&state);
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = self.mesh.changed() => if changed.is_err() { break },
                Some(done) = self.tasks.join_next_with_id() => self.ended(done),
            }
        }
        for running in self.running.values() {
            running.stop.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Starts and stops probes so that they match `state`.
    fn follow(&mut self, state: &MeshState) {
        let subject = |placement: &Arc<Placement>| {
            let workload = state.view.workload(&placement.uid);
            let subject = Subject {
                capture: placement.capture.clone(),
                check: placement.health.clone(),
                address: workload.and_then(|w| w.addresses.first().copied()),
            };
            (Arc::clone(&placement.uid), subject)
        };
        let placed = state.placements.iter().map(subject);
        let mut wanted: BTreeMap<Arc<str>, Subject> = placed.collect();
        let states = &self.states;
        self.running.retain(|uid, running| {
            let gone = !wanted.contains_key(uid);
            let kept = wanted.get(uid) == Some(&running.subject);
            if !kept {
                running.stop.cancel();
            }
            if gone {
                states.send_if_modified(|states| states.probed(uid, None));
            }
            kept
        });
        wanted.retain(|uid, _| !self.running.contains_key(uid));
        for (uid, subject) in wanted {
            self.start(uid, subject);
        }
    }

    fn start(&mut self, uid: Arc<str>, subject: Subject) {
        let stop = CancellationToken::new();
        let probing = Probing {
            uid: Arc::clone(&uid),
            states: self.states.clone(),
            stop: stop.clone(),
            none: subject.check.is_none(),
            told: None,
        };
        let task = match self.asker(&uid, &subject) {
            Some((asker, rules)) => Some(self.tasks.spawn(probing.run(asker, rules)).id()),
            None => {
                probing.publish(ProbeState {
                    verdict: Verdict::NoProbe,
                    since: SystemTime::now(),
                    code: "",
                    detail: String::new(),
                    transitions: 0,
                });
                None
            }
        };
        let running = Running {
            subject,
            stop,
            task,
        };
        self.running.insert(uid, running);
    }

    /// What to ask of a workload; none when there is nothing to be asked.
    fn asker(&self, uid: &Arc<str>, subject: &Subject) -> Option<(Asker, Rules)> {
        let capture = subject.capture.as_ref();
        let (netns, presence) = match capture {
            Some(Capture::Netns(name)) => (Some(Arc::clone(name)), None),
            // On the host's network, or behind an interface of it.
            Some(_) => (None, Some(self.presence(uid))),
            None => (None, None),
        };
        let (question, timeout, rules) = match &subject.check {
            None if capture.is_none() => return None,
            None => (Question::Existence, EXISTENCE.interval, EXISTENCE),
            Some(check) => {
                let rules = Rules {
                    interval: check.interval,
                    rise: check.rise,
                    fall: check.fall,
                    start_timeout: check.start_timeout,
                };
                let question = Question::Probe(check.probe.clone());
                (question, check.timeout, rules)
            }
        };
        let asker = Asker {
            netns,
            presence,
            address: subject.address,
            question,
            timeout,
            sockets: self.sockets.clone(),
            commands: Arc::clone(&self.commands),
        };
        Some((asker, rules))
    }

    fn presence(&self, uid: &Arc<str>) -> Presence {
        Presence {
            uid: Arc::clone(uid),
            absent: self.absent.clone(),
        }
    }

    /// Forgets a task that died, so that it is started again. One that was stopped is forgotten
    /// already.
    fn ended(&mut self, done: Result<(Id, ()), tokio::task::JoinError>) {
        let Err(error) = done else {
            return;
        };
        warn!(error = %error, "a workload's probe died, starting it again");
        let died = Some(error.id());
        self.running.retain(|_, running| running.task != died);
    }
}

/// One workload's probe.
struct Probing {
    uid: Arc<str>,
    states: watch::Sender<LocalStates>,
    stop: CancellationToken,
    /// It only has to exist.
    none: bool,
    told: Option<ProbeState>,
}

impl Probing {
    async fn run(mut self, asker: Asker, rules: Rules) {
        let stop = self.stop.clone();
        let mut tally = Tally::new(rules, Instant::now());
        loop {
            let begun = Instant::now();
            let result = tokio::select! {
                () = stop.cancelled() => return,
                result = asker.ask() => result,
            };
            let ended = Instant::now();
            self.heard(&mut tally, result, ended);
            let next = tally.next(begun, ended);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    /// Takes a result in. What the node could not ask does not count.
    fn heard(&mut self, tally: &mut Tally, result: Result<(), Failure>, now: Instant) {
        let turned = match result.as_ref().map_err(|failure| failure.side) {
            Ok(()) => tally.hear(true, now),
            Err(Side::Workload) => tally.hear(false, now),
            Err(Side::Node) => false,
        };
        self.tell(tally, result.err(), turned);
    }

    /// Tells a verdict when it changes, and while a workload does not pass, why, when that changes.
    fn tell(&mut self, tally: &Tally, failure: Option<Failure>, turned: bool) {
        let verdict = match tally.verdict() {
            Verdict::Passing if self.none => Verdict::NoProbe,
            verdict => verdict,
        };
        let told = self.told.as_ref();
        let since = match told {
            Some(told) if told.verdict == verdict => told.since,
            _ => SystemTime::now(),
        };
        let last = || told.map_or(("", String::new()), |t| (t.code, t.detail.clone()));
        let (code, detail) = match (verdict, failure) {
            // It keeps the verdict, whichever that is, so the reason is all there is to see.
            (_, Some(failure)) if failure.side == Side::Node && failure.code != last().0 => {
                (failure.code, failure.detail)
            }
            // What was last wrong stays known while a workload passes.
            (Verdict::Passing | Verdict::NoProbe, _) | (_, None) => last(),
            (_, Some(failure)) if failure.code == last().0 && !turned => last(),
            (_, Some(failure)) => (failure.code, failure.detail),
        };
        let state = ProbeState {
            verdict,
            since,
            code,
            detail,
            transitions: tally.transitions(),
        };
        if turned {
            self.log(&state);
        }
        if self.told.as_ref() != Some(&state) {
            self.publish(state.clone());
            self.told = Some(state);
        }
    }

    fn publish(&self, state: ProbeState) {
        self.states.send_if_modified(|states| {
            // Asked here, where nobody can have begun to speak for the workload meanwhile.
            !self.stop.is_cancelled() && states.probed(&self.uid, Some(state))
        });
    }

    fn log(&self, state: &ProbeState) {
        match state.verdict {
            Verdict::Failing => {
                warn!(workload = %self.uid, code = state.code, detail = state.detail,
                transitions = state.transitions, "workload fails its probe")
            }
            _ => {
                info!(workload = %self.uid, transitions = state.transitions, "workload passes its probe")
            }
        }
    }
}

#[cfg(test)]
mod tests;
