//! What is known of a request or a connection when it is told of.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::HeaderMap;

/// What logs, spans and labels are made of.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// When it began.
    pub started: SystemTime,
    /// How long it has taken.
    pub took: Duration,
    /// The client's address.
    pub source: SocketAddr,
    /// The address and port it asked for.
    pub destination: SocketAddr,
    /// The SPIFFE ID that the client has proven.
    pub peer: Option<&'a str>,
    /// The waypoint's own.
    pub own: Option<&'a str>,
    /// The server name it asked for in TLS inside the tunnel.
    pub server_name: Option<&'a str>,
    /// What was asked; none of a connection that is no HTTP.
    pub request: Option<Request<'a>>,
    /// What was answered; none where nobody did.
    pub response: Option<Response<'a>>,
    /// Response flags; empty where all went well.
    pub flags: &'a str,
    /// Why the waypoint answered by itself, or `via_upstream`.
    pub details: Option<&'a str>,
    /// Why the connection was ended.
    pub termination: Option<&'a str>,
    /// Whom it went to.
    pub upstream: Option<Upstream<'a>>,
    /// The rule that took it.
    pub route: Option<&'a str>,
    /// Bytes from the client: of a request's body, or of the connection.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path with its query.
    pub target: &'a str,
    /// Its host.
    pub authority: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `HTTP/1.1` and the like.
    pub protocol: &'a str,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// Bytes of its head.
    pub head: u64,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response<'a> {
    /// Its status.
    pub code: u16,
    /// The status of gRPC, where it has one.
    pub grpc_status: Option<u16>,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// The fields after its body.
    pub trailers: Option<&'a HeaderMap>,
    /// Bytes of its head.
    pub head: u64,
}

/// An endpoint that was asked.
#[derive(Clone, Debug)]
pub struct Upstream<'a> {
    /// Its address.
    pub address: Option<SocketAddr>,
    /// Where the waypoint connected from.
    pub local: Option<SocketAddr>,
    /// The backend in Istio's terms, as in `outbound|80||cart.shop.mesh.internal`.
    pub cluster: Option<&'a str>,
    /// Why no way to it could be opened.
    pub failure: Option<&'a str>,
}

impl Facts<'_> {
    /// What little is known of a connection that has just come, between these addresses.
    pub fn of_connection(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            started: SystemTime::UNIX_EPOCH,
            took: Duration::ZERO,
            source,
            destination,
            peer: None,
            own: None,
            server_name: None,
            request: None,
            response: None,
            flags: "",
            details: None,
            termination: None,
            upstream: None,
            route: None,
            received: 0,
            sent: 0,
        }
    }
}

impl Request<'_> {
    /// Its path without the query, and the query.
    pub fn path_and_query(&self) -> (&str, Option<&str>) {
        match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target, None),
        }
    }
}
