//! Simulated nodes: each a connection and a stream of its own, that reads, counts and acknowledges.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use lateen::wire::convert::delta::Response;
use lateen::wire::proto::discovery::{DeltaDiscoveryRequest, Node};
use lateen::wire::{ADDRESS, AUTHORIZATION, PLACEMENT, REVISION};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::mesh::{self, Size};
use crate::support::Site;

/// Services a node on demand asks for.
pub(crate) const SERVICES: usize = 20;
const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// What a node asks for.
#[derive(Clone, Copy)]
pub(crate) enum Asking {
    Everything,
    Services(Size),
}

/// A response that a node has read.
struct Heard {
    node: usize,
    revision: bool,
    resources: usize,
    bytes: usize,
    /// Since the node opened its stream.
    after: Duration,
}

pub(crate) struct Fleet {
    nodes: JoinSet<()>,
    heard: mpsc::Receiver<Heard>,
    count: usize,
}

/// What a first sync took.
pub(crate) struct Synced {
    pub(crate) times: Vec<Duration>,
    pub(crate) bytes: usize,
    pub(crate) resources: usize,
}

/// What a change took.
pub(crate) struct Changed {
    /// Bytes of the largest response about addresses.
    pub(crate) largest: usize,
}

impl Fleet {
    pub(crate) async fn open(site: &Site, bearers: &[String], asking: Asking) -> Self {
        let (sender, heard) = mpsc::channel(1_024);
        let mut nodes = JoinSet::new();
        for (node, bearer) in bearers.iter().enumerate() {
            let channel = site.channel().await.unwrap();
            let client = Client {
                node,
                bearer: bearer.clone(),
                grpc: Grpc::new(channel).max_decoding_message_size(200 << 20),
                heard: sender.clone(),
                asking,
            };
            nodes.spawn(client.run());
        }
        Self {
            nodes,
            heard,
            count: bearers.len(),
        }
    }

    /// Waits until every node has a first revision in full.
    pub(crate) async fn synced(&mut self, patience: Duration) -> Synced {
        let (mut times, mut bytes, mut resources) = (Vec::new(), 0, 0);
        let mut done = BTreeSet::new();
        while done.len() < self.count {
            let heard = self.next(patience).await;
            bytes += heard.bytes;
            resources += heard.resources;
            if heard.revision && done.insert(heard.node) {
                times.push(heard.after);
            }
        }
        Synced {
            times,
            bytes,
            resources,
        }
    }

    /// Waits until `nodes` of them have heard of a changed address and acknowledged it, and all of
    /// the revision that has it.
    pub(crate) async fn heard(&mut self, nodes: usize, patience: Duration) -> Changed {
        let (mut changed, mut announced) = (BTreeSet::new(), BTreeSet::new());
        let mut largest = 0;
        while changed.len() < nodes || announced.len() < self.count {
            let heard = self.next(patience).await;
            if heard.revision {
                announced.insert(heard.node);
            } else if heard.resources > 0 {
                changed.insert(heard.node);
                largest = largest.max(heard.bytes);
            }
        }
        Changed { largest }
    }

    async fn next(&mut self, patience: Duration) -> Heard {
        let heard = timeout(patience, self.heard.recv()).await;
        heard.expect("nodes hear something").expect("nodes live")
    }

    pub(crate) async fn close(mut self) {
        self.nodes.shutdown().await;
    }
}

struct Client {
    node: usize,
    bearer: String,
    grpc: Grpc<tonic::transport::Channel>,
    heard: mpsc::Sender<Heard>,
    asking: Asking,
}

impl Client {
    async fn run(mut self) {
        // As many as come at once are not let in at once.
        let (requests, mut responses) = loop {
            match self.open().await {
                Ok(opened) => break opened,
                Err(busy) if busy.code() == tonic::Code::ResourceExhausted => {
                    sleep(Duration::from_millis(500).mul_f64(rand::random())).await;
                }
                Err(status) => panic!("node {}: {status}", self.node),
            }
        };
        let begun = Instant::now();
        for request in self.first() {
            requests.send(request).await.unwrap();
        }
        loop {
            let response = responses.message().await.unwrap().expect("never OK");
            let heard = Heard {
                node: self.node,
                revision: response.type_url == REVISION,
                resources: response.resources.len(),
                bytes: response.encoded_len(),
                after: begun.elapsed(),
            };
            let ack = DeltaDiscoveryRequest {
                type_url: response.type_url,
                response_nonce: response.nonce,
                ..DeltaDiscoveryRequest::default()
            };
            requests.send(ack).await.unwrap();
            if self.heard.send(heard).await.is_err() {
                return;
            }
        }
    }

    async fn open(
        &mut self,
    ) -> Result<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<Response>), Status> {
        let (requests, sent) = mpsc::channel(8);
        let mut request = Request::new(ReceiverStream::new(sent));
        let value = format!("Bearer {}", self.bearer).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        self.grpc
            .ready()
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        let codec = ProstCodec::<DeltaDiscoveryRequest, Response>::default();
        let path = PathAndQuery::from_static(DELTA);
        let opened = self.grpc.streaming(request, path, codec).await?;
        Ok((requests, opened.into_inner()))
    }

    /// As our agents ask, or as a stock proxy that resolves what its workloads call.
    fn first(&self) -> Vec<DeltaDiscoveryRequest> {
        let ask = |type_url: &str, names: Vec<String>| DeltaDiscoveryRequest {
            node: Some(Node {
                id: "lateen~bench".to_owned(),
                ..Node::default()
            }),
            type_url: type_url.to_owned(),
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        };
        let names = match self.asking {
            Asking::Everything => Vec::new(),
            // Service 0 for all, the others each to its own.
            Asking::Services(size) => (0..SERVICES)
                .map(|n| {
                    if n == 0 {
                        0
                    } else {
                        (self.node * SERVICES + n) % size.services
                    }
                })
                .map(|service| format!("/{}", mesh::vip(service)))
                .collect(),
        };
        vec![
            ask(ADDRESS, names),
            ask(AUTHORIZATION, Vec::new()),
            ask(PLACEMENT, Vec::new()),
            ask(REVISION, Vec::new()),
        ]
    }
}
