use std::net::SocketAddr;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::*;
use crate::control::gate::tests::gate;
use crate::control::loopback::serve_until;
use crate::control::revision::tests::{compiled, revision};
use crate::control::store::Memory;
use crate::model::compile::sample;
use crate::wire::proto::lateen::WorkloadReport;
use crate::wire::proto::lateen::node_service_client::NodeServiceClient;
use crate::wire::proto::lateen::workload_report::Capture;

const CART: &str = "Kubernetes/lateen/Workload/shop/cart-1";

struct Served {
    address: SocketAddr,
    health: Health,
    reported: watch::Receiver<Arc<Reported>>,
    store: Arc<dyn Store>,
    shutdown: CancellationToken,
    _revisions: watch::Sender<Option<Arc<Revision>>>,
    _server: JoinSet<()>,
}

impl Served {
    async fn start(node: Option<&'static str>) -> Self {
        Self::until(node, None).await
    }

    async fn until(node: Option<&'static str>, expires: Option<SystemTime>) -> Self {
        Self::behind(None, node, expires).await
    }

    async fn behind(
        gate: Option<Gate>,
        node: Option<&'static str>,
        expires: Option<SystemTime>,
    ) -> Self {
        let first = revision(1, &compiled(&sample::mesh()), &[], None);
        let (revisions, seen) = watch::channel(Some(first));
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let shutdown = CancellationToken::new();
        let (health, reported) =
            Health::open(store.clone(), Reported::default(), seen, shutdown.clone());
        let (address, server) = serve_until(health.service(gate), node, expires).await;
        Self {
            address,
            health,
            reported,
            store,
            shutdown,
            _revisions: revisions,
            _server: server,
        }
    }

    async fn open(&self) -> Result<(mpsc::Sender<NodeReport>, Streaming<ReportAck>), Status> {
        let url = format!("http://{}", self.address);
        let mut client = NodeServiceClient::connect(url).await.unwrap();
        let (reports, sent) = mpsc::channel(4);
        let opened = client.report(ReceiverStream::new(sent)).await?;
        Ok((reports, opened.into_inner()))
    }
}

fn full(capture: Capture) -> NodeReport {
    let said = WorkloadReport {
        uid: CART.to_owned(),
        capture: capture.into(),
        ..WorkloadReport::default()
    };
    NodeReport {
        seq: 1,
        full: true,
        workloads: vec![said],
        ..NodeReport::default()
    }
}

#[tokio::test]
async fn a_report_reaches_the_next_revision_and_the_store() {
    let mut served = Served::start(Some("edge-1")).await;
    let (reports, mut acks) = served.open().await.unwrap();
    reports.send(full(Capture::Captured)).await.unwrap();
    let ack = acks.message().await.unwrap().unwrap();
    assert_eq!((ack.seq, ack.need_full, ack.lease_ms), (1, false, 15_000));
    served.reported.changed().await.unwrap();
    assert!(served.reported.borrow().of(CART).captured);
    assert_eq!(
        served.health.snapshot()[0].workloads[0].capture,
        CaptureState::Captured
    );

    let none = watch::channel(None).1;
    let (_, restarted) = Health::open(
        served.store.clone(),
        Reported::default(),
        none,
        CancellationToken::new(),
    );
    assert!(
        restarted.borrow().of(CART).captured,
        "remembered over a restart"
    );

    let mut released = full(Capture::Released);
    released.seq = 2;
    reports.send(released).await.unwrap();
    acks.message().await.unwrap();
    assert!(!served.reported.borrow().of(CART).captured);
    let kept = memory::recall(&*served.store, &Reported::default());
    assert!(!kept[CART].captured);
    assert_eq!(kept[CART].node.as_deref(), Some("edge-1"));
}

#[tokio::test]
async fn ends_with_a_reason() {
    let served = Served::start(Some("edge-1")).await;
    let (_reports, mut first) = served.open().await.unwrap();
    let (second_reports, mut second) = served.open().await.unwrap();
    assert_eq!(
        first.message().await.unwrap_err().code(),
        Code::Aborted,
        "the newer one wins"
    );
    second_reports.send(full(Capture::Captured)).await.unwrap();
    second.message().await.unwrap().unwrap();
    served.shutdown.cancel();
    assert_eq!(second.message().await.unwrap_err().code(), Code::Cancelled);
}

