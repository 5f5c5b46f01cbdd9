//! As much of WebSocket (RFC 6455) as shows that frames pass both ways.

use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::echo::{Body, empty};

/// The whole of a text, in one frame.
const TEXT: u8 = 0x81;
const MASK: [u8; 4] = [7, 77, 177, 27];

pub(super) fn is_asked_for(request: &Request<Incoming>) -> bool {
    let upgrade = request.headers().get(header::UPGRADE);
    upgrade.is_some_and(|token| token.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// What a server says to a client's key.
pub(super) fn accepted(key: &[u8]) -> String {
    let text = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &text);
    BASE64_STANDARD.encode(digest)
}

/// Sends texts back.
pub(super) fn accept(headers: &HeaderMap, upgrade: OnUpgrade) -> Response<Body> {
    #[allow(clippy::disallowed_methods, reason = "it ends with its connection")]
    tokio::spawn(async move {
        let Ok(stream) = upgrade.await else {
            return;
        };
        let mut stream = TokioIo::new(stream);
        while let Ok(text) = receive(&mut stream).await {
            if send(&mut stream, &text, false).await.is_err() {
                return;
            }
        }
    });
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.map(|key| accepted(key.as_bytes())).unwrap_or_default();
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, key)
        .body(empty())
        .unwrap()
}

/// Sends a short text; clients mask theirs.
pub(super) async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    text: &[u8],
    masked: bool,
) -> io::Result<()> {
    let length = u8::try_from(text.len()).unwrap();
    let mut frame = vec![TEXT, length | if masked { 0x80 } else { 0 }];
    if masked {
        frame.extend(MASK);
        frame.extend(text.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    } else {
        frame.extend(text);
    }
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// The next short text.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut text = vec![0; usize::from(head[1] & 0x7f)];
    stream.read_exact(&mut text).await?;
    let unmasked = text.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m);
    Ok(unmasked.collect())
}
