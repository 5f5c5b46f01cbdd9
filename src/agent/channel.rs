//! Connections to control planes, as who we are to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::guest::{Guest, GuestError};
use super::identity::NodeIdentity;
use crate::dial::{DialError, Line, connect, dial};
use crate::model::waypoint::WaypointName;
use crate::tls::{PeerRefused, control_client};
use crate::wire::proto::grpc_health::HealthCheckRequest;
use crate::wire::proto::grpc_health::health_check_response::ServingStatus;
use crate::wire::proto::grpc_health::health_client::HealthClient;

/// Longest wait for one to say how it is.
const HEALTH: Duration = Duration::from_secs(3);

/// Why a control plane cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// There is no connection to be had.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No TLS settings could be made.
    #[error("cannot prepare TLS towards {url}")]
    Tls {
        /// The address.
        url: String,
        /// What failed.
        #[source]
        source: crate::tls::TlsError,
    },
    /// It does not say how it is.
    #[error("{url} does not say whether it serves: {}", .status.message())]
    Unwell {
        /// The address.
        url: String,
        /// What it said.
        status: Box<Status>,
    },
    /// It says that it has nothing to serve.
    #[error("{url} is up and has no mesh to serve yet")]
    NotServing {
        /// The address.
        url: String,
    },
    /// A file that names this node, or whom it trusts, is no use.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// None is configured.
    #[error(
        "no control plane address is configured; set `addresses` in the [control] table of lateen.toml"
    )]
    None,
}

impl ChannelError {
    /// Whether nobody was there, or somebody who has nothing to serve yet.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Dial(dial) if dial.refused().is_none())
            || matches!(self, Self::Unwell { .. } | Self::NotServing { .. })
    }

    /// Whether the control plane answered and was found to be somebody else.
    pub fn refused(&self) -> Option<PeerRefused> {
        match self {
            Self::Dial(dial) => dial.refused(),
            _ => None,
        }
    }
}

/// Who we are to the control planes.
#[derive(Clone)]
pub enum Who {
    /// A node that has joined, by its certificate.
    Node(watch::Receiver<Arc<NodeIdentity>>),
    /// A node of another's control plane, by a token.
    Guest(Arc<Guest>),
}

/// The control planes of this node, numbered in order of preference, and who we are to them.
#[derive(Clone)]
pub struct Controls {
    urls: Arc<[String]>,
    who: Who,
    /// The waypoints that this process is.
    waypoints: Arc<[WaypointName]>,
    /// The one that discovery follows; tried first by everybody else.
    best: Arc<AtomicUsize>,
}

impl Controls {
    /// Control planes by their URLs.
    pub fn new(urls: Vec<String>, who: Who) -> Self {
        Self {
            urls: urls.into(),
            who,
            waypoints: Arc::default(),
            best: Arc::default(),
        }
    }

    /// The same, for a process that is these waypoints.
    #[must_use]
    pub fn of_waypoints(self, waypoints: Vec<WaypointName>) -> Self {
        Self {
            waypoints: waypoints.into(),
            ..self
        }
    }

    /// The waypoints that this process is.
    pub fn waypoints(&self) -> &[WaypointName] {
        &self.waypoints
    }

    /// Their URLs, in order of preference.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Who we are to them.
    pub(super) fn who(&self) -> &Who {
        &self.who
    }

    /// Says which one is followed.
    pub(super) fn set_best(&self, control: usize) {
        self.best.store(control, Ordering::Relaxed);
    }

    /// All of them in the order to ask in: the one that is followed, then by preference.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let best = self.best.load(Ordering::Relaxed);
        let rest = (0..self.urls.len()).filter(move |other| *other != best);
        let first = (best < self.urls.len()).then_some(best);
        first.into_iter().chain(rest)
    }

    /// Connects to one of them, as who we are.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub(super) async fn connect(&self, control: usize) -> Result<Line, ChannelError> {
        let url = self.urls.get(control).ok_or(ChannelError::None)?;
        let (tls, name) = match &self.who {
            Who::Node(identity) => {
                let identity = Arc::clone(&identity.borrow());
                let trust = identity.svid.trust().clone();
                let tls = control_client(Some(&identity.svid), trust);
                let tls = tls.map_err(|source| ChannelError::Tls {
                    url: url.clone(),
                    source,
                })?;
                (tls, None)
            }
            Who::Guest(guest) => (guest.tls().await?, guest.server_name.as_deref()),
        };
        Ok(dial(url, name, tls).await?)
    }

    /// Whether one of them can be reached and, where it says, is fit to serve: an istiod does not say.
    ///
    /// # Errors
    /// [`ChannelError`], by what it lacks.
    pub(super) async fn serves(&self, control: usize) -> Result<(), ChannelError> {
        let line = self.connect(control).await?;
        let Who::Node(_) = &self.who else {
            return Ok(());
        };
        let url = || self.urls.get(control).cloned().unwrap_or_default();
        let mut client = HealthClient::new(line.channel);
        let asked = client.check(HealthCheckRequest::default());
        let asked = tokio::time::timeout(HEALTH, asked).await;
        let asked = asked.unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("no answer")));
        match asked.map(|answer| answer.into_inner().status()) {
            Ok(ServingStatus::Serving) => Ok(()),
            Ok(_) => Err(ChannelError::NotServing { url: url() }),
            Err(status) => Err(ChannelError::Unwell {
                url: url(),
                status: Box::new(status),
            }),
        }
    }

    /// Connects to one of them as nobody: a node whose certificate has expired.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub(super) async fn connect_unnamed(&self, control: usize) -> Result<Channel, ChannelError> {
        let url = self.urls.get(control).ok_or(ChannelError::None)?;
        let Who::Node(identity) = &self.who else {
            return Err(ChannelError::None);
        };
        let trust = identity.borrow().svid.trust().clone();
        let tls = control_client(None, trust).map_err(|source| ChannelError::Tls {
            url: url.clone(),
            source,
        })?;
        Ok(connect(url, tls).await?)
    }

    /// A message with the credentials of this moment.
    ///
    /// # Errors
    /// [`ChannelError::Guest`] when the token cannot be read.
    pub(super) async fn request<T>(&self, message: T) -> Result<tonic::Request<T>, ChannelError> {
        match &self.who {
            Who::Node(_) => Ok(tonic::Request::new(message)),
            Who::Guest(guest) => Ok(guest.credentials(message).await?),
        }
    }
}

/// Whether another control plane might grant what one refused so: it is ending, or is not the one
/// that has what it takes (§9.1).
pub(super) fn elsewhere(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::FailedPrecondition)
}
