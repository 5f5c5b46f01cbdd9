//! Who is calling.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tonic::{Request, Status};

use crate::identity::SpiffeId;

/// The peer of an RPC, put into the request's extensions by whoever accepted its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The node its certificate names; none when it presented none.
    pub node: Option<Arc<str>>,
    /// The node its bearer token names; none when it sent none.
    pub bearer: Option<Arc<str>>,
    /// SHA-256 of the key in that certificate.
    pub spki: Option<[u8; 32]>,
    /// When the first of the credentials it showed ends; none when that is not known.
    pub expires: Option<SystemTime>,
    /// Where it calls from.
    pub address: SocketAddr,
}

impl Caller {
    /// The caller behind a connection from `address` whose certificate proved `identity`.
    pub fn new(identity: Option<&SpiffeId>, spki: Option<[u8; 32]>, address: SocketAddr) -> Self {
        let node = match identity {
            Some(SpiffeId::Node { name, .. }) => Some(Arc::clone(name)),
            _ => None,
        };
        Self {
            node,
            bearer: None,
            spki,
            expires: None,
            address,
        }
    }

    /// A credential of it ends at `end`.
    pub fn until(&mut self, end: SystemTime) {
        self.expires = Some(self.expires.map_or(end, |known| known.min(end)));
    }

    /// The node that calls, by certificate or token.
    pub fn named(&self) -> Option<&Arc<str>> {
        self.node.as_ref().or(self.bearer.as_ref())
    }

    /// Who sent a request.
    ///
    /// # Errors
    /// INTERNAL when the request came by no listener of ours.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().cloned();
        caller.ok_or_else(|| Status::internal("the caller of this request is not known"))
    }

    /// The node that calls.
    ///
    /// # Errors
    /// UNAUTHENTICATED for a caller without a node certificate.
    pub fn node(&self) -> Result<&Arc<str>, Status> {
        let node = self.node.as_ref();
        node.ok_or_else(|| {
            Status::unauthenticated("this takes a node certificate; run lateen join")
        })
    }
}
