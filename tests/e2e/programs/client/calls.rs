//! What is said over HTTP/2 from its first byte: calls, and WebSockets (RFC 8441).

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{self, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, header};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::programs::{grpc, websocket};

const PATIENCE: Duration = Duration::from_secs(10);

type Failed = Box<dyn Error>;

/// Its driver ends with it.
struct Connection {
    sender: SendRequest<Bytes>,
    _driver: JoinSet<()>,
}

async fn open(to: &str) -> Result<Connection, Failed> {
    let (sender, mut connection) = client::handshake(TcpStream::connect(to).await?).await?;
    // What the server can do is known with its settings, which come with its first word.
    let pong = connection.ping_pong();
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        let _ended = connection.await;
    });
    if let Some(mut pong) = pong {
        pong.ping(h2::Ping::opaque()).await?;
    }
    Ok(Connection {
        sender: sender.ready().await?,
        _driver: driver,
    })
}

/// Ends by itself, with what went wrong.
async fn told(work: impl Future<Output = Result<Value, Failed>>) -> Value {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => json!({ "error": error.to_string() }),
        Err(_elapsed) => json!({ "error": "nothing came in time" }),
    }
}

pub(super) async fn call(
    to: &str,
    path: &str,
    headers: &[(String, String)],
    messages: usize,
) -> Value {
    told(async {
        let mut connection = open(to).await?;
        let mut request = Request::post(format!("http://echo{path}"))
            .header(header::CONTENT_TYPE, grpc::CONTENT_TYPE)
            .header(header::TE, "trailers");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let (response, mut out) = connection.sender.send_request(request.body(())?, false)?;
        // Some servers answer once they have a message, others before.
        out.send_data(grpc::message("0"), messages == 1)?;
        let (head, mut body) = response.await?.into_parts();
        let told = converse(&mut out, &mut body, messages).await?;
        let trailers = body.trailers().await?.unwrap_or_default();
        let field = |name| field(&head.headers, name).or_else(|| field(&trailers, name));
        Ok(json!({
            "status": head.status.as_u16(),
            "grpc-status": field("grpc-status"),
            "grpc-message": field("grpc-message"),
            "trailers": !trailers.is_empty(),
            "headers": head.headers.iter()
                .map(|(n, v)| json!([n.as_str(), String::from_utf8_lossy(v.as_bytes())]))
                .collect::<Vec<_>>(),
            "answers": told,
        }))
    })
    .await
}

/// Sends each further message once the one before is answered.
async fn converse(
    out: &mut SendStream<Bytes>,
    body: &mut RecvStream,
    messages: usize,
) -> Result<Vec<Value>, Failed> {
    let mut answers = Vec::new();
    let mut received = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        received.extend_from_slice(&data);
        while let Some(answer) = grpc::take(&mut received) {
            answers.push(serde_json::from_slice(&answer)?);
            if answers.len() < messages {
                let text = answers.len().to_string();
                out.send_data(grpc::message(&text), answers.len() + 1 == messages)?;
            }
        }
    }
    Ok(answers)
}

fn field(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

pub(super) async fn websocket(to: &str) -> Value {
    told(async {
        let mut connection = open(to).await?;
        let request = Request::connect("http://echo/chat")
            .header("sec-websocket-version", "13")
            .extension(h2::ext::Protocol::from_static("websocket"));
        let (response, mut out) = connection.sender.send_request(request.body(())?, false)?;
        let (head, mut body) = response.await?.into_parts();
        let status = head.status.as_u16();
        if status != 200 {
            return Ok(json!({ "status": status }));
        }
        let mut frame = Vec::new();
        websocket::send(&mut frame, b"hello", true).await?;
        out.send_data(frame.into(), false)?;
        let mut received = Vec::new();
        let text = loop {
            let data = body.data().await.ok_or("it ended")??;
            received.extend_from_slice(&data);
            if let Ok(text) = websocket::receive(&mut &*received).await {
                break text;
            }
        };
        Ok(json!({ "status": status, "echoed": String::from_utf8(text)? }))
    })
    .await
}
