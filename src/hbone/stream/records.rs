//! TLS records between two large buffers, with neither a socket nor a queue of their own: the
//! library shakes hands, what comes after that is ours.

use std::io::{self, IoSlice};
use std::mem;
use std::ops::Deref;

use bytes::{Buf as _, BytesMut};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{CommonState, Error, ExtractedSecrets};
use rustls_pki_types::CertificateDer;
use tokio::io::ReadBuf;

use super::buffer::Buffer;
use super::key;
use super::traffic::{Opened, Traffic};

/// One end of a session: client or server.
pub(in crate::hbone) trait Side:
    Deref<Target: Deref<Target = CommonState>> + Sized
{
    /// What the library keeps of it.
    type Data;

    /// Whether the peer may hand out tickets.
    const TICKETS: bool;

    /// Takes the next step, see `process_tls_records`.
    fn step<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// The keys that the handshake led to, and what makes further ones.
    fn into_keys(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    const TICKETS: bool = true;

    fn step<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }

    fn into_keys(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
        self.dangerous_into_kernel_connection()
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    const TICKETS: bool = false;

    fn step<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }

    fn into_keys(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
        self.dangerous_into_kernel_connection()
    }
}

/// What a handshake has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shaken {
    /// More has to come from the peer.
    Starved,
    /// The peer has ended the session instead.
    Ended,
    /// Both have proven themselves.
    Hands,
}

/// A session between two buffers.
pub(super) struct Records<S: Side> {
    session: Session<S>,
    /// The certificate by which the peer has proven itself.
    leaf: Option<CertificateDer<'static>>,
    /// As it came from the network.
    pub(super) received: Buffer,
    /// As it will go to the network.
    pub(super) sealed: Buffer,
    /// How much of it the library has been shown.
    shown: usize,
    /// Opened, and more than the reader had room for.
    plain: BytesMut,
    /// The peer has said that it is done.
    ended: bool,
}

enum Session<S: Side> {
    Handshake(Box<S>),
    Traffic(Box<Traffic<S::Data>>),
    /// An error has ended it.
    Over,
}

/// How one step of a handshake went on.
enum Step {
    Again,
    Starved,
    Ended,
}

impl<S: Side> Records<S> {
    pub(super) fn new(tls: S) -> Self {
        Self {
            session: Session::Handshake(Box::new(tls)),
            leaf: None,
            received: Buffer::default(),
            sealed: Buffer::default(),
            shown: 0,
            plain: BytesMut::new(),
            ended: false,
        }
    }

