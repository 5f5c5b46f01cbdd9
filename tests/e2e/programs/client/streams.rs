//! What is said over TCP itself.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Tally;
use crate::programs::websocket;

/// Longest wait for what is to come.
const PATIENCE: Duration = Duration::from_secs(5);

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

/// Whose banner came how often, or what came instead; and the longest wait, in milliseconds.
pub(super) async fn banners(to: &str, count: usize) -> Value {
    let mut tally = Tally::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..count {
        let begun = Instant::now();
        let outcome = match in_time(banner(to)).await {
            Ok(line) if line.is_empty() => "closed".to_owned(),
            Ok(line) => line,
            Err(error) => error.kind().to_string(),
        };
        slowest = slowest.max(begun.elapsed());
        *tally.entry(outcome).or_default() += 1;
    }
    json!({ "by": tally, "slowest": slowest.as_millis() })
}

/// What the server says first, if it then says what it hears.
async fn banner(to: &str) -> io::Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(to).await?);
    let mut banner = String::new();
    if stream.read_line(&mut banner).await? == 0 {
        return Ok(banner);
    }
    stream.write_all(b"ping").await?;
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await?;
    match &heard {
        b"ping" => Ok(banner.trim_end().to_owned()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

pub(super) async fn websocket(to: &str) -> Value {
    let asked = in_time(async {
        let mut stream = TcpStream::connect(to).await?;
        let request = "GET /chat HTTP/1.1\r\nhost: echo\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let key = websocket::accepted(b"dGhlIHNhbXBsZSBub25jZQ==");
        if !head.contains(&key.to_ascii_lowercase()) {
            return Ok(json!({ "status": head }));
        }
        websocket::send(&mut stream, b"hello", true).await?;
        let text = websocket::receive(&mut stream).await?;
        Ok(json!({ "status": 101, "echoed": String::from_utf8_lossy(&text) }))
    });
    asked
        .await
        .unwrap_or_else(|e| json!({ "error": e.to_string() }))
}

/// What a TLS server says, whoever it is; `closed` where none answers.
pub(super) async fn tls(to: &str, sni: Option<String>) -> Value {
    let asked = in_time(async {
        let tcp = TcpStream::connect(to).await?;
        let name = sni.clone().unwrap_or_else(|| "anybody.example".to_owned());
        let name = ServerName::try_from(name).unwrap();
        let mut config = config();
        config.enable_sni = sni.is_some();
        let mut tls = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await?;
        let mut said = String::new();
        tls.read_to_string(&mut said).await?;
        Ok(said.trim_end().to_owned())
    });
    match asked.await {
        Ok(said) => json!(said),
        Err(e) if e.kind() == io::ErrorKind::TimedOut => json!("nothing in time"),
        Err(_closed) => json!("closed"),
    }
}

pub(super) fn config() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth()
}

/// Believes every certificate: these tests ask who was reached, not whether it may be.
#[derive(Debug)]
pub(super) struct Anybody(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
