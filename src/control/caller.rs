//! Who is calling.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tonic::{Code, Request, Status};

use crate::identity::SpiffeId;
use crate::tls::CertificateKey;

/// The peer of an RPC, put into the request's extensions by whoever accepted its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The node its certificate names; none when it presented none.
    pub node: Option<Arc<str>>,
    /// The control plane its certificate names.
    pub control: Option<Arc<str>>,
    /// The node its bearer token names; none when it sent none.
    pub bearer: Option<Arc<str>>,
    /// SHA-256 of the key in that certificate.
    pub spki: Option<[u8; 32]>,
    /// When that certificate was made, dated back as it is.
    pub made: Option<SystemTime>,
    /// The id of its bearer token.
    pub bearer_id: Option<Arc<str>>,
    /// Names that certificate among all.
    pub certificate: Option<CertificateKey>,
    /// That certificate has been taken back.
    pub revoked: bool,
    /// When the first of the credentials it showed ends; none when that is not known.
    pub expires: Option<SystemTime>,
    /// Where it calls from.
    pub address: SocketAddr,
    /// Why what it shows, sound as it is, is not taken here.
    pub refused: Option<(Code, Arc<str>)>,
}

impl Caller {
    /// The caller behind a connection from `address` whose certificate proved `identity`.
    pub fn new(identity: Option<&SpiffeId>, spki: Option<[u8; 32]>, address: SocketAddr) -> Self {
        let (node, control) = match identity {
            Some(SpiffeId::Node { name, .. }) => (Some(Arc::clone(name)), None),
            Some(SpiffeId::Control { name, .. }) => (None, Some(Arc::clone(name))),
            Some(SpiffeId::Workload { .. }) | None => (None, None),
        };
        Self {
            node,
            control,
            bearer: None,
            spki,
            made: None,
            bearer_id: None,
            certificate: None,
            revoked: false,
            expires: None,
            address,
            refused: None,
        }
    }

    /// A credential of it ends at `end`.
    pub fn until(&mut self, end: SystemTime) {
        self.expires = Some(self.expires.map_or(end, |known| known.min(end)));
    }

    /// The node that calls, by certificate or token.
    ///
    /// # Errors
    /// UNAUTHENTICATED for a caller that shows neither, PERMISSION_DENIED for one that is refused.
    pub fn named(&self) -> Result<&Arc<str>, Status> {
        self.taken()?;
        let named = self.node.as_ref().or(self.bearer.as_ref());
        named.ok_or_else(|| {
            Status::unauthenticated(
                "this takes a node certificate or a bearer token; run lateen join, or lateen token node for a stock proxy",
            )
        })
    }

    /// The control plane that calls, where it is one.
    ///
    /// # Errors
    /// PERMISSION_DENIED for one that is refused.
    pub fn control(&self) -> Result<Option<&Arc<str>>, Status> {
        self.taken()?;
        Ok(self.control.as_ref())
    }

    fn taken(&self) -> Result<(), Status> {
        match &self.refused {
            Some((code, reason)) => Err(Status::new(*code, &**reason)),
            None => Ok(()),
        }
    }

    /// Who sent a request.
    ///
    /// # Errors
    /// INTERNAL when the request came by no listener of ours.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        Self::known(request.extensions().get::<Self>().cloned())
    }

    /// As [`Caller::of`], of what a request's extensions hold.
    ///
    /// # Errors
    /// As [`Caller::of`].
    pub fn known(caller: Option<Self>) -> Result<Self, Status> {
        caller.ok_or_else(|| Status::internal("the caller of this request is not known"))
    }

    /// The node that calls, by certificate.
    ///
    /// # Errors
    /// UNAUTHENTICATED for a caller without a node certificate, PERMISSION_DENIED for one that is
    /// refused.
    pub fn node(&self) -> Result<&Arc<str>, Status> {
        self.taken()?;
        self.presented()
    }

    /// The node that its certificate names, though it may have been replaced since.
    ///
    /// # Errors
    /// UNAUTHENTICATED for a caller without a node certificate, PERMISSION_DENIED for one that was
    /// taken back.
    pub fn presented(&self) -> Result<&Arc<str>, Status> {
        if self.revoked {
            self.taken()?;
        }
        let node = self.node.as_ref();
        node.ok_or_else(|| {
            Status::unauthenticated("this takes a node certificate; run lateen join")
        })
    }
}
