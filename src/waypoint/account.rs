//! One connection's account: counted, and told of once when it ends, however it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Arrival;
use super::records::Records;
use super::upstream::Chosen;
use crate::hbone::{Connector, Traffic};
use crate::model::telemetry::{Facts, Upstream};
use crate::telemetry::access_log::{Ending, Entry, denied};
use crate::telemetry::{Changes, ConnectionLabels, Reporter, Series};

/// How often connections are counted anew, where nobody says so (`spec/waypoint-l7.md` §6.2).
const INTERVAL: Duration = Duration::from_secs(15);

/// Which way a relay's bytes go forth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forth {
    /// From the client.
    ToServer,
    /// To it.
    ToClient,
}

/// A connection that is carried as bytes, from the choice of its endpoint to its end.
pub(super) struct Account {
    series: Arc<Series>,
    entry: Entry,
    /// What has been moved.
    pub(super) traffic: Arc<Traffic>,
    pub(super) forth: Forth,
    started: Instant,
    /// Bytes to and from the client that were counted.
    counted: (u64, u64),
    /// What is told of it.
    records: Option<Arc<Records>>,
    about: About,
    ended: bool,
}

/// What access logs and labels may ask for of a connection.
#[derive(Default)]
struct About {
    asked: Option<SocketAddr>,
    server_name: Option<String>,
    endpoint: Option<SocketAddr>,
    peer: Option<String>,
}

/// What the log says of a connection to `chosen`, or to nobody yet.
pub(super) fn entry<C: Connector>(arrival: &Arrival<C>, chosen: Option<&Chosen>) -> Entry {
    let client = &arrival.client;
    let workload = chosen.and_then(Chosen::workload);
    let tunnelled = chosen.and_then(Chosen::tunnelled);
    let routed = chosen.and_then(Chosen::service);
    Entry {
        direction: "waypoint",
        source: client.source,
        source_workload: client.workload.clone(),
        source_identity: Some(client.identity.clone()),
        destination: chosen.map_or_else(|| arrival.bound.asked(), Chosen::hop),
        tunnelled: tunnelled.map(|t| t.target.to_string()),
        carrier: client.carrier,
        service: routed.or_else(|| arrival.bound.service()).cloned(),
        destination_workload: workload.cloned(),
        destination_identity: tunnelled.and_then(|t| t.workload.identity().ok()),
    }
}

/// What it counts for.
pub(super) fn labels(entry: &Entry) -> ConnectionLabels {
    let labels = ConnectionLabels::new(
        Reporter::waypoint,
        entry.source_workload.as_deref(),
        entry.destination_workload.as_deref(),
        entry.service.as_deref(),
    )
    .carried(entry.carrier);
    match (&entry.source_identity, &entry.destination_identity) {
        (Some(source), Some(destination)) => labels.secured(source, destination),
        (Some(source), None) => labels.tunnelled(source),
        (None, _) => labels,
    }
}

