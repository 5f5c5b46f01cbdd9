//! One connection's account: counted, listed while open, and told of once when it ends, however it
//! ends.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Shared;
use super::connections::{Connection, Open};
use super::registry::{Registration, Unwelcome};
use crate::hbone::Traffic;
use crate::telemetry::access_log::{Ending, Entry};
use crate::telemetry::{Carrier, ConnectionLabels, Metrics, Series};

/// Which way a relay's bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forth {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// What it counts for.
enum Account {
    /// Known with what carries it.
    Awaited(Arc<Metrics>, Box<ConnectionLabels>),
    Counted(Arc<Series>),
}

impl Account {
    /// The series it counts for from now on.
    fn series(&mut self, carrier: Carrier) -> Arc<Series> {
        let series = match self {
            Self::Counted(series) => return Arc::clone(series),
            Self::Awaited(metrics, labels) => {
                metrics.opened(ConnectionLabels::clone(labels).carried(carrier))
            }
        };
        *self = Self::Counted(Arc::clone(&series));
        series
    }
}

/// A connection from its decision to its end.
pub(super) struct Session {
    account: Account,
    /// What the log will say of it; may be completed while it is open.
    pub(super) entry: Entry,
    /// How long it is let in; none where nobody judges it here.
    pub(super) registration: Option<Registration>,
    /// What has been moved.
    pub(super) traffic: Arc<Traffic>,
    forth: Forth,
    started: Instant,
    ended: bool,
    _open: Open,
}

impl Session {
    /// Lists a connection and counts it as opened; one into a tunnel once it is known what carries that.
    pub(super) fn open(
        shared: &Shared,
        workload: &Arc<str>,
        entry: Entry,
        labels: ConnectionLabels,
        forth: Forth,
        started: Instant,
    ) -> Box<Self> {
        let protocol = labels.request_protocol;
        let metrics = &shared.metrics;
        let account = match (&entry.tunnelled, entry.carrier) {
            (Some(_), Carrier::none) => Account::Awaited(Arc::clone(metrics), Box::new(labels)),
            (_, carrier) => Account::Counted(metrics.opened(labels.carried(carrier))),
        };
        let destination = match &entry.tunnelled {
            Some(target) => target.clone(),
            None => entry.destination.to_string(),
        };
        let open = shared.connections.open(Connection {
            direction: entry.direction,
            workload: Arc::clone(workload),
            source: entry.source,
            destination,
            protocol: match (&entry.tunnelled, protocol) {
                (Some(_), _) => "hbone",
                (None, protocol) => protocol,
            },
            since: SystemTime::now(),
        });
        Box::new(Self {
            account,
            entry,
            registration: None,
            traffic: Arc::default(),
            forth,
            started,
            ended: false,
            _open: open,
        })
    }

    /// It goes on by this way.
    pub(super) fn carried(&mut self, by: Carrier) {
        self.entry.carrier = by;
        self.account.series(by);
    }

    /// Counts the bytes of another account of the same connection.
    pub(super) fn share(&mut self, other: &Self) {
        self.traffic = Arc::clone(&other.traffic);
        self.forth = other.forth;
    }

    /// It came to its end, in order or not.
    pub(super) fn closed(mut self, error: Option<String>) {
        let flag = if error.is_some() { "CONNECT" } else { "-" };
        let (to_client, from_client) = self.totals();
        self.series().closed(flag, to_client, from_client);
        self.log(error);
    }

    /// Why it is let in no more, if it is not.
    pub(super) fn denial(&mut self) -> Option<Unwelcome> {
        self.registration.as_mut().and_then(Registration::ended)
    }

    /// Waits until it is let in no more, and tells why.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn over(&mut self) -> Unwelcome {
        match &mut self.registration {
            Some(registration) => registration.over().await,
            None => std::future::pending().await,
        }
    }

    /// It was let in, and is no more.
    pub(super) fn denied(mut self, why: &Unwelcome) {
        let (to_client, from_client) = self.totals();
        self.series().closed("DENY", to_client, from_client);
        let changed = match why {
            Unwelcome::Denied(_) => "policy has changed",
            Unwelcome::Refused(_) => "a waypoint must be passed now",
        };
        self.log(Some(format!("closed, for {changed}: {why}")));
    }

    /// It never worked.
    pub(super) fn failed(mut self, flag: &'static str, error: String) {
        self.series().failed(flag);
        self.log(Some(error));
    }

    fn series(&mut self) -> Arc<Series> {
        self.account.series(self.entry.carrier)
    }

    /// Bytes to and from the client.
    fn totals(&self) -> (u64, u64) {
        let (forth, back) = self.traffic.totals();
        match self.forth {
            Forth::ToServer => (back, forth),
            Forth::ToClient => (forth, back),
        }
    }

    fn log(&mut self, error: Option<String>) {
        self.ended = true;
        let (to_client, from_client) = self.totals();
        // The log's sender is the near program: the client outbound, the server inbound.
        let (sent, received) = match self.entry.direction {
            "outbound" => (from_client, to_client),
            _ => (to_client, from_client),
        };
        self.entry.log(&Ending {
            sent,
            received,
            duration: self.started.elapsed(),
            error,
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.ended {
            let (to_client, from_client) = self.totals();
            self.series().closed("-", to_client, from_client);
            self.log(Some(
                "cut: this proxy is stopping, or the peer has fallen silent".to_owned(),
            ));
        }
    }
}
