//! One connection's account: counted, and told of once when it ends, however it ends.

use std::sync::Arc;
use std::time::Instant;

use super::Arrival;
use super::upstream::Chosen;
use crate::hbone::{Connector, Traffic};
use crate::telemetry::access_log::{Ending, Entry};
use crate::telemetry::{ConnectionLabels, Reporter, Series};

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
    ended: bool,
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
    );
    match (&entry.source_identity, &entry.destination_identity) {
        (Some(source), Some(destination)) => labels.secured(source, destination),
        _ => labels,
    }
}

impl Account {
    /// Counts a connection as opened.
    pub(super) fn open<C: Connector>(arrival: &Arrival<C>, chosen: &Chosen) -> Self {
        let entry = entry(arrival, Some(chosen));
        Self {
            series: arrival.shared.metrics.opened(labels(&entry)),
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

    fn end(&mut self, flag: &'static str, error: Option<String>) {
        let (to_client, from_client) = self.totals();
        self.series.closed(flag, to_client, from_client);
        self.log(error);
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