/// Tells of a connection that is closed before it went anywhere; its flag is empty where Envoy has none.
pub(super) fn refused<C: Connector>(
    arrival: &Arrival<C>,
    records: Option<&Records>,
    server_name: Option<&str>,
    (flag, reason): (&'static str, &str),
) {
    let entry = entry(arrival, None);
    if let Some(records) = records.filter(|records| records.observes()) {
        let about = About {
            server_name: server_name.map(ToOwned::to_owned),
            peer: Some(arrival.client.identity.to_string()),
            ..About::default()
        };
        let facts = about.facts(&entry, records, arrival.started.elapsed());
        let refused = Facts {
            flags: flag,
            termination: Some(reason),
            ..facts
        };
        records.write(&refused, None);
    }
    denied("waypoint", entry.source, Some(entry.destination), reason);
}

impl About {
    fn facts<'a>(&'a self, entry: &Entry, records: &'a Records, took: Duration) -> Facts<'a> {
        let asked = self.asked.unwrap_or(entry.destination);
        Facts {
            started: SystemTime::now() - took,
            took,
            peer: self.peer.as_deref(),
            own: records.own(),
            server_name: self.server_name.as_deref(),
            upstream: self.endpoint.map(|endpoint| Upstream {
                address: Some(endpoint),
                local: None,
                cluster: None,
                failure: None,
            }),
            ..Facts::of_connection(entry.source, asked)
        }
    }
}

impl Account {
    /// Counts a connection as opened.
    pub(super) fn open<C: Connector>(
        arrival: &Arrival<C>,
        chosen: &Chosen,
        records: Option<Arc<Records>>,
        server_name: Option<&str>,
    ) -> Self {
        let entry = entry(arrival, Some(chosen));
        let about = match &records {
            Some(records) if records.observes() => About {
                asked: Some(arrival.bound.asked()),
                server_name: server_name.map(ToOwned::to_owned),
                endpoint: Some(chosen.address()),
                peer: entry.source_identity.as_ref().map(ToString::to_string),
            },
            _ => About::default(),
        };
        let changes = match &records {
            Some(records) => {
                let facts = about.facts(&entry, records, Duration::ZERO);
                records.changes(Some(&facts))
            }
            None => Changes::new(),
        };
        Self {
            series: arrival.shared.metrics.opened_as(labels(&entry), changes),
            counted: (0, 0),
            records,
            about,
            entry,
            traffic: Arc::default(),
            forth: Forth::ToServer,
            started: arrival.started,
            ended: false,
        }
    }

    /// It came to its end, in order or not.
    pub(super) fn closed(mut self, error: Option<String>) {
        let flag = if error.is_some() { "CONNECT" } else { "-" };
        self.end(flag, error);
    }

    /// The waypoint has cut it.
    pub(super) fn cut(mut self, flag: &'static str, reason: String) {
        self.end(flag, Some(reason));
    }

    /// It never worked.
    pub(super) fn failed(mut self, flag: &'static str, error: String) {
        self.series.failed(flag);
        // Envoy has one flag for all that keeps a connection from being made.
        let told = if flag == "UO" { flag } else { "UF" };
        self.write(told, Some(&error));
        self.log(Some(error));
    }

    /// Bytes to and from the client.
    fn totals(&self) -> (u64, u64) {
        let (forth, back) = self.traffic.totals();
        match self.forth {
            Forth::ToServer => (back, forth),
            Forth::ToClient => (forth, back),
        }
    }

    /// Counts what has moved since it was last asked.
    pub(super) fn progress(&mut self) {
        let (to_client, from_client) = self.uncounted();
        self.series.moved(to_client, from_client);
    }

    /// How often that is to be done.
    pub(super) fn interval(&self) -> Duration {
        let records = self.records.as_ref();
        records.map_or(INTERVAL, |records| records.interval())
    }

    fn uncounted(&mut self) -> (u64, u64) {
        let totals = self.totals();
        let before = std::mem::replace(&mut self.counted, totals);
        (totals.0 - before.0, totals.1 - before.1)
    }

    fn end(&mut self, flag: &'static str, error: Option<String>) {
        let (to_client, from_client) = self.uncounted();
        self.series.closed(flag, to_client, from_client);
        self.write(flag, error.as_deref());
        self.log(error);
    }

    /// Writes it to the logs that telemetry resources name.
    fn write(&self, flag: &'static str, error: Option<&str>) {
        let Some(records) = &self.records else {
            return;
        };
        let facts = self
            .about
            .facts(&self.entry, records, self.started.elapsed());
        let (sent, received) = self.totals();
        let failure = error.filter(|_| flag == "UF");
        let ended = Facts {
            upstream: facts.upstream.map(|asked| Upstream { failure, ..asked }),
            // What only ends is no failure in Envoy's terms.
            flags: if flag == "-" || flag == "CONNECT" {
                ""
            } else {
                flag
            },
            termination: error,
            received,
            sent,
            ..facts
        };
        records.write(&ended, None);
    }

    fn log(&mut self, error: Option<String>) {
        self.ended = true;
        let (to_client, from_client) = self.totals();
        self.entry.log(&Ending {
            sent: to_client,
            received: from_client,
            duration: self.started.elapsed(),
            error,
        });
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.ended {
            let cut = "cut: this waypoint is stopping, or the peer has fallen silent";
            self.end("-", Some(cut.to_owned()));
        }
    }
}
