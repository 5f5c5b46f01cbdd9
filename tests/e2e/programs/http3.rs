//! A server of HTTP/3, by crates that are others'.

use std::net::Ipv6Addr;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, Incoming, ServerConfig};
use rustls::pki_types::PrivateKeyDer;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// What is spoken over its QUIC.
pub(super) const ALPN: &[u8] = b"h3";

/// Answers `/N` with N bytes.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Http3 {
    pub(crate) port: u16,
}

impl Http3 {
    pub(super) async fn serve(self) {
        let at = (Ipv6Addr::UNSPECIFIED, self.port).into();
        let endpoint = Endpoint::server(config(), at).unwrap();
        let mut connections = JoinSet::new();
        while let Some(incoming) = endpoint.accept().await {
            connections.spawn(converse(incoming));
        }
    }
}

/// Anybody's certificate, as of the servers over TCP.
fn config() -> ServerConfig {
    let made = rcgen::generate_simple_self_signed(vec!["files.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let config = QuicServerConfig::try_from(config).unwrap();
    ServerConfig::with_crypto(Arc::new(config))
}

/// `None` when the client is gone, or has asked for something else.
async fn converse(incoming: Incoming) -> Option<()> {
    let quic = h3_quinn::Connection::new(incoming.await.ok()?);
    let mut server = h3::server::Connection::<_, Bytes>::new(quic).await.ok()?;
    while let Ok(Some(resolver)) = server.accept().await {
        let (request, mut stream) = resolver.resolve_request().await.ok()?;
        let length = request.uri().path().strip_prefix('/')?.parse().ok()?;
        stream.send_response(Response::new(())).await.ok()?;
        stream.send_data(body(length)).await.ok()?;
        stream.finish().await.ok()?;
    }
    Some(())
}

/// So many bytes, of which no part is like another.
pub(crate) fn body(length: u32) -> Bytes {
    let byte = |n: u32| (n.wrapping_mul(0x9e37_79b1) >> 11) as u8;
    (0..length).map(byte).collect()
}