    /// The certificate by which the peer has proven itself.
    pub(super) fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.leaf.as_ref()
    }

    /// Goes on with the handshake as far as what has come leads, and seals our part of it.
    ///
    /// The library is shown one record after the other and none behind the last of the handshake:
    /// what it opened of those, a new key above all, would be lost with it.
    ///
    /// # Errors
    /// When the peer breaks the protocol or cannot prove itself; the alert that tells it so has been
    /// sealed.
    pub(super) fn shake(&mut self) -> Result<Shaken, Error> {
        let Session::Handshake(tls) = &mut self.session else {
            return Ok(Shaken::Hands);
        };
        loop {
            let stepped = step(
                &mut **tls,
                &mut self.received,
                &mut self.shown,
                &mut self.sealed,
            );
            let session: &CommonState = tls;
            let done = !session.is_handshaking() && !session.wants_write();
            match stepped {
                Ok(Step::Ended) => return Ok(Shaken::Ended),
                Ok(_) if done => break,
                Ok(Step::Again) => {}
                Ok(Step::Starved) => match key::boundary(self.received.filled(), self.shown) {
                    Some(boundary) => self.shown = boundary,
                    None => return Ok(Shaken::Starved),
                },
                Err(e) => {
                    seal_alert(&mut **tls, &mut self.sealed);
                    self.session = Session::Over;
                    return Err(e);
                }
            }
        }
        self.begin()?;
        Ok(Shaken::Hands)
    }

    /// Begins the session behind the handshake.
    fn begin(&mut self) -> Result<(), Error> {
        let Session::Handshake(tls) = mem::replace(&mut self.session, Session::Over) else {
            return Ok(());
        };
        let session: &CommonState = &tls;
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        self.leaf = leaf.map(|leaf| leaf.clone().into_owned());
        let (secrets, library) = tls.into_keys()?;
        let traffic = Traffic::new(secrets, library, S::TICKETS)?;
        self.session = Session::Traffic(Box::new(traffic));
        Ok(())
    }

    /// Opens records of `received` into `into`.
    ///
    /// # Errors
    /// When the peer breaks the protocol, or says that we do; the alert that tells it so has been
    /// sealed.
    pub(super) fn open(&mut self, into: &mut ReadBuf<'_>) -> Result<Opened, Error> {
        if !self.plain.is_empty() {
            let bytes = self.plain.len().min(into.remaining());
            into.put_slice(&self.plain[..bytes]);
            self.plain.advance(bytes);
            if self.plain.is_empty() {
                self.plain = BytesMut::new();
            }
            return Ok(Opened::Plain);
        }
        if self.ended {
            return Ok(Opened::Ended);
        }
        let Session::Traffic(traffic) = &mut self.session else {
            return Err(Error::HandshakeNotComplete);
        };
        let opened = traffic.open(&mut self.received, into, &mut self.plain);
        match &opened {
            Ok(Opened::Ended) => self.ended = true,
            Ok(_) => {}
            Err(e) => {
                traffic.seal_alert(e, &mut self.sealed);
                self.session = Session::Over;
            }
        }
        opened
    }

    /// Seals bytes from the front of `slices`, as many as the buffer has room for; tells how many.
    ///
    /// # Errors
    /// When the session has ended.
    pub(super) fn seal(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.session {
            Session::Traffic(traffic) => traffic.seal(slices, &mut self.sealed),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Seals the end of our direction.
    ///
    /// # Errors
    /// When it has ended before.
    pub(super) fn seal_end(&mut self) -> io::Result<()> {
        match &mut self.session {
            Session::Traffic(traffic) => traffic.seal_end(&mut self.sealed),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

#[cfg(test)]
impl<S: Side> Records<S> {
    /// The session behind its handshake.
    pub(super) fn traffic(&mut self) -> &mut Traffic<S::Data> {
        match &mut self.session {
            Session::Traffic(traffic) => traffic,
            _ => panic!("no session"),
        }
    }

    /// Seals any message.
    pub(super) fn say(&mut self, kind: key::Kind, message: &[u8]) {
        let Session::Traffic(traffic) = &mut self.session else {
            panic!("no session");
        };
        traffic.put(kind, message, &mut self.sealed).unwrap();
    }
}

/// Takes one step of a handshake, shown the first `shown` bytes of what has been received.
fn step<S: Side>(
    tls: &mut S,
    received: &mut Buffer,
    shown: &mut usize,
    sealed: &mut Buffer,
) -> Result<Step, Error> {
    let visible = received.filled_mut().get_mut(..*shown).unwrap_or_default();
    let status = tls.step(visible);
    let discard = status.discard;
    let step = match status.state? {
        ConnectionState::EncodeTlsData(data) => {
            encode(data, sealed)?;
            Step::Again
        }
        ConnectionState::TransmitTlsData(transmit) => {
            // It is in the buffer, which leaves in order.
            transmit.done();
            Step::Again
        }
        ConnectionState::PeerClosed | ConnectionState::Closed => Step::Ended,
        _ => Step::Starved,
    };
    received.discard(discard);
    *shown = shown.saturating_sub(discard);
    Ok(step)
}

/// After an error, seals the alert that says so.
fn seal_alert<S: Side>(tls: &mut S, sealed: &mut Buffer) {
    // Not a step further: the library does not expect to be asked for more than this.
    while tls.wants_write() {
        let status = tls.step(&mut []);
        let Ok(ConnectionState::EncodeTlsData(data)) = status.state else {
            return;
        };
        if encode(data, sealed).is_err() {
            return;
        }
    }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, sealed: &mut Buffer) -> Result<(), Error> {
    loop {
        match data.encode(sealed.space()) {
            Ok(written) => {
                sealed.fill(written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) => sealed.reserve(size.required_size),
            Err(e @ EncodeError::AlreadyEncoded) => return Err(Error::General(e.to_string())),
        }
    }
}
