//! One delta stream to one control plane, and what has been staged of it.

use std::collections::BTreeSet;
use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::agent::channel::{ChannelError, Controls, Who};
use crate::agent::mirror::{ESSENTIAL, Mirror, TYPES};
use crate::agent::trust::Believed;
use crate::causes::chain;
use crate::dial::{Line, RECEIVE_LIMIT, Received};
use crate::model::waypoint::WaypointName;
use crate::wire::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use crate::wire::proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status as Detail,
};
use crate::wire::{LATEEN_VERSION, TRUST, WAYPOINT, WAYPOINTS};

/// Requests on their way out; each answers one response, so more than a few never wait.
const REQUESTS: usize = 16;
/// Header by which a control plane of ours says that it sends revisions.
const OURS: &str = "lateen-control";
/// How often the longest silence is looked into.
const LOOKS: u32 = 8;
/// How long a refusal may take to get out before the connection goes.
const PARTING: Duration = Duration::from_secs(1);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the control plane ended discovery: {}", .0.message())]
    Status(Status),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("the control plane sends nothing")]
    Silent,
    #[error("the mesh view does not add up, asking for all of it again")]
    Lost,
    #[error("its revision has serial {found}, and {in_force} is in force: it is older, and waits")]
    Older { found: u64, in_force: u64 },
    #[error(
        "it serves another mesh than the one this machine joined; run lateen join again if that is meant"
    )]
    Foreign,
}

/// A response taken in, and not yet acknowledged.
pub(super) struct Taken {
    ack: DeltaDiscoveryRequest,
    /// Whether a view is complete with it.
    pub(super) complete: bool,
    /// Whether it is a revision that completes it.
    pub(super) revision: bool,
    /// Whether what is held is not what the server means.
    pub(super) lost: bool,
}

impl Taken {
    /// Why parts of it were refused.
    pub(super) fn refused(&self) -> Option<(&str, &str)> {
        let detail = self.ack.error_detail.as_ref()?;
        Some((&self.ack.type_url, &detail.message))
    }

    /// Of which type it is.
    pub(super) fn type_url(&self) -> &str {
        &self.ack.type_url
    }

    /// Refuses it.
    pub(super) fn refuse(&mut self, message: String) {
        self.ack.error_detail = Some(Detail {
            message,
            ..Detail::default()
        });
    }
}

/// A stream.
pub(super) struct Stream {
    /// To whom.
    pub(super) control: usize,
    /// What it has led to so far.
    pub(super) mirror: Mirror,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    received: Received,
    believed: Option<Believed>,
    staged: bool,
    revised: bool,
    answered: BTreeSet<String>,
}

impl Stream {
    /// Opens one that goes on from what `mirror` holds; trust bundles go to `believed`.
    pub(super) async fn open(
        controls: &Controls,
        control: usize,
        mirror: &Mirror,
        believed: Option<Believed>,
    ) -> Result<Self, StreamError> {
        let Line {
            channel,
            local,
            received,
        } = controls.connect(control).await?;
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(RECEIVE_LIMIT);
        let waypoints = controls.waypoints();
        let (node, types): (Node, &[&str]) = match controls.who() {
            Who::Node(identity) => (named(&identity.borrow().node, waypoints), &TYPES),
            Who::Guest(guest) => {
                let token = guest.token().await.map_err(ChannelError::from)?;
                (guest.describe(&token, local), &ESSENTIAL)
            }
        };
        let (requests, outgoing) = mpsc::channel(REQUESTS);
        let served = |type_url: &&&str| **type_url != WAYPOINT || !waypoints.is_empty();
        for type_url in types.iter().filter(served) {
            // The channel is larger than the list of types, so this never fails.
            let _fits = requests.try_send(DeltaDiscoveryRequest {
                node: Some(node.clone()),
                type_url: (*type_url).to_owned(),
                initial_resource_versions: mirror.versions(type_url),
                ..DeltaDiscoveryRequest::default()
            });
        }
        let request = controls.request(ReceiverStream::new(outgoing)).await?;
        let opened = client.delta_aggregated_resources(request).await;
        let opened = opened.map_err(StreamError::Status)?;
        // Whoever does not ask for revisions gets none.
        let staged = types.len() > ESSENTIAL.len() && opened.metadata().contains_key(OURS);
        Ok(Self {
            control,
            mirror: Mirror::default(),
            requests,
            responses: opened.into_inner(),
            received,
            believed,
            staged,
            revised: false,
            answered: BTreeSet::new(),
        })
    }

