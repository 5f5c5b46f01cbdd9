//! Makes requests.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use quinn::Connection;

use super::driver::Driver;
use super::error::{Code, Ended, Fault, RequestError, StreamError};
use super::head::{HeadError, Request, Response};
use super::message::{self, SectionError};
use super::settings::Settings;
use super::shared::{Live, Shared, Status, lock};
use super::stream::{Inner, Stream};
use super::{Config, frame};

/// Interim responses to one request, of which nobody needs any.
const INTERIM: usize = 16;

/// Speaks HTTP/3 over a connection that we have opened. The driver is to be run; the client may be
/// cloned, and all clones dropped without harm to the streams.
pub fn client(quic: Connection, config: Config) -> (Client, Driver) {
    let shared = Shared::new(quic, config);
    let driver = Driver::new(Arc::clone(&shared));
    (Client { shared }, driver)
}

/// Makes requests on one connection.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Waits until the connection can be used: the peer's SETTINGS have come, and so it has taken
    /// our certificate. For how long is for the caller to bound.
    ///
    /// # Errors
    /// [`Ended`] if the connection is over, or its driver was dropped.
    pub async fn ready(&self) -> Result<Settings, Ended> {
        let mut status = self.shared.status.subscribe();
        let known = |status: &Status| status.over || status.peer.is_some();
        let settings = match status.wait_for(known).await {
            Ok(status) => status.peer.filter(|_| !status.over),
            Err(_gone) => None,
        };
        settings.ok_or_else(|| self.ended())
    }

    fn ended(&self) -> Ended {
        let reason = self.shared.quic.close_reason();
        reason.map_or(Ended::Here, |error| self.shared.ended(&error))
    }

    /// Opens a stream by a CONNECT, once the connection is ready. How long the peer may take is for
    /// the caller to bound.
    ///
    /// # Errors
    /// [`RequestError`]; [`RequestError::is_unprocessed`] tells whether it may be tried elsewhere.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request.
    pub async fn connect(&self, request: &Request) -> Result<(Response, Stream), RequestError> {
        let settings = self.ready().await.map_err(RequestError::Ended)?;
        let extended = request.protocol.is_some();
        if extended && !settings.extended_connect {
            return Err(RequestError::NotOffered);
        }
        let (section, size) = request.encode();
        if size > settings.field_section {
            return Err(RequestError::TooLarge);
        }
        let mut inner = self.open(extended).await?;
        inner.writer.put(frame::HEADERS, section);
        let id = inner.quarter * 4;
        let mut stream = Stream::new(inner);
        let mut status = self.shared.status.subscribe();
        let passed_over = |status: &Status| status.peer_leaves.is_some_and(|end| id >= end);
        let answered = tokio::select! {
            biased;
            answered = answer(&mut stream) => answered,
            Ok(_) = status.wait_for(passed_over) => Err(RequestError::Unprocessed),
        };
        let response = answered.map_err(|error| match error {
            // The connection's end may come together with what says so.
            RequestError::Stream(StreamError::Ended(_)) if passed_over(&status.borrow()) => {
                RequestError::Unprocessed
            }
            error => error,
        })?;
        if response.status.is_success() {
            Ok((response, stream))
        } else {
            Err(RequestError::Refused(response))
        }
    }

    async fn open(&self, extended: bool) -> Result<Inner, RequestError> {
        // First, lest the connection be closed for want of streams.
        let live = Live::new(Arc::clone(&self.shared));
        let mut status = self.shared.status.subscribe();
        let opened = tokio::select! {
            biased;
            Ok(_) = status.wait_for(Status::is_leaving) => return Err(RequestError::Unprocessed),
            opened = self.shared.quic.open_bi() => opened,
        };
        let ended = |error| RequestError::Ended(self.shared.ended(&error));
        let (send, recv) = opened.map_err(ended)?;
        let inner = Inner::new(send, recv, live);
        lock(&self.shared.demux).open(inner.quarter, extended);
        Ok(inner)
    }

    /// Makes no more requests, and tells the peer so. The connection closes when the last stream
    /// has ended.
    pub fn leave(&self) {
        self.shared.leave();
    }

    /// Sends what has to be acknowledged: from a peer that is there something comes, though it may have
    /// nothing to say for long. Several at once are one.
    pub fn probe(&self) {
        self.shared.probes.notify_one();
    }

    /// Whether requests can be made: neither end leaves, nor is the connection over.
    pub fn is_usable(&self) -> bool {
        !self.shared.status.borrow().is_leaving()
    }

    /// Streams that are open, or being opened or seen off.
    pub fn streams(&self) -> usize {
        self.shared.live()
    }
}

/// Sends what the stream holds and reads the response's head.
async fn answer(stream: &mut Stream) -> Result<Response, RequestError> {
    let mut interim = 0;
    loop {
        let Some(section) = next_section(stream).await? else {
            return Err(malformed(stream, "a stream ends before its response"));
        };
        let inner = stream.inner()?;
        let response = match Response::decode(&section, inner.shared().bounds()) {
            Ok(response) => response,
            Err(HeadError::Section(fault)) => return Err(inner.shared().fail(fault).into()),
            Err(HeadError::Malformed(fault)) => return Err(malformed(stream, fault.why)),
            Err(HeadError::TooLarge) => return Err(too_large(stream)),
        };
        if !response.status.is_informational() {
            return Ok(response);
        }
        interim += 1;
        if interim > INTERIM {
            return Err(malformed(stream, "too many interim responses"));
        }
    }
}

async fn next_section(stream: &mut Stream) -> Result<Option<BytesMut>, RequestError> {
    let inner = stream.inner()?;
    let shared = Arc::clone(inner.shared());
    let read = {
        let Inner {
            reader,
            writer,
            allowance,
            ..
        } = inner;
        let mut section = pin!(message::section(reader, allowance, &shared));
        poll_fn(|cx| {
            // A peer that has said no already may read no further: its answer counts.
            let _sent = writer.poll_flush(cx);
            section.as_mut().poll(cx)
        })
        .await
    };
    match read {
        Ok(section) => Ok(section),
        Err(SectionError::TooLarge) => Err(too_large(stream)),
        Err(SectionError::Stream(StreamError::Reset { code }))
            if code == Code::REQUEST_REJECTED =>
        {
            Err(RequestError::Unprocessed)
        }
        Err(SectionError::Stream(error)) => Err(error.into()),
    }
}

fn malformed(stream: &mut Stream, why: &'static str) -> RequestError {
    stream.reset(Code::MESSAGE_ERROR);
    StreamError::Malformed(Fault::new(Code::MESSAGE_ERROR, why)).into()
}

fn too_large(stream: &mut Stream) -> RequestError {
    stream.reset(Code::EXCESSIVE_LOAD);
    RequestError::TooLarge
}