#[tokio::test]
async fn one_that_is_shut_out_is_not_heard() {
    let served = Served::start(Some("edge-1")).await;
    let (reports, mut acks) = served.open().await.unwrap();
    reports.send(full(Capture::Captured)).await.unwrap();
    acks.message().await.unwrap().unwrap();
    let status = || Status::permission_denied("edge-1 is revoked");
    served
        .health
        .end("edge-2", Status::internal("not this one"));
    served.health.end("edge-1", status());
    served.health.revoked("edge-1");
    let mut released = full(Capture::Released);
    released.seq = 2;
    // The stream may have ended before it is sent.
    let _gone = reports.send(released).await;
    assert_eq!(
        acks.message().await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let observed = served.reported.borrow().of(CART);
    assert!(observed.captured);
    assert_eq!(observed.health, workload::Health::Unhealthy);
    let kept = memory::recall(&*served.store, &Reported::default());
    assert_eq!(kept[CART].health, workload::Health::Unhealthy);
    let (reports, mut acks) = served.open().await.unwrap();
    reports.send(full(Capture::Captured)).await.unwrap();
    acks.message().await.unwrap().unwrap();
    let observed = served.reported.borrow().of(CART);
    assert_eq!(observed.health, workload::Health::Healthy);
}

#[tokio::test]
async fn a_stream_ends_with_the_credential_that_opened_it() {
    let soon = SystemTime::now() + std::time::Duration::from_millis(300);
    let served = Served::until(Some("edge-1"), Some(soon)).await;
    let (_reports, mut acks) = served.open().await.unwrap();
    let end = tokio::time::timeout(2 * LEASE, acks.message()).await;
    assert_eq!(
        end.expect("in time").unwrap_err().code(),
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn refuses_at_the_door() {
    for (name, node, want) in [
        ("no certificate", None, Code::Unauthenticated),
        (
            "a node the mesh does not know",
            Some("edge-9"),
            Code::PermissionDenied,
        ),
    ] {
        let served = Served::start(node).await;
        let refused = served.open().await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), want, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_by_itself() {
    let first = revision(1, &compiled(&sample::mesh()), &[], None);
    let (_revisions, seen) = watch::channel(Some(first));
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let shutdown = CancellationToken::new();
    let (health, mut reported) =
        Health::open(store.clone(), Reported::default(), seen, shutdown.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(health.clone().run(shutdown.clone()));
    let node = Arc::from("edge-1");
    let (stream, _end) = health.0.opened(&node);
    let heard_at = tokio::time::Instant::now();
    health
        .0
        .hear(&node, stream, full(Capture::Captured))
        .unwrap();
    reported.borrow_and_update();
    let healthy = |reported: &Arc<Reported>| reported.of(CART).health == workload::Health::Healthy;
    let lost = reported.wait_for(|r| !healthy(r)).await;
    assert!(lost.unwrap().of(CART).captured, "and nothing else");
    let after = heard_at.elapsed();
    assert!(
        after >= 2 * LEASE && after < 2 * LEASE + LEASE / 3,
        "{after:?}"
    );
    assert_eq!(
        memory::recall(&*store, &Reported::default())[CART].health,
        workload::Health::Unhealthy
    );
    let (stream, _end) = health.0.opened(&node);
    health
        .0
        .hear(&node, stream, full(Capture::Captured))
        .unwrap();
    assert!(healthy(&reported.borrow()), "back with its first word");
    shutdown.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn who_is_shut_out_on_the_way_in_does_not_get_in() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, nodes) = gate(dir.path());
    let served = Served::behind(Some(gate), Some("edge-1"), None).await;
    assert!(served.open().await.is_ok());
    // As it is found between the door and the books.
    nodes.revoke_node("edge-1").unwrap();
    let refused = served.open().await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("revoked"), "{refused}");
}
