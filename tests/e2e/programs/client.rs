//! Clients for what curl cannot do, or not often enough: told what to do line by line, they answer
//! with a line of JSON.

mod calls;
mod quic;
mod raw;
mod requests;
mod streams;
mod tunnel;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use raw::Raw;
pub(crate) use requests::{Load, Many};
pub(crate) use tunnel::Tunnel;

/// What happened how often.
pub(crate) type Tally = BTreeMap<String, usize>;

/// One thing to do.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Order {
    /// The same request many times.
    Many(Many),
    /// Requests at a steady rate.
    Load(Load),
    /// A WebSocket with a text there and back; over HTTP/2 or 1.1.
    WebSocket { to: String, over_h2: bool },
    /// A call with so many messages, each sent once the one before is answered.
    Call {
        to: String,
        path: String,
        headers: Vec<(String, String)>,
        messages: usize,
    },
    /// Connections on which the server speaks first, one after the other.
    Banner { to: String, count: usize },
    /// A TLS connection for a server name.
    Tls { to: String, sni: Option<String> },
    /// So many bytes of a server of HTTP/3.
    Download { to: String, length: u32 },
    /// Connections over QUIC that are begun oddly, or by nobody who goes on.
    Begin { to: String },
    /// Bytes as they are.
    Raw(Raw),
    /// Something said to a tunnel's end.
    Tunnel(Tunnel),
}

pub(super) async fn carry_out(order: Order) -> Value {
    match order {
        Order::Many(many) => json!(many.tally().await),
        Order::Load(load) => json!(load.tally().await),
        Order::WebSocket { to, over_h2: true } => calls::websocket(&to).await,
        Order::WebSocket { to, over_h2: false } => streams::websocket(&to).await,
        Order::Call {
            to,
            path,
            headers,
            messages,
        } => calls::call(&to, &path, &headers, messages).await,
        Order::Banner { to, count } => streams::banners(&to, count).await,
        Order::Tls { to, sni } => streams::tls(&to, sni).await,
        Order::Download { to, length } => quic::download(&to, length).await,
        Order::Begin { to } => quic::begin(&to).await,
        Order::Raw(raw) => raw.answers().await,
        Order::Tunnel(tunnel) => tunnel.tried().await,
    }
}
