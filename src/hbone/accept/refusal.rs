//! Why a peer on the HBONE port was turned away, by reason, so that one log line says it. The texts
//! of a kind begin alike, for those who search logs.

use std::io;

use quinn::crypto::rustls::NoInitialCipherSuite;
use rustls::{CertificateError, PeerIncompatible};

use crate::identity::SpiffeId;
use crate::tls::{PeerRefused, TlsError};

/// Why a connection on the HBONE port came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The peer presented no certificate.
    #[error("the peer presented no certificate")]
    NoCertificate {
        /// What the TLS stack said.
        #[source]
        source: rustls::Error,
    },
    /// The peer's certificate is sound but not of anyone let in here: of another trust domain, or
    /// of no workload.
    #[error(transparent)]
    Peer(PeerRefused),
    /// The peer's certificate is out of date: expired, or not yet valid by our clock.
    #[error("the peer's certificate is refused: it is out of date by our clock")]
    OutOfDate {
        /// What the TLS stack said.
        #[source]
        source: rustls::Error,
    },
    /// The peer's certificate has been revoked.
    #[error("the peer's certificate is refused: it has been revoked")]
    Revoked {
        /// What the TLS stack said.
        #[source]
        source: rustls::Error,
    },
    /// The peer's certificate leads to no root of ours.
    #[error("the peer's certificate is refused: it is of no authority trusted here")]
    Untrusted {
        /// What the TLS stack said.
        #[source]
        source: rustls::Error,
    },
    /// The peer's certificate is refused for another reason.
    #[error("the peer's certificate is refused")]
    Certificate {
        /// What the TLS stack said.
        #[source]
        source: rustls::Error,
    },
    /// The peer speaks no TLS 1.3.
    #[error("TLS handshake failed: the peer offers no TLS 1.3")]
    Version {
        /// What the TLS stack said.
        #[source]
        source: rustls::Error,
    },
    /// The peer offers other protocols than HTTP/2.
    #[error("TLS handshake failed: the peer does not offer HTTP/2 (ALPN h2)")]
    Alpn {
        /// What the TLS stack said.
        #[source]
        source: rustls::Error,
    },
    /// The peer turned us away: it believes our certificate as little as these believe theirs.
    #[error("TLS handshake failed: the peer turned us away")]
    ByPeer {
        /// What the TLS stack said.
        #[source]
        source: rustls::Error,
    },
    /// The handshake failed otherwise; no TLS at all, perhaps.
    #[error("TLS handshake failed")]
    Tls {
        /// What the TLS stack or the kernel said.
        #[source]
        source: io::Error,
    },
    /// The peer's certificate was revoked while its connection was open.
    #[error("the peer's certificate has been revoked, its tunnels are cut")]
    Cut {
        /// Who it had proven to be.
        peer: Option<SpiffeId>,
    },
    /// No tunnel was asked for in time.
    #[error("no handshake and CONNECT within the deadline")]
    Timeout,
    /// QUIC's handshake failed, or the peer turned us away in it.
    #[error("QUIC handshake failed")]
    Quic {
        /// What QUIC said.
        #[source]
        source: quinn::ConnectionError,
    },
    /// The certificate at hand does not do for QUIC.
    #[error("unusable certificate")]
    Settings(#[source] TlsError),
    /// The TLS stack's settings do not.
    #[error("the TLS settings do not do for QUIC")]
    QuicSettings {
        /// Why not.
        #[source]
        source: NoInitialCipherSuite,
    },
    /// HTTP/2 broke.
    #[error("HTTP/2 failed")]
    Http2 {
        /// What it said.
        #[source]
        source: h2::Error,
    },
}

impl AcceptError {
    pub(super) fn of_handshake(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|e| e.downcast_ref());
        match inner.cloned() {
            Some(source) => Self::of_tls(source),
            None => Self::Tls { source: error },
        }
    }

    pub(in crate::hbone) fn of_tls(source: rustls::Error) -> Self {
        if let Some(refused) = PeerRefused::of(&source) {
            return Self::Peer(refused.clone());
        }
        match &source {
            rustls::Error::NoCertificatesPresented => Self::NoCertificate { source },
            rustls::Error::NoApplicationProtocol => Self::Alpn { source },
            rustls::Error::AlertReceived(_) => Self::ByPeer { source },
            rustls::Error::InvalidCertificate(reason) => match reason {
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::OutOfDate { source },
                CertificateError::Revoked => Self::Revoked { source },
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Self::Untrusted { source }
                }
                _ => Self::Certificate { source },
            },
            rustls::Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            ) => Self::Version { source },
            _ => Self::Tls {
                source: io::Error::new(io::ErrorKind::InvalidData, source),
            },
        }
    }
}
