//! Several control planes: which is followed, and whose revision is in force.

use std::net::SocketAddr;
use std::time::Instant;

use super::*;
use crate::agent::keep::clock::ClockFile;
use crate::agent::report::facts::Facts;
use crate::agent::report::{CaptureState, LocalStates, WorkloadState, streams};
use crate::agent::scripted::{self, Fitness, Script, Scripted, joined, policy, resource};
use crate::control::discovery::{Clients, Limits};
use crate::control::loopback::serve_tls;
use crate::control::revision::Revision;
use crate::control::revision::tests::{compiled, revision};
use crate::model::compile::sample;
use crate::model::testing::workload;
use crate::telemetry::ControlMetrics;
use crate::tls::testing::TestCa;
use crate::wire::proto::grpc_health::health_server::HealthServer;
use crate::wire::{ADDRESS, AUTHORIZATION, REVISION};
use tokio::net::TcpListener;
use tonic::service::Routes;

/// The discovery service of a real control plane.
pub(super) struct Real {
    pub(super) url: String,
    address: SocketAddr,
    pub(super) clients: Arc<Clients>,
    pub(super) publisher: watch::Sender<Option<Arc<Revision>>>,
    _streams: JoinSet<()>,
    pub(super) server: JoinSet<()>,
}

impl Real {
    pub(super) async fn start(ca: &TestCa, revision: &Arc<Revision>, listen: &str) -> Self {
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (publisher, revisions) = watch::channel(Some(Arc::clone(revision)));
        let (discovery, service, clients) = crate::control::discovery::Discovery::new(
            revisions,
            Limits::default(),
            ControlMetrics::default(),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(discovery.run(CancellationToken::new()));
        let routes = Routes::new(service).add_service(HealthServer::new(Fitness::default()));
        let server = serve_tls(routes, listener, scripted::control_tls(ca));
        Self {
            url: scripted::url(address),
            address,
            clients,
            publisher,
            _streams: tasks,
            server,
        }
    }
}

/// The epoch of the revisions that tests make.
pub(super) const EPOCH: u8 = 0xab;

#[tokio::test]
async fn a_control_plane_that_stops_is_left_and_returned_to() {
    let ca = TestCa::new();
    let revision = revision(1, &compiled(&sample::mesh()), &[], None);
    let mut a = Real::start(&ca, &revision, "127.0.0.1:0").await;
    let b = Real::start(&ca, &revision, "127.0.0.1:0").await;
    let controls = joined(&ca, EPOCH, &[&a.url, &b.url]);
    let order = controls.clone();
    let mut client = Client::start(controls, brisk(), vec![EPOCH; 16]);
    client.connects(&a.url).await;
    let view = Arc::clone(&client.mesh.borrow().view);
    assert_eq!(order.order().collect::<Vec<_>>(), [0, 1]);

    let (stopped, address, url) = (Instant::now(), a.address, a.url.clone());
    a.server.shutdown().await;
    let link = client.connects(&b.url).await;
    assert!(stopped.elapsed() < Duration::from_secs(5));
    assert!(link.stale.is_none() && link.controls[0].error.is_some());
    assert_eq!(order.order().collect::<Vec<_>>(), [1, 0]);
    let same = |client: &Client| Arc::ptr_eq(&view, &client.mesh.borrow().view);
    assert!(same(&client), "nothing was sent again");

    let a = Real::start(&ca, &revision, &address.to_string()).await;
    let back = client.links("back", |link| {
        assert!(link.connected.is_some(), "made before it is broken");
        link.connected.as_ref() == Some(&url)
    });
    let link = back.await;
    assert_eq!(link.controls[0].error, None);
    assert!(same(&client), "nothing was sent again");
    let streams = |of: &Real| of.clients.snapshot().first().map(|c| c.streams);
    assert_eq!(streams(&a), Some(1));
    let left = async {
        while streams(&b) != Some(0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, left).await.unwrap();
}

#[tokio::test]
async fn one_that_was_away_is_followed_soon_after_it_is_back() {
    let ca = TestCa::new();
    let mut a = Scripted::lateen(
        &ca,
        Script {
            resources: scripted::mesh(EPOCH, 1, &[]),
            ..Script::default()
        },
    )
    .await;
    a.stop().await;
    let hour = Duration::from_secs(3600);
    let patient = |back| Timing {
        backoff: (hour, hour),
        back,
        ..brisk()
    };
    let start = |back| {
        let controls = joined(&ca, EPOCH, &[&a.url]);
        Client::start(controls, patient(back), vec![EPOCH; 16])
    };
    let (mut looks, mut waits) = (start(Duration::from_millis(20)), start(hour));
    for client in [&mut looks, &mut waits] {
        let failed = |link: &Link| link.controls[0].error.is_some();
        client.links("not there", failed).await;
    }
    let url = a.url.clone();
    a.resume().await;
    looks.connects(&url).await;
    assert!(
        waits.link.borrow().connected.is_none(),
        "the other one waits"
    );
}

/// A node that came to the last of three control planes, and finds the others up again, so.
async fn returned(ca: &TestCa, first: Script, second: Script, last: Script) -> [Scripted; 3] {
    let mut a = Scripted::lateen(ca, first).await;
    let mut b = Scripted::lateen(ca, second).await;
    let c = Scripted::lateen(ca, last).await;
    a.stop().await;
    b.stop().await;
    let controls = joined(ca, EPOCH, &[&a.url, &b.url, &c.url]);
    let mut client = Client::start(controls, brisk(), vec![EPOCH; 16]);
    client.connects(&c.url).await;
    a.resume().await;
    b.resume().await;
    let better = b.url.clone();
    client.connects(&better).await;
    [a, b, c]
}

#[tokio::test]
async fn a_better_one_that_is_of_no_use_does_not_hide_the_next() {
    let ca = TestCa::new();
    let mesh = |serial| Script {
        resources: scripted::mesh(EPOCH, serial, &[]),
        ..Script::default()
    };
    let [older, ..] = returned(&ca, mesh(4), mesh(5), mesh(5)).await;
    assert!(older.heard().streams > 0, "it was tried");
    let unfit = Script {
        unfit: true,
        ..mesh(5)
    };
    let [unfit, ..] = returned(&ca, unfit, mesh(5), mesh(5)).await;
    assert_eq!(unfit.heard().streams, 0, "it said so before it was tried");
}

#[tokio::test]
async fn one_with_whom_nothing_adds_up_is_asked_for_everything() {
    let ca = TestCa::new();
    let cart = resource(&workload("cart", &[]), "v1");
    let with_policy = [cart.clone(), policy("shop/p")];
    let mut present = scripted::mesh(EPOCH, 5, std::slice::from_ref(&cart));
    present.insert(AUTHORIZATION, vec![policy("shop/p")]);
    present.insert(REVISION, vec![scripted::revision(EPOCH, 5, &with_policy)]);
    // The better one has no policies, and does not say that the one held is gone.
    let mut better = scripted::mesh(EPOCH, 5, std::slice::from_ref(&cart));
    better.remove(AUTHORIZATION);
    let script = |resources| Script {
        resources,
        ..Script::default()
    };
    let mut a = Scripted::lateen(&ca, script(better)).await;
    let b = Scripted::lateen(&ca, script(present)).await;
    a.stop().await;
    let controls = joined(&ca, EPOCH, &[&a.url, &b.url]);
    let mut client = Client::start(controls, brisk(), vec![EPOCH; 16]);
    client.connects(&b.url).await;
    a.resume().await;
    let url = a.url.clone();
    client.connects(&url).await;
    let heard = a.heard();
    assert!(heard.nacks[0].1.contains("does not add up"), "{heard:?}");
    assert_eq!(client.mesh.borrow().view.size(), (1, 0));
}

#[tokio::test]
async fn an_older_revision_waits_until_nobody_has_a_newer_one() {
    let ca = TestCa::new();
    let at = |serial, names: &[&str]| {
        let workloads = names.iter().map(|n| resource(&workload(n, &[]), "v1"));
        let workloads: Vec<_> = workloads.collect();
        Script {
            resources: scripted::mesh(EPOCH, serial, &workloads),
            ..Script::default()
        }
    };
    let mut a = Scripted::lateen(&ca, at(5, &["cart", "web"])).await;
    let b = Scripted::lateen(&ca, at(4, &["cart"])).await;
    let controls = joined(&ca, EPOCH, &[&a.url, &b.url]);
    let timing = Timing {
        // For ever, first.
        patience: Duration::from_secs(3600),
        ..brisk()
    };
    let mut client = Client::start(controls, timing, vec![EPOCH; 16]);
    client.connects(&a.url).await;
    a.stop().await;
    let waits = |link: &Link| {
        let said = link.controls[1].error.as_deref().unwrap_or_default();
        said.contains("serial 4, and 5 is in force")
    };
    let link = client.links("b is older", waits).await;
    assert!(link.connected.is_none() && link.stale.is_some());
    let heard = b.hears("told so, again and again", |h| h.nacks.len() > 2);
    let heard = heard.await;
    assert!(heard.nacks[0].1.contains("serial 4"), "{heard:?}");
    assert!(heard.nacks.iter().all(|(of, _)| of == REVISION));
    assert_eq!(
        (client.serial(), client.mesh.borrow().view.size()),
        (Some(5), (2, 0))
    );
    a.resume().await;
    client.connects(&a.url).await;
    assert_eq!(client.serial(), Some(5));
}

#[tokio::test]
async fn an_older_revision_comes_into_force_in_the_end() {
    let ca = TestCa::new();
    let mesh = |serial| Script {
        resources: scripted::mesh(EPOCH, serial, &[]),
        ..Script::default()
    };
    let a = Scripted::lateen(&ca, mesh(5)).await;
    let controls = joined(&ca, EPOCH, &[&a.url]);
    let mut client = Client::start(controls, brisk(), vec![EPOCH; 16]);
    client.connects(&a.url).await;
    a.rewrite(|script| {
        *script = Script {
            ours: true,
            ..mesh(4)
        }
    });
    a.push(REVISION);
    a.hears("refused at first", |h| h.nacks.len() > 1).await;
    assert_eq!(client.serial(), Some(5));
    let in_force = |mesh: &MeshState| mesh.revision.as_ref().is_some_and(|r| r.serial == 4);
    client.sees("the older one", in_force).await;
    client.connects(&a.url).await;
}

#[tokio::test]
async fn another_mesh_is_refused() {
    let ca = TestCa::new();
    let script = Script {
        resources: scripted::mesh(1, 9, &[]),
        ..Script::default()
    };
    let a = Scripted::lateen(&ca, script).await;
    let controls = joined(&ca, EPOCH, &[&a.url]);
    let mut client = Client::start(controls, brisk(), vec![EPOCH; 16]);
    let refused = |link: &Link| {
        let said = link.error.as_deref().unwrap_or_default();
        said.contains("another mesh than the one this machine joined; run lateen join again")
    };
    let link = client.links("refused", refused).await;
    assert!(!link.viewed);
    a.hears("told so", |h| {
        h.nacks.iter().any(|(_, why)| why.contains("another mesh"))
    })
    .await;
    assert_eq!(client.serial(), None);
}

#[tokio::test]
async fn a_revision_that_does_not_add_up_is_asked_for_from_the_beginning() {
    let ca = TestCa::new();
    let cart = resource(&workload("cart", &[]), "v1");
    let good = scripted::mesh(EPOCH, 0, std::slice::from_ref(&cart));
    let script = Script {
        resources: good.clone(),
        ..Script::default()
    };
    let a = Scripted::lateen(&ca, script).await;
    let controls = joined(&ca, EPOCH, &[&a.url]);
    let mut client = Client::start(controls, brisk(), vec![EPOCH; 16]);
    client.connects(&a.url).await;
    let wrong = scripted::revision(EPOCH, 0, &[cart.clone(), cart]);
    a.rewrite(|script| {
        script.resources.insert(REVISION, vec![wrong]);
        script.resources.insert(ADDRESS, Vec::new());
    });
    let before = a.heard().first.len();
    a.push(REVISION);
    let again = |h: &scripted::Heard| h.first.iter().skip(before).any(|r| r.type_url == ADDRESS);
    let heard = a.hears("asked again", again).await;
    assert!(heard.nacks[0].1.contains("does not add up"), "{heard:?}");
    let first = heard.first.iter().skip(before);
    let held: usize = first.map(|r| r.initial_resource_versions.len()).sum();
    assert_eq!(held, 0, "without versions");
    assert_eq!(client.mesh.borrow().view.size(), (1, 0), "the old view");
    a.rewrite(|script| script.resources = good);
    client
        .links("whole again", |link| link.connected.is_some())
        .await;
}

#[tokio::test]
async fn every_control_plane_is_told_how_workloads_are() {
    let ca = TestCa::new();
    let mut a = Scripted::lateen(&ca, Script::default()).await;
    let b = Scripted::lateen(&ca, Script::default()).await;
    a.stop().await;
    let controls = joined(&ca, EPOCH, &[&a.url, &b.url]);
    let captured = |capture| WorkloadState {
        capture: Some(capture),
        ..WorkloadState::default()
    };
    let mut states = LocalStates::default();
    let cart = captured(CaptureState::Captured);
    states.workloads.insert(Arc::from("cart"), cart);
    let (captures, seen) = watch::channel(states);
    let directory = tempfile::tempdir().unwrap();
    let mut tasks = JoinSet::new();
    let shutdown = CancellationToken::new();
    tasks.spawn(streams::run(
        controls,
        seen,
        brisk(),
        Facts::bare(ClockFile::of(directory.path())),
        shutdown.clone(),
    ));
    b.hears("one of them", |h| h.reports == 1).await;
    a.resume().await;
    a.hears("the other once it is there", |h| h.reports == 1)
        .await;
    captures.send_modify(|states| {
        let web = captured(CaptureState::Released);
        states.workloads.insert(Arc::from("web"), web);
    });
    for control in [&a, &b] {
        control.hears("the news", |h| h.reports == 2).await;
    }
    shutdown.cancel();
    tasks.join_next().await.unwrap().unwrap();
}
