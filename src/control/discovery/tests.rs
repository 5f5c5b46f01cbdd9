use std::net::SocketAddr;
use std::time::SystemTime;

use prost::Message as _;
use prost_types::{Any, Struct, Value, value};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use super::*;
use crate::control::gate::Gate;
use crate::control::gate::tests::gate;
use crate::control::loopback::serve_until;
use crate::control::revision::Kind;
use crate::control::revision::tests::{compiled, revision};
use crate::model::compile::sample;
use crate::model::declaration::Mesh;
use crate::wire::ADDRESS;
use crate::wire::convert::Address;
use crate::wire::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use crate::wire::proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, Node,
};

/// A discovery server on loopback that takes every caller for `node`.
struct Served {
    address: SocketAddr,
    revisions: watch::Sender<Option<Arc<Revision>>>,
    clients: Arc<Clients>,
    shutdown: CancellationToken,
    discovery: JoinSet<()>,
    _server: JoinSet<()>,
}

impl Served {
    async fn start(node: Option<&'static str>, limits: Limits) -> Self {
        Self::serving(&sample::mesh(), node, None, limits).await
    }

    async fn serving(
        mesh: &Mesh,
        node: Option<&'static str>,
        expires: Option<SystemTime>,
        limits: Limits,
    ) -> Self {
        Self::behind(None, mesh, node, expires, limits).await
    }

    async fn behind(
        gate: Option<Gate>,
        mesh: &Mesh,
        node: Option<&'static str>,
        expires: Option<SystemTime>,
        limits: Limits,
    ) -> Self {
        let first = revision(1, &compiled(mesh), &[], None);
        let (revisions, seen) = watch::channel(Some(first));
        let metrics = ControlMetrics::default();
        let (component, service, clients) = Discovery::new(seen, limits, metrics);
        let service = match gate {
            Some(gate) => service.judged_by(gate),
            None => service,
        };
        let (address, server) = serve_until(service, node, expires).await;
        let shutdown = CancellationToken::new();
        let mut discovery = JoinSet::new();
        discovery.spawn(component.run(shutdown.clone()));
        Self {
            address,
            revisions,
            clients,
            shutdown,
            discovery,
            _server: server,
        }
    }

    async fn client(&self) -> AggregatedDiscoveryServiceClient<tonic::transport::Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        // The smallest window there is: what is not read soon stays with the server.
        let endpoint = endpoint.initial_stream_window_size(65_535);
        let channel = endpoint.connect().await.unwrap();
        AggregatedDiscoveryServiceClient::new(channel)
    }

    async fn open(&self) -> Result<Client, Status> {
        let (requests, sent) = mpsc::channel(8);
        let mut client = self.client().await.max_decoding_message_size(64 << 20);
        let opened = client
            .delta_aggregated_resources(ReceiverStream::new(sent))
            .await?;
        assert_eq!(opened.metadata().get("lateen-control").unwrap(), "1");
        Ok(Client {
            requests,
            responses: opened.into_inner(),
        })
    }
}

struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    async fn ask(&self, kind: Kind) {
        self.requests.send(first(kind)).await.unwrap();
    }

    async fn read(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let response = self.responses.message().await?;
        Ok(response.expect("a stream never ends OK"))
    }

    async fn ack(&self, response: &DeltaDiscoveryResponse) {
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(ack).await.unwrap();
    }
}

/// A first request for everything of a type.
fn first(kind: Kind) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node {
            id: "lateen~edge-1".to_owned(),
            ..Node::default()
        }),
        type_url: kind.type_url().to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn brief() -> Limits {
    Limits {
        drain: Duration::from_millis(5),
        ..Limits::default()
    }
}

