//! One line per finished connection, in ztunnel's fields and order (`spec/hbone-dataplane.md` §8).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{Level, enabled, warn};

use super::Carrier;
use super::log::{self, Line};
use crate::identity::SpiffeId;
use crate::model::service::Service;
use crate::model::workload::Workload;

/// What is known of a connection when it has ended.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `inbound`, `outbound` or, at a waypoint, `waypoint`.
    pub direction: &'static str,
    /// The client's address.
    pub source: SocketAddr,
    /// The client, when the mesh knows it.
    pub source_workload: Option<Arc<Workload>>,
    /// Who the client proved to be.
    pub source_identity: Option<SpiffeId>,
    /// Where the connection went on the wire.
    pub destination: SocketAddr,
    /// The target inside the tunnel.
    pub tunnelled: Option<String>,
    /// By what the tunnel goes, once that is known; at a waypoint the one by which the connection came.
    pub carrier: Carrier,
    /// The service addressed.
    pub service: Option<Arc<Service>>,
    /// The server, when the mesh knows it.
    pub destination_workload: Option<Arc<Workload>>,
    /// Who the server proved to be.
    pub destination_identity: Option<SpiffeId>,
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Bytes the log calls sent: from the client for outbound, to it otherwise.
    pub sent: u64,
    /// Bytes the other way.
    pub received: u64,
    /// From accept to end.
    pub duration: Duration,
    /// The whole chain of causes, when it failed.
    pub error: Option<String>,
}

/// What the log's filter knows these lines by.
const TARGET: &str = "access";

impl Entry {
    /// Writes the line, if the log's filter wants it.
    pub fn log(&self, ending: &Ending) {
        let level = match ending.error {
            None if enabled!(target: TARGET, Level::INFO) => Level::INFO,
            Some(_) if enabled!(target: TARGET, Level::ERROR) => Level::ERROR,
            _ => return,
        };
        log::write(level, TARGET, "connection complete", |line| {
            self.fields(ending, line);
        });
    }

    /// Tells all there is to tell.
    pub fn fields(&self, ending: &Ending, line: &mut Line<'_>) {
        self.ends(line);
        let duration = ending.duration.as_millis();
        line.text("direction", self.direction)
            .number("bytes_sent", ending.sent)
            .number("bytes_recv", ending.received)
            .quoted("duration", &format_args!("{duration}ms"));
        if let Some(reason) = &ending.error {
            line.text("error", reason);
        }
    }

    /// Tells from whom to whom.
    pub fn ends(&self, line: &mut Line<'_>) {
        let (src, dst) = (&self.source_workload, &self.destination_workload);
        line.bare("src.addr", &self.source);
        if let Some(workload) = src {
            line.text("src.workload", &workload.name)
                .text("src.namespace", &workload.namespace);
        }
        if let Some(identity) = &self.source_identity {
            line.quoted("src.identity", identity);
        }
        line.bare("dst.addr", &self.destination);
        if let Some(target) = &self.tunnelled {
            line.text("dst.hbone_addr", target);
        }
        if self.carrier != Carrier::none {
            line.text("transport", self.carrier.as_str());
        }
        if let Some(service) = &self.service {
            line.text("dst.service", &service.key.hostname);
        }
        if let Some(workload) = dst {
            line.text("dst.workload", &workload.name)
                .text("dst.namespace", &workload.namespace);
        }
        if let Some(identity) = &self.destination_identity {
            line.quoted("dst.identity", identity);
        }
    }
}

/// A connection that was turned away before anything was known of it.
pub fn denied(
    direction: &'static str,
    source: SocketAddr,
    destination: Option<SocketAddr>,
    reason: &str,
) {
    let dst = destination.map(|d| d.to_string());
    warn!(
        target: TARGET,
        {
            src.addr = %source,
            dst.addr = dst,
            direction,
            error = reason,
        },
        "connection failed"
    );
}
