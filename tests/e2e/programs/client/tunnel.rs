//! What a node proxy says to a waypoint, and what it would not say.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::streams::Anybody;

const PATIENCE: Duration = Duration::from_secs(5);

/// A request on the outer connection to a waypoint.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Tunnel {
    pub(crate) waypoint: String,
    pub(crate) method: String,
    /// The authority of a CONNECT, the whole URI of anything else.
    pub(crate) target: String,
    /// Chain and key, in PEM.
    pub(crate) certificate: Option<(String, String)>,
    /// Instead of TLS 1.3.
    pub(crate) older: bool,
    /// What is said through it, before something is heard; nothing where it is empty.
    pub(crate) says: String,
}

impl Tunnel {
    /// The status, or that there was none.
    pub(super) async fn tried(self) -> Value {
        match tokio::time::timeout(PATIENCE, self.status()).await {
            Ok(Ok(status)) => json!(status),
            Ok(Err(error)) => json!(error.to_string()),
            Err(_elapsed) => json!("nothing in time"),
        }
    }

    async fn status(self) -> Result<String, Box<dyn Error>> {
        let tcp = TcpStream::connect(&self.waypoint).await?;
        let name = ServerName::try_from("waypoint.example")?;
        let connector = TlsConnector::from(Arc::new(self.config()?));
        let Ok(tls) = connector.connect(name, tcp).await else {
            return Ok("handshake failed".to_owned());
        };
        // In TLS 1.3 a server refuses a client once the client has said all it has to say.
        let Ok((sender, connection)) = h2::client::handshake(tls).await else {
            return Ok("handshake failed".to_owned());
        };
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ended = connection.await;
        });
        let Ok(mut sender) = sender.ready().await else {
            return Ok("handshake failed".to_owned());
        };
        let method: Method = self.method.parse()?;
        let uri: Uri = self.target.parse()?;
        let request = Request::builder().method(method).uri(uri).body(())?;
        let (response, mut out) = sender.send_request(request, false)?;
        match response.await {
            Ok(response) => {
                let status = response.status().as_u16().to_string();
                if !self.says.is_empty() {
                    out.send_data(Bytes::from(self.says), false)?;
                    let heard = response.into_body().data().await;
                    heard.ok_or("nothing is heard")??;
                }
                Ok(status)
            }
            Err(error) if error.is_reset() => Ok(error.to_string()),
            Err(_closed) => Ok("handshake failed".to_owned()),
        }
    }

    fn config(&self) -> Result<ClientConfig, Box<dyn Error>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let version = match self.older {
            true => &rustls::version::TLS12,
            false => &rustls::version::TLS13,
        };
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
        let mut config = match &self.certificate {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let chain: Result<Vec<CertificateDer<'static>>, _> =
                    CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
                config.with_client_auth_cert(chain?, key)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}
