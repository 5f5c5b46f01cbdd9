//! Certificates and TLS settings: who we are, whom we believe, and how a handshake proves it.
//!
//! [`svid`] holds a certificate with its key, [`request`] asks for one, [`trust`] is whom we believe, [`grace`] how long past its end,
//! [`verify`] judges a peer's, and [`config`] joins them into rustls configurations, [`named`] several into one, [`quic`] the same as QUIC has it. TLS 1.3 only, no resumption and
//! no early data anywhere (`spec/hbone-dataplane.md` §1.1); [`originate`] alone, which is for programs that are
//! no part of the mesh, also speaks 1.2. Pure: the network is the caller's.

pub mod config;
pub mod grace;
pub mod named;
pub mod originate;
pub mod proof;
pub mod quic;
pub mod request;
pub mod svid;
pub mod trust;
pub mod verify;

pub use config::{
    ServerSide, TlsError, control_client, control_server, hbone_client, hbone_server, join_client,
    named_client,
};
pub use grace::Grace;
pub use named::{Asked, NamedServer};
pub use proof::{reenrol_payload, sign_with, signed_by};
pub use quic::{Verdict, quic_client, quic_nobody};
pub use request::{Request, RequestError};
pub use svid::{
    Roots, Svid, SvidError, certificates_from_pem, not_after, pem, spki_sha256, to_pem, validity_of,
};
pub use trust::{Bundle, CertificateKey, Trust};
pub use verify::{PeerRefused, peer_identity};

#[cfg(test)]
pub(crate) mod testing;