    /// Opens one and takes in what makes a whole view; all but the last of it is acknowledged.
    pub(super) async fn whole(
        controls: Controls,
        control: usize,
        mirror: Mirror,
        believed: Option<Believed>,
        silence: Duration,
    ) -> Result<(Self, Taken), StreamError> {
        let opening = Self::open(&controls, control, &mirror, believed);
        let opened = tokio::time::timeout(silence, opening).await;
        let mut stream = opened.map_err(|_elapsed| StreamError::Silent)??;
        stream.mirror = mirror;
        loop {
            let response = stream.read(silence).await?;
            let taken = stream.take(response).await;
            if taken.lost {
                stream.part(taken).await;
                return Err(StreamError::Lost);
            }
            if stream.is_whole() {
                return Ok((stream, taken));
            }
            stream.acknowledge(taken).await?;
        }
    }

    /// The next response. One that has not sent a whole view yet must not be silent for long; a
    /// large response on its way over a slow line is no silence.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn read(
        &mut self,
        silence: Duration,
    ) -> Result<DeltaDiscoveryResponse, StreamError> {
        let whole = self.is_whole();
        let next = self.responses.message();
        let response = match whole {
            true => next.await,
            false => tokio::select! {
                response = next => response,
                () = silent(&self.received, silence) => return Err(StreamError::Silent),
            },
        };
        response
            .map_err(StreamError::Status)?
            .ok_or(StreamError::Closed)
    }

    /// Takes a response in.
    pub(super) async fn take(&mut self, response: DeltaDiscoveryResponse) -> Taken {
        let type_url = response.type_url.clone();
        if let Some(believed) = self.believed.clone().filter(|_| type_url == TRUST) {
            return believe(believed, response).await;
        }
        let nonce = response.nonce.clone();
        let heard = self.mirror.take(response, self.staged);
        let revision = self.staged && heard.complete;
        self.revised |= revision;
        self.answered.insert(type_url.clone());
        Taken {
            ack: acknowledgement(type_url, nonce, heard.refused),
            complete: heard.complete,
            revision,
            lost: heard.lost,
        }
    }

    /// Whether it has sent all that a view is made of, at least once.
    pub(super) fn is_whole(&self) -> bool {
        match self.staged {
            true => self.revised,
            false => ESSENTIAL.iter().all(|t| self.answered.contains(*t)),
        }
    }

    /// Tells the control plane what became of a response.
    pub(super) async fn acknowledge(&self, taken: Taken) -> Result<(), StreamError> {
        let sent = self.requests.send(taken.ack).await;
        sent.map_err(|_ended| StreamError::Closed)
    }

    /// Ends it with a last answer, which the control plane hears before the connection goes.
    pub(super) async fn part(&mut self, taken: Taken) {
        let (closed, _nobody) = mpsc::channel(1);
        let requests = std::mem::replace(&mut self.requests, closed);
        let parting = async {
            let _ended = requests.send(taken.ack).await;
            drop(requests);
            while let Ok(Some(_late)) = self.responses.message().await {}
        };
        // Whoever does not end it in this time has heard it or never will.
        let _late = tokio::time::timeout(PARTING, parting).await;
    }
}

/// Waits until nothing at all has come for so long.
async fn silent(received: &Received, silence: Duration) {
    let (mut last, mut before) = (Instant::now(), received.bytes());
    while last.elapsed() < silence {
        tokio::time::sleep(silence / LOOKS).await;
        let now = received.bytes();
        if now != before {
            (last, before) = (Instant::now(), now);
        }
    }
}

/// Takes a trust bundle up at once, whatever becomes of the revision it came with.
async fn believe(believed: Believed, response: DeltaDiscoveryResponse) -> Taken {
    let mut refused = None;
    for resource in response.resources {
        let (believed, body) = (believed.clone(), resource.resource.unwrap_or_default());
        let taken = tokio::task::spawn_blocking(move || believed.take(&body.value)).await;
        refused = match taken {
            Ok(Ok(())) => continue,
            Ok(Err(e)) => Some(chain(&e)),
            Err(e) => Some(e.to_string()),
        };
    }
    Taken {
        ack: acknowledgement(response.type_url, response.nonce, refused),
        complete: false,
        revision: false,
        lost: false,
    }
}

/// The answer to a response: taken, or why not.
fn acknowledgement(
    type_url: String,
    response_nonce: String,
    refused: Option<String>,
) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url,
        response_nonce,
        error_detail: refused.map(|message| Detail {
            message,
            ..Detail::default()
        }),
        ..DeltaDiscoveryRequest::default()
    }
}

fn named(node: &str, waypoints: &[WaypointName]) -> Node {
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let waypoints = waypoints.iter().map(|name| text(&name.to_string()));
    let waypoints = Value {
        kind: Some(Kind::ListValue(ListValue {
            values: waypoints.collect(),
        })),
    };
    let fields = [
        ("NODE_NAME".to_owned(), text(node)),
        (LATEEN_VERSION.to_owned(), text(env!("CARGO_PKG_VERSION"))),
        (WAYPOINTS.to_owned(), waypoints),
    ];
    Node {
        id: format!("lateen~{node}"),
        cluster: String::new(),
        metadata: Some(Struct {
            fields: fields.into_iter().collect(),
        }),
    }
}