#[tokio::test]
async fn serves_a_snapshot_then_changes() {
    let server = Served::start(Some("edge-1"), brief()).await;
    let mut client = server.open().await.unwrap();
    client.ask(Kind::Address).await;
    let snapshot = client.read().await.unwrap();
    assert_eq!(snapshot.type_url, ADDRESS);
    assert_eq!(snapshot.system_version_info.split('/').count(), 3);
    assert_eq!(snapshot.nonce.len(), 32);
    for resource in &snapshot.resources {
        let Some(Any { type_url, value }) = &resource.resource else {
            panic!("a body");
        };
        assert_eq!(type_url, ADDRESS);
        Address::decode(&resource.name, value).unwrap();
    }
    client.ack(&snapshot).await;
    let own = client.read().await.unwrap();
    assert_eq!(own.resources.len(), 1);
    client.ack(&own).await;

    let mut mesh = sample::mesh();
    mesh.workloads[1].capacity = 5;
    let before = server.revisions.borrow().clone();
    let next = revision(2, &compiled(&mesh), &[], before.as_deref());
    server.revisions.send_replace(Some(next));
    let change = client.read().await.unwrap();
    assert_eq!(change.resources.len(), 1);
    client.ack(&change).await;

    let status = loop {
        match server.clients.snapshot().pop() {
            Some(status) if status.revision() == Some(2) => break status,
            _ => tokio::task::yield_now().await,
        }
    };
    assert_eq!((&*status.node, status.streams), ("edge-1", 1));
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
        let server = Served::start(node, brief()).await;
        assert_eq!(
            server.open().await.map(|_| ()).unwrap_err().code(),
            want,
            "{name}"
        );
    }
    let server = Served::start(Some("edge-1"), brief()).await;
    server.revisions.send_replace(None);
    assert_eq!(
        server.open().await.map(|_| ()).unwrap_err().code(),
        Code::Unavailable
    );
    let sotw = tokio_stream::iter([DiscoveryRequest::default()]);
    let answer = server
        .client()
        .await
        .stream_aggregated_resources(sotw)
        .await;
    assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn ends_with_a_reason_and_never_ok() {
    let server = Served::start(Some("edge-1"), brief()).await;
    let mut unnamed = server.open().await.unwrap();
    unnamed
        .requests
        .send(DeltaDiscoveryRequest::default())
        .await
        .unwrap();
    assert_eq!(
        unnamed.read().await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let mut another = server.open().await.unwrap();
    let mut request = first(Kind::Address);
    let claims = Value {
        kind: Some(value::Kind::StringValue("edge-2".to_owned())),
    };
    let fields = [("NODE_NAME".to_owned(), claims)].into();
    request.node.as_mut().unwrap().metadata = Some(Struct { fields });
    another.requests.send(request).await.unwrap();
    let refused = another.read().await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    let Client {
        requests,
        mut responses,
    } = server.open().await.unwrap();
    drop(requests);
    assert_eq!(
        responses.message().await.unwrap_err().code(),
        Code::Cancelled
    );

    let mut dropped = server.open().await.unwrap();
    dropped.ask(Kind::Address).await;
    dropped.read().await.unwrap();
    let mut mesh = sample::mesh();
    mesh.nodes.remove("edge-1");
    mesh.workloads.remove(0);
    let before = server.revisions.borrow().clone();
    let next = revision(2, &compiled(&mesh), &[], before.as_deref());
    server.revisions.send_replace(Some(next));
    assert_eq!(
        dropped.read().await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn ends_what_stays_unacknowledged() {
    let limits = Limits {
        acknowledgement: Duration::from_millis(20),
        ..brief()
    };
    let server = Served::start(Some("edge-1"), limits).await;
    let mut client = server.open().await.unwrap();
    client.ask(Kind::Address).await;
    client.read().await.unwrap();
    assert_eq!(client.read().await.unwrap_err().code(), Code::Cancelled);
}

/// Row 14 of §10: however much changes meanwhile, what waits for a client is the one response it
/// has not acknowledged.
#[tokio::test]
async fn a_client_that_stops_reading_is_owed_names_only() {
    let limits = Limits {
        acknowledgement: Duration::from_millis(200),
        ..brief()
    };
    let mesh = sample::large(2_000, 20);
    let server = Served::serving(&mesh, Some("edge-1"), None, limits).await;
    let mut client = server.open().await.unwrap();
    client.ask(Kind::Address).await;
    let mut edited = compiled(&mesh);
    for number in 2..30 {
        let mut workload = (*edited.workloads[5]).clone();
        workload.capacity = number;
        edited.workloads[5] = Arc::new(workload);
        let before = server.revisions.borrow().clone();
        let next = revision(number.into(), &edited, &[], before.as_deref());
        server.revisions.send_replace(Some(next));
    }
    let there = |clients: &Clients| clients.snapshot().iter().any(|c| c.streams > 0);
    while server.clients.snapshot().is_empty() || there(&server.clients) {
        tokio::task::yield_now().await;
    }
    let snapshot = client.read().await.unwrap();
    assert!(snapshot.resources.len() > 1_000);
    assert_eq!(client.read().await.unwrap_err().code(), Code::Cancelled);
}

/// §9.4: a large mesh goes to few clients at a time, but none waits for ever for those.
#[tokio::test]
async fn snapshots_of_a_large_mesh_take_turns() {
    let wait = Duration::from_millis(400);
    let limits = Limits {
        snapshots: 1,
        snapshot_wait: wait,
        ..brief()
    };
    let mesh = sample::large(6_000, 20);
    let server = Served::serving(&mesh, Some("edge-1"), None, limits).await;
    let took = async |client: &mut Client| {
        let begun = std::time::Instant::now();
        client.ask(Kind::Placement).await;
        client.read().await.unwrap();
        begun.elapsed()
    };
    let mut slow = server.open().await.unwrap();
    slow.ask(Kind::Address).await;
    let own = slow.read().await.unwrap();
    let mut second = server.open().await.unwrap();
    assert!(
        took(&mut second).await >= wait,
        "it has waited for the first"
    );
    // The first has acknowledged all but its own workloads, which are sent then.
    slow.ack(&own).await;
    slow.read().await.unwrap();
    let mut third = server.open().await.unwrap();
    assert!(took(&mut third).await < wait, "and the third for nobody");
}

/// Row 24 of §10: what a stock proxy sends when it returns to a large mesh.
#[tokio::test]
async fn takes_a_request_that_names_eighty_thousand_resources() {
    let server = Served::start(Some("edge-1"), brief()).await;
    let mut client = server.open().await.unwrap();
    let mut request = first(Kind::Address);
    request.initial_resource_versions = (0..80_000)
        .map(|n| {
            let name = format!("Kubernetes/lateen/Workload/shop/w-{n}");
            (name, format!("{n:016x}"))
        })
        .collect();
    let size = request.encoded_len();
    assert!(size > 4 << 20, "{size} bytes");
    client.requests.send(request).await.unwrap();
    let answer = client.read().await.unwrap();
    assert_eq!(answer.resources.len(), 3, "what is new");
}

#[tokio::test]
async fn a_node_can_be_sent_away() {
    let server = Served::start(Some("edge-1"), brief()).await;
    let mut open = [server.open().await.unwrap(), server.open().await.unwrap()];
    for client in &mut open {
        client.ask(Kind::Address).await;
        client.read().await.unwrap();
    }
    server
        .clients
        .end("edge-2", Status::internal("not this one"));
    server
        .clients
        .end("edge-1", Status::permission_denied("revoked"));
    for client in &mut open {
        let end = client.read().await.unwrap_err();
        assert_eq!(
            (end.code(), end.message()),
            (Code::PermissionDenied, "revoked")
        );
    }
    let mut later = server.open().await.unwrap();
    later.ask(Kind::Address).await;
    assert!(later.read().await.is_ok(), "who is let in again is served");
}

#[tokio::test]
async fn a_stream_ends_with_the_credential_that_opened_it() {
    let mesh = sample::mesh();
    let soon = SystemTime::now() + Duration::from_millis(200);
    let server = Served::serving(&mesh, Some("edge-1"), Some(soon), brief()).await;
    let mut client = server.open().await.unwrap();
    client.ask(Kind::Address).await;
    client.read().await.unwrap();
    let end = client.read().await.unwrap_err();
    assert_eq!(end.code(), Code::Unauthenticated);
    assert!(SystemTime::now() >= soon);
}

#[tokio::test]
async fn drains() {
    let mut server = Served::start(Some("edge-1"), brief()).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = server.open().await.unwrap();
        client.ask(Kind::Address).await;
        client.read().await.unwrap();
        clients.push(client);
    }
    server.shutdown.cancel();
    for mut client in clients {
        assert_eq!(client.read().await.unwrap_err().code(), Code::Cancelled);
    }
    server.discovery.join_next().await.unwrap().unwrap();
    assert_eq!(server.clients.snapshot()[0].streams, 0);
}

#[tokio::test]
async fn too_many_at_once_are_told_to_come_back() {
    let limits = Limits {
        streams_per_second: 1,
        ..brief()
    };
    let server = Served::start(Some("edge-1"), limits).await;
    server.open().await.unwrap();
    // The second is lent a token and waits a second for it; the third finds none.
    let second = server.open();
    let third = async {
        tokio::task::yield_now().await;
        loop {
            if let Err(status) = server.open().await {
                return status;
            }
        }
    };
    let (_, refused) = futures::join!(second, third);
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn who_is_shut_out_on_the_way_in_does_not_get_in() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, nodes) = gate(dir.path());
    let mesh = sample::mesh();
    let server = Served::behind(Some(gate), &mesh, Some("edge-1"), None, brief()).await;
    assert!(server.open().await.is_ok());
    // As it is found between the door and the books.
    nodes.revoke_node("edge-1").unwrap();
    let refused = server.open().await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("revoked"), "{refused}");
}
