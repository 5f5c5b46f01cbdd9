//! Takes requests.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::StatusCode;
use quinn::Connection;

use super::driver::Driver;
use super::error::{Code, Ended, Fault, RequestError, StreamError};
use super::head::{HeadError, Request, Response};
use super::message::{self, SectionError};
use super::shared::{Live, Shared, lock};
use super::stream::{Inner, Stream};
use super::{Config, frame};

/// Speaks HTTP/3 over a connection that was opened to us, whose client has proven who it is: the
/// driver, which is to be run, tells it so. Dropping the server harms no stream.
pub fn server(quic: Connection, config: Config) -> (Server, Driver) {
    let shared = Shared::new(quic, config);
    let driver = Driver::new(Arc::clone(&shared));
    (Server { shared }, driver)
}

/// Takes requests from one connection.
pub struct Server {
    shared: Arc<Shared>,
}

impl Server {
    /// The next request, whose head is still to be read. After [`Server::leave`] it passes over
    /// those that come too late, so it is to be called on until the connection is over.
    ///
    /// # Errors
    /// [`Ended`], in order or not.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn accept(&self) -> Result<Incoming, Ended> {
        loop {
            let accepted = self.shared.quic.accept_bi().await;
            let ended = |error| self.shared.ended(&error);
            let (mut send, mut recv) = accepted.map_err(ended)?;
            let id = u64::from(send.id());
            if !self.shared.take_up(id) {
                let code = Code::REQUEST_REJECTED.quic();
                // Of a stream that is gone already there is nothing to say.
                let _gone = send.reset(code);
                let _gone = recv.stop(code);
                self.shared.late();
                continue;
            }
            let early = recv.is_0rtt();
            let live = Live::new(Arc::clone(&self.shared));
            let inner = Inner::new(send, recv, live);
            lock(&self.shared.demux).open(inner.quarter, true);
            let stream = Stream::new(inner);
            return Ok(Incoming { stream, early });
        }
    }

    /// Takes no more requests, and tells the peer so (GOAWAY). The connection closes when the last
    /// stream has ended.
    pub fn leave(&self) {
        self.shared.leave();
    }

    /// Whether the client takes datagrams, as far as it has said.
    pub fn sends_datagrams(&self) -> bool {
        self.shared.sends_datagrams()
    }

    /// Streams that are open, or being seen off.
    pub fn streams(&self) -> usize {
        self.shared.live()
    }
}

/// A request whose head is still to be read. Dropping it cancels the request.
#[derive(Debug)]
pub struct Incoming {
    stream: Stream,
    early: bool,
}

impl Incoming {
    /// Whether it came before the handshake was done, and so may be a repetition (RFC 8470).
    pub fn is_early(&self) -> bool {
        self.early
    }

    /// Reads the head. For how long is for the caller to bound. A request that is malformed or too
    /// large has been answered when this returns.
    ///
    /// # Errors
    /// [`RequestError`].
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request.
    pub async fn request(self) -> Result<(Request, Responder), RequestError> {
        let Self { mut stream, .. } = self;
        let outcome = head(&mut stream).await;
        let shared = stream.shared().map(Arc::clone);
        let request = match outcome {
            Ok(request) => request,
            Err(error) => {
                if let Some(shared) = shared {
                    shared.waste();
                }
                if matches!(error, RequestError::TooLarge) {
                    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                    Responder::new(stream).refuse(&Response::new(status));
                }
                return Err(error);
            }
        };
        if request.protocol.is_none()
            && let Some(shared) = shared
        {
            lock(&shared.demux).close(stream.id() / 4);
        }
        Ok((request, Responder::new(stream)))
    }
}

async fn head(stream: &mut Stream) -> Result<Request, RequestError> {
    let inner = stream.inner()?;
    let shared = Arc::clone(inner.shared());
    let section = message::section(&mut inner.reader, &mut inner.allowance, &shared).await;
    let section = match section {
        Ok(Some(section)) => section,
        Ok(None) => {
            let why = "a stream ends before its request";
            return Err(malformed(stream, Fault::new(Code::REQUEST_INCOMPLETE, why)));
        }
        Err(SectionError::TooLarge) => return Err(RequestError::TooLarge),
        Err(SectionError::Stream(error)) => return Err(error.into()),
    };
    match Request::decode(&section, shared.bounds()) {
        Ok(request) => Ok(request),
        Err(HeadError::Section(fault)) => Err(shared.fail(fault).into()),
        Err(HeadError::Malformed(fault)) => Err(malformed(stream, fault)),
        Err(HeadError::TooLarge) => Err(RequestError::TooLarge),
    }
}

fn malformed(stream: &mut Stream, fault: Fault) -> RequestError {
    stream.reset(fault.code);
    StreamError::Malformed(fault).into()
}

/// Answers a request. Dropping it cancels the request.
#[derive(Debug)]
pub struct Responder {
    stream: Stream,
    /// That the client has withdrawn the request was counted.
    wasted: bool,
}

impl Responder {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            wasted: false,
        }
    }

    /// Answers with a head after which bytes follow both ways.
    ///
    /// # Errors
    /// [`StreamError`] if the client no longer wants it.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request.
    pub async fn accept(mut self, response: &Response) -> Result<Stream, StreamError> {
        let inner = self.stream.inner()?;
        inner.writer.put(frame::HEADERS, response.encode().0);
        let sent = match inner.cut() {
            Some(error) => Err(error),
            None => poll_fn(|cx| inner.poll_flush(cx)).await,
        };
        if let Err(StreamError::Stopped { .. } | StreamError::Reset { .. }) = sent {
            self.waste();
        }
        sent?;
        Ok(self.stream)
    }

    /// As [`Responder::accept`], without waiting: what QUIC does not take at once leaves as after
    /// [`Stream::send`], and the stream tells if the client no longer wants it.
    pub fn open(mut self, response: &Response) -> Stream {
        if let Ok(inner) = self.stream.inner() {
            inner.writer.put(frame::HEADERS, response.encode().0);
            // Whoever waits next is the one to be woken.
            let mut nobody = Context::from_waker(Waker::noop());
            let sent = inner.poll_flush(&mut nobody);
            let unwanted = matches!(sent, Poll::Ready(Err(StreamError::Stopped { .. })));
            if unwanted || inner.cut().is_some() {
                self.waste();
            }
        }
        self.stream
    }

    fn waste(&mut self) {
        let counted = std::mem::replace(&mut self.wasted, true);
        if let Some(shared) = self.stream.shared()
            && !counted
        {
            shared.waste();
        }
    }

    /// Answers with a head and nothing else. What the client sends is not read.
    pub fn refuse(mut self, response: &Response) {
        if let Ok(inner) = self.stream.inner() {
            inner.writer.put(frame::HEADERS, response.encode().0);
        }
        self.stream.close();
    }

    /// Ends the request without an answer.
    pub fn reset(mut self, code: Code) {
        self.stream.reset(code);
    }

    /// Waits until the client no longer wants an answer.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn cancelled(&mut self) -> StreamError {
        let gone = poll_fn(|cx| self.stream.poll_given_up(cx)).await;
        self.waste();
        gone
    }
}
