//! One line per finished connection, in ztunnel's fields and order (`spec/hbone-dataplane.md` §8).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::identity::SpiffeId;
use crate::model::service::Service;
use crate::model::workload::Workload;

/// What is known of a connection when it has ended.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `inbound` or `outbound`.
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
    /// Bytes the log calls sent: from the client for outbound, to it for inbound.
    pub sent: u64,
    /// Bytes the other way.
    pub received: u64,
    /// From accept to end.
    pub duration: Duration,
    /// The whole chain of causes, when it failed.
    pub error: Option<String>,
}

impl Entry {
    /// Writes the line.
    pub fn log(&self, ending: &Ending) {
        let name = |w: &Option<Arc<Workload>>| w.as_ref().map(|w| w.name.to_string());
        let namespace = |w: &Option<Arc<Workload>>| w.as_ref().map(|w| w.namespace.to_string());
        let duration = format!("{}ms", ending.duration.as_millis());
        let src_workload = name(&self.source_workload);
        let src_namespace = namespace(&self.source_workload);
        let src_identity = self.source_identity.as_ref().map(ToString::to_string);
        let dst_service = self.service.as_ref().map(|s| s.key.hostname.to_string());
        let dst_workload = name(&self.destination_workload);
        let dst_namespace = namespace(&self.destination_workload);
        let dst_identity = self.destination_identity.as_ref().map(ToString::to_string);
        macro_rules! line {
            ($level:ident $(, $field:ident = $value:expr)*) => {
                $level!(
                    target: "access",
                    {
                    src.addr = %self.source,
                    src.workload = src_workload,
                    src.namespace = src_namespace,
                    src.identity = src_identity,
                    dst.addr = %self.destination,
                    dst.hbone_addr = self.tunnelled,
                    dst.service = dst_service,
                    dst.workload = dst_workload,
                    dst.namespace = dst_namespace,
                    dst.identity = dst_identity,
                    direction = self.direction,
                    bytes_sent = ending.sent,
                    bytes_recv = ending.received,
                    duration,
                    $($field = $value,)*
                    },
                    "connection complete"
                )
            };
        }
        match &ending.error {
            None => line!(info),
            Some(reason) => line!(error, error = reason.as_str()),
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
        target: "access",
        {
            src.addr = %source,
            dst.addr = dst,
            direction,
            error = reason,
        },
        "connection failed"
    );
}

/// An error with its causes, outermost first, joined by colons.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // A wrapper that only repeats its cause adds nothing.
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
