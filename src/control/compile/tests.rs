use super::*;
use crate::control::store::{Memory, Tree};
use crate::model::compile::sample;
use crate::model::compile::workload_uid;
use crate::model::workload::TunnelProtocol;
use crate::wire::convert::Address;
use crate::wire::proto::discovery::Resource;
use prost::Message;
use std::collections::BTreeMap;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::control::revision::Kind;

/// A publisher at work, and the ends others would hold.
struct Running {
    inputs: watch::Sender<Option<Arc<Input>>>,
    reported: watch::Sender<Arc<Reported>>,
    revisions: watch::Receiver<Option<Arc<Revision>>>,
    status: watch::Receiver<CompileStatus>,
    captured: Reported,
    tasks: JoinSet<()>,
}

impl Running {
    fn start(dir: &TempDir, store: &Arc<dyn Store>) -> Self {
        let (publisher, published) = Publisher::open(
            &dir.path().join("revision"),
            [1; 16],
            store.clone(),
            ControlMetrics::default(),
        )
        .unwrap();
        let inputs = watch::Sender::new(None);
        let reported = watch::Sender::new(Arc::new(Reported::default()));
        let mut tasks = JoinSet::new();
        let shutdown = CancellationToken::new();
        let trust = watch::channel(Bytes::new()).1;
        tasks.spawn(publisher.run(inputs.subscribe(), reported.subscribe(), trust, shutdown));
        Self {
            inputs,
            reported,
            revisions: published.revisions,
            status: published.status,
            captured: published.captured,
            tasks,
        }
    }

    fn load(&self, mesh: Mesh, text: &str) {
        let input = Input {
            mesh,
            source: "test".to_owned(),
            files: vec![("mesh.toml".to_owned(), text.into())],
            parsed: text.len(),
            warnings: 0,
        };
        self.inputs.send_replace(Some(Arc::new(input)));
    }

    async fn next(&mut self) -> Arc<Revision> {
        self.revisions.changed().await.unwrap();
        self.revisions.borrow_and_update().clone().unwrap()
    }

    async fn stop(mut self) {
        drop(self.inputs);
        self.tasks.join_next().await.unwrap().unwrap();
    }
}

fn memory() -> Arc<dyn Store> {
    Arc::new(Memory::default())
}

fn tunnel(revision: &Revision, uid: &str) -> TunnelProtocol {
    let resource = &revision.resources(Kind::Address, "edge-1")[uid];
    let resource = Resource::decode(resource.encoded.clone()).unwrap();
    let body = resource.resource.unwrap().value;
    match Address::decode(uid, &body).unwrap() {
        Address::Workload(workload) => workload.tunnel,
        Address::Service(_) => panic!("a workload"),
    }
}

fn captured(uid: &Arc<str>) -> Arc<Reported> {
    let observed = Observed {
        captured: true,
        ..Observed::default()
    };
    Arc::new([(uid.clone(), observed)].into_iter().collect())
}

#[tokio::test]
async fn publishes_what_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(&dir, &memory());
    running.load(sample::mesh(), "1");
    let first = running.next().await;
    let uid = workload_uid("Kubernetes", "shop", "cart-1");
    assert_eq!(tunnel(&first, &uid), TunnelProtocol::None);
    running.reported.send_replace(captured(&uid));
    let second = running.next().await;
    assert_eq!(second.number(), first.number() + 1);
    assert_eq!(tunnel(&second, &uid), TunnelProtocol::Hbone);
    let steps: Vec<_> = second.changes_since(first.number()).unwrap().collect();
    assert_eq!(steps[0].addresses.iter().collect::<Vec<_>>(), [&uid]);
    running.stop().await;
}

#[tokio::test]
async fn keeps_the_revision_when_the_mesh_does_not_compile() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(&dir, &memory());
    running.load(sample::mesh(), "1");
    let first = running.next().await;
    let mut broken = sample::mesh();
    broken.settings.service_range.clear();
    running.load(broken, "2");
    let failed = running
        .status
        .wait_for(|s| s.failure.is_some())
        .await
        .unwrap()
        .clone();
    assert!(failed.failure.unwrap().contains("no service range"));
    assert_eq!(
        running.revisions.borrow().as_ref().unwrap().number(),
        first.number()
    );
    running.load(sample::mesh(), "3");
    running
        .status
        .wait_for(|s| s.failure.is_none())
        .await
        .unwrap();
    assert_eq!(
        running.revisions.borrow().as_ref().unwrap().number(),
        first.number(),
        "the same content is the same revision"
    );
    running.stop().await;
    let kept = LastGood::new(dir.path().join("revision")).load().unwrap();
    assert_eq!(kept.1, [("mesh.toml".to_owned(), Arc::from("3"))]);
}

#[tokio::test]
async fn goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory();
    let uid = workload_uid("Kubernetes", "shop", "cart-1");
    let mut before = Running::start(&dir, &store);
    before.reported.send_replace(captured(&uid));
    before.load(sample::mesh(), "1");
    let first = before.next().await;
    before.stop().await;
    assert_eq!(store.entries(Tree::RevisionIndex).unwrap().len(), 1);

    let mut after = Running::start(&dir, &memory());
    assert!(after.captured.of(&uid).captured, "known without the store");
    after
        .reported
        .send_replace(Arc::new(after.captured.clone()));
    after.load(sample::mesh(), "1");
    let second = after.next().await;
    assert!(second.number() > first.number());
    assert_eq!(second.summary().digest, first.summary().digest);
    after.stop().await;
}

#[tokio::test]
async fn two_controls_offer_the_same() {
    let mut digests = BTreeMap::new();
    for name in ["a", "b"] {
        let dir = tempfile::tempdir().unwrap();
        let mut running = Running::start(&dir, &memory());
        running.load(sample::large(100, 10), "1");
        digests.insert(name, running.next().await.summary().digest);
        running.stop().await;
    }
    assert_eq!(digests["a"], digests["b"]);
}

#[test]
fn the_index_stays_short_and_knows_the_last_number() {
    let store = Memory::default();
    assert_eq!(index::last(&store), 0);
    for number in 1..=150 {
        let title = crate::control::revision::tests::title(number);
        let revision = Revision::new(title, Content::default(), None);
        index::note(&store, revision.summary());
    }
    assert_eq!(index::last(&store), 150);
    assert_eq!(store.entries(Tree::RevisionIndex).unwrap().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn reports_are_gathered_for_a_moment_and_no_longer() {
    // Reports come this many milliseconds apart; when they are acted on, after the first.
    for (name, apart, count, want) in [
        ("one", 0, 1, 20),
        ("three in a row", 15, 3, 50),
        ("without end", 15, 100, 100),
        ("seldom", 25, 100, 20),
    ] {
        let (reports, mut changes) = watch::channel(0);
        let mut reporting = JoinSet::new();
        reporting.spawn(async move {
            for report in 0..count {
                reports.send_replace(report);
                tokio::time::sleep(Duration::from_millis(apart)).await;
            }
            reports.closed().await;
        });
        let begun = Instant::now();
        settled(&mut changes).await;
        let took = begun.elapsed().as_millis();
        assert!((want..=want + 2).contains(&took), "{name}: {took}");
    }
}
