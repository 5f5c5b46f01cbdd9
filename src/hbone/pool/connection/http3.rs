//! One of HTTP/3 over QUIC.

use std::fmt;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use tracing::debug;

use super::Answer;
use crate::h3;
use crate::hbone::connect::{ConnectError, ConnectRequest, DialError, fields};
use crate::hbone::quic::Http3Line;
use crate::hbone::tunnel::{self, Carrier};

pub(super) struct Streams {
    client: h3::Client,
}

pub(super) struct Moves {
    driving: BoxFuture<'static, Result<(), h3::Ended>>,
}

pub(super) fn part(line: Http3Line) -> (Streams, Moves) {
    let Http3Line { client, driving } = line;
    (Streams { client }, Moves { driving })
}

impl Streams {
    pub(super) fn usable(&self) -> bool {
        self.client.is_usable()
    }

    pub(super) async fn exchange(&self, asked: &ConnectRequest) -> Result<Answer, ConnectError> {
        let mut request = h3::Request::connect(asked.authority.to_string());
        request.headers = fields(asked);
        let (response, stream) = match self.client.connect(&request).await {
            Ok(answered) => answered,
            Err(h3::RequestError::Refused(response)) => {
                let status = response.status;
                return Err(ConnectError::Refused { status });
            }
            Err(source) => return Err(ConnectError::Http3 { source }),
        };
        Ok(Answer {
            status: response.status,
            headers: response.headers,
            stream: Carrier::Http3(tunnel::Http3::new(stream)),
        })
    }
}

impl Drop for Streams {
    /// Nobody can ask for another: the connection closes with its last stream.
    fn drop(&mut self) {
        self.client.leave();
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Streams")
    }
}

impl Moves {
    /// The peer has answered before: its SETTINGS have come.
    pub(super) async fn run(self, to: SocketAddr) -> Option<DialError> {
        if let Err(error) = self.driving.await {
            debug!(dst.addr = %to, %error, "tunnel connection broke or fell silent");
        }
        None
    }
}
