use std::fs;
use std::path::Path;

use super::*;
use crate::capture::Exemption;

fn uid() -> Arc<str> {
    Arc::from("Kubernetes/lateen/Workload/shop/cart-1")
}

/// A mesh that places one workload here, which passes while `file` is there.
fn mesh(file: &Path, start_timeout: Duration) -> Arc<MeshState> {
    let command = ["test", "-e", file.to_str().unwrap()];
    let check = HealthCheck {
        probe: crate::model::declaration::Probe::Exec {
            command: command.map(Arc::from).to_vec(),
        },
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(10),
        rise: 2,
        fall: 2,
        start_timeout,
    };
    placing(Some(check))
}

fn placing(health: Option<HealthCheck>) -> Arc<MeshState> {
    let placement = Placement {
        uid: uid(),
        name: "cart-1".into(),
        namespace: "shop".into(),
        service_account: "cart".into(),
        enrolled: false,
        capture: None,
        health,
        dns_capture: None,
    };
    Arc::new(MeshState {
        placements: vec![Arc::new(placement)],
        ..MeshState::default()
    })
}

/// Probes at work, and what they tell.
struct Working {
    mesh: watch::Sender<Arc<MeshState>>,
    states: watch::Receiver<LocalStates>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Working {
    fn start(mesh: Arc<MeshState>) -> Self {
        let (mesh, seen) = watch::channel(mesh);
        let (told, states) = watch::channel(LocalStates::default());
        let shutdown = CancellationToken::new();
        let (_here, absent) = watch::channel(Default::default());
        let probes = Probes::new(seen, told, Sockets::own(Exemption::Mark), absent);
        let mut tasks = JoinSet::new();
        tasks.spawn(probes.run(shutdown.clone()));
        Self {
            mesh,
            states,
            shutdown,
            tasks,
        }
    }

    /// The workload's state once it is as wanted.
    async fn until(&mut self, wanted: impl Fn(Option<&ProbeState>) -> bool) -> Option<ProbeState> {
        let probe =
            |states: &LocalStates| states.workloads.get(&uid()).and_then(|w| w.probe.clone());
        let waiting = self
            .states
            .wait_for(|states| wanted(probe(states).as_ref()));
        let states = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        probe(&states.expect("in time").unwrap())
    }

    async fn verdict(&mut self, verdict: Verdict) -> ProbeState {
        let state = self.until(|p| p.is_some_and(|p| p.verdict == verdict));
        state.await.unwrap()
    }
}

#[tokio::test]
async fn tells_how_a_workload_goes_down_and_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("alive");
    fs::write(&file, "").unwrap();
    let mut working = Working::start(mesh(&file, Duration::ZERO));
    let passing = working.verdict(Verdict::Passing).await;
    assert_eq!((passing.code, passing.transitions), ("", 0));
    fs::remove_file(&file).unwrap();
    let failing = working.verdict(Verdict::Failing).await;
    assert_eq!((failing.code, failing.transitions), ("exit-status", 1));
    assert!(failing.since >= passing.since);
    fs::write(&file, "").unwrap();
    let again = working.verdict(Verdict::Passing).await;
    assert_eq!(again.transitions, 2);
    assert_eq!(again.code, "exit-status", "the last reason stays known");
    working.shutdown.cancel();
    working.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_workload_that_starts_is_given_time_and_its_reason_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("alive");
    let mut working = Working::start(mesh(&file, Duration::from_secs(3600)));
    let starting = working
        .until(|p| p.is_some_and(|p| !p.code.is_empty()))
        .await;
    assert_eq!(starting.unwrap().verdict, Verdict::Unknown);
    fs::write(&file, "").unwrap();
    working.verdict(Verdict::Passing).await;
}

#[tokio::test]
async fn follows_the_mesh() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("alive");
    let mut working = Working::start(placing(None));
    working.verdict(Verdict::NoProbe).await;
    working.mesh.send_replace(mesh(&file, Duration::ZERO));
    working.verdict(Verdict::Failing).await;
    working.mesh.send_replace(Arc::default());
    assert_eq!(working.until(|p| p.is_none()).await, None);
    assert!(working.states.borrow().workloads.is_empty());
}

#[tokio::test]
async fn a_node_that_cannot_ask_keeps_the_verdict() {
    let (told, states) = watch::channel(LocalStates::default());
    let mut probing = Probing {
        uid: uid(),
        states: told,
        stop: CancellationToken::new(),
        none: false,
        told: None,
    };
    let rules = Rules {
        rise: 1,
        fall: 1,
        ..EXISTENCE
    };
    let mut tally = Tally::new(rules, Instant::now());
    let unable = || Failure::of_node("connect-failed", "too many open files");
    let late = Instant::now() + EXISTENCE.start_timeout;
    let known = |states: &watch::Receiver<LocalStates>| {
        let probe = states.borrow().workloads[&uid()].probe.clone().unwrap();
        (probe.verdict, probe.code)
    };
    for (name, result, want) in [
        (
            "before the first",
            Err(unable()),
            (Verdict::Unknown, "connect-failed"),
        ),
        ("passing", Ok(()), (Verdict::Passing, "connect-failed")),
        (
            "failing",
            Err(Failure::new("refused", "")),
            (Verdict::Failing, "refused"),
        ),
        (
            "unable",
            Err(unable()),
            (Verdict::Failing, "connect-failed"),
        ),
        (
            "passing again",
            Ok(()),
            (Verdict::Passing, "connect-failed"),
        ),
        (
            "unable again",
            Err(unable()),
            (Verdict::Passing, "connect-failed"),
        ),
    ] {
        probing.heard(&mut tally, result, late);
        assert_eq!(known(&states), want, "{name}");
    }
}
