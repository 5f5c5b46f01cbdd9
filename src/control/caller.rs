//! Who is calling.

use std::net::SocketAddr;
use std::sync::Arc;

/// The peer of an RPC, put into the request's extensions by whoever accepted its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The node its certificate names; none when it presented none.
    pub node: Option<Arc<str>>,
    /// Where it calls from.
    pub address: SocketAddr,
}
