//! The client's end.

use std::sync::Arc;

use futures::FutureExt as _;
use quinn::ClientConfig;
use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::CertificateDer;

use super::{Endpoint, Http3Line, QuicError};
use crate::h3;
use crate::hbone::Limits;
use crate::hbone::connect::{DialError, Dialled, Hop, Line, proven, stands};
use crate::tls::{self, PeerRefused, Verdict};

/// Connects to a hop and proves both identities.
pub(in crate::hbone) async fn dial(
    endpoint: &Endpoint,
    hop: &Hop,
    limits: &Limits,
) -> Result<Dialled, DialError> {
    let to = hop.to;
    match tokio::time::timeout(limits.quic_handshake, handshake(endpoint, hop)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(DialError::QuicTimeout { to }),
    }
}

async fn handshake(endpoint: &Endpoint, hop: &Hop) -> Result<Dialled, DialError> {
    stands(hop)?;
    let (tls, verdict) = tls::quic_client(&hop.svid, Arc::clone(&hop.accepted))?;
    let begun = connected(endpoint, hop, tls).await;
    let quic = begun.map_err(|source| failed(hop, &verdict, source))?;
    let (client, driver) = h3::client(quic.clone(), h3::Config::default());
    let mut driving = driver.run().boxed();
    // Until the peer speaks, it may still turn us away: it judges our certificate after we are done.
    let ready = tokio::select! {
        ready = client.ready() => ready,
        ended = &mut driving => Err(ended.err().unwrap_or(h3::Ended::Here)),
    };
    ready.map_err(|source| failed(hop, &verdict, source.into()))?;
    let leaf = leaf(&quic);
    proven(
        hop,
        leaf.as_ref(),
        Line::Http3(Http3Line {
            client,
            quic,
            driving,
        }),
    )
}

async fn connected(
    endpoint: &Endpoint,
    hop: &Hop,
    tls: rustls::ClientConfig,
) -> Result<quinn::Connection, QuicError> {
    let tls = QuicClientConfig::try_from(tls)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(endpoint.ways.transport(hop.to));
    let name = hop.server_name().to_str().into_owned();
    let connecting = endpoint.quic.connect_with(config, hop.to, &name)?;
    Ok(connecting.await?)
}

fn failed(hop: &Hop, verdict: &Verdict, source: QuicError) -> DialError {
    let to = hop.to;
    let refusal = verdict.refusal().and_then(PeerRefused::of).cloned();
    match (refusal, source) {
        (Some(source), _) => DialError::Identity { to, source },
        (None, QuicError::Handshake(quinn::ConnectionError::TimedOut)) => {
            DialError::QuicTimeout { to }
        }
        (None, source) => DialError::Quic { to, source },
    }
}

/// The certificate that a peer has shown.
pub(super) fn leaf(quic: &quinn::Connection) -> Option<CertificateDer<'static>> {
    let shown = quic.peer_identity()?;
    let chain = shown.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.first().cloned()
}
