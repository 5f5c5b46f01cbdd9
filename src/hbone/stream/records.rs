//! TLS records, opened and sealed in large buffers: the library's state machine with neither a
//! socket nor a queue of its own.

use std::io::{self, IoSlice};
use std::ops::Deref;

use bytes::{Buf as _, BytesMut};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};
use tokio::io::ReadBuf;

use super::buffer::{Buffer, PLAIN, RECORD};

/// One end of a session: client or server.
pub(in crate::hbone) trait Side:
    Deref<Target: Deref<Target = CommonState>>
{
    /// What the library keeps of it.
    type Data;

    /// Takes the next step, see `process_tls_records`.
    fn step<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn step<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn step<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }
}

/// What opening came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// Bytes of the peer's, or as many as there was room for.
    Plain,
    /// All records that had come whole are open; the next is not here yet.
    Starved,
    /// The peer has ended its direction in order.
    Ended,
}

/// A session between two buffers.
pub(super) struct Records<S> {
    tls: S,
    /// As it came from the network.
    pub(super) received: Buffer,
    /// As it will go to the network.
    pub(super) sealed: Buffer,
    /// Opened, and more than the reader had room for.
    plain: BytesMut,
    /// The peer has said that it is done, which the library tells but once.
    ended: bool,
}

/// How one step went on.
enum Step {
    Again,
    Done(Opened),
}

impl<S: Side> Records<S> {
    pub(super) fn new(tls: S) -> Self {
        Self {
            tls,
            received: Buffer::default(),
            sealed: Buffer::default(),
            plain: BytesMut::new(),
            ended: false,
        }
    }

    pub(super) fn session(&self) -> &CommonState {
        &self.tls
    }

    /// Opens records of `received` into `into`, and seals whatever the session has to say of its
    /// own accord.
    ///
    /// # Errors
    /// When the peer breaks the protocol or cannot prove itself; the alert that tells it so has been
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
        loop {
            match self.step(into) {
                Ok(Step::Again) => {}
                Ok(Step::Done(opened)) => return Ok(opened),
                Err(e) => {
                    self.seal_alert();
                    return Err(e);
                }
            }
        }
    }

    fn step(&mut self, into: &mut ReadBuf<'_>) -> Result<Step, Error> {
        let status = self.tls.step(self.received.filled_mut());
        let mut discard = status.discard;
        let step = match status.state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    let fits = record.payload.len().min(into.remaining());
                    let (now, later) = record.payload.split_at(fits);
                    into.put_slice(now);
                    self.plain.extend_from_slice(later);
                }
                Step::Done(Opened::Plain)
            }
            ConnectionState::EncodeTlsData(data) => {
                encode(data, &mut self.sealed)?;
                Step::Again
            }
            ConnectionState::TransmitTlsData(transmit) => {
                // It is in the buffer, which leaves in order.
                transmit.done();
                Step::Again
            }
            ConnectionState::PeerClosed | ConnectionState::Closed => {
                self.ended = true;
                Step::Done(Opened::Ended)
            }
            _ => Step::Done(Opened::Starved),
        };
        self.received.discard(discard);
        Ok(step)
    }

    /// Seals bytes from the front of `slices`, as many as the buffer has room for; tells how many.
    ///
    /// # Errors
    /// When the session has ended.
    pub(super) fn seal(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut rest = Rest { slices, taken: 0 };
        let mut sealed = 0;
        loop {
            let room = self.sealed.room() / RECORD * PLAIN;
            let (front, more) = rest.front();
            if room == 0 || front.is_empty() {
                return Ok(sealed);
            }
            // A frame's head, and frames of a few bytes, share a record with what follows.
            let bytes = if more && front.len() < PLAIN {
                let joined = rest.joined();
                self.seal_one(&joined)?;
                joined.len()
            } else {
                let front = front.get(..room).unwrap_or(front);
                self.seal_one(front)?;
                front.len()
            };
            rest.advance(bytes);
            sealed += bytes;
        }
    }

    fn seal_one(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writing(|traffic, sealed| {
            match traffic.encrypt(bytes, sealed.space()) {
                Ok(written) => {
                    sealed.fill(written);
                    Ok(())
                }
                // Something of the session's own goes before it.
                Err(EncryptError::InsufficientSize(size)) => {
                    sealed.reserve(size.required_size);
                    let written = traffic.encrypt(bytes, sealed.space());
                    sealed.fill(written.map_err(io::Error::other)?);
                    Ok(())
                }
                Err(e) => Err(io::Error::other(e)),
            }
        })
    }

    /// Seals the end of our direction.
    pub(super) fn seal_end(&mut self) -> io::Result<()> {
        self.writing(|traffic, sealed| {
            sealed.reserve(RECORD);
            let written = traffic.queue_close_notify(sealed.space());
            sealed.fill(written.map_err(io::Error::other)?);
            Ok(())
        })
    }

    /// Does something that takes a session which may send.
    fn writing(
        &mut self,
        work: impl FnOnce(&mut WriteTraffic<'_, S::Data>, &mut Buffer) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            // The library wants to see again what it has seen before: half a message, say.
            let status = self.tls.step(self.received.filled_mut());
            let mut discard = status.discard;
            let done = match status.state.map_err(broken)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let done = work(&mut traffic, &mut self.sealed);
                    self.received.discard(discard);
                    return done;
                }
                ConnectionState::EncodeTlsData(data) => {
                    encode(data, &mut self.sealed).map_err(broken)
                }
                ConnectionState::TransmitTlsData(transmit) => {
                    transmit.done();
                    Ok(())
                }
                // Opened and not fetched yet: nothing is lost by keeping it.
                ConnectionState::ReadTraffic(mut traffic) => loop {
                    match traffic.next_record() {
                        Some(Ok(record)) => {
                            discard += record.discard;
                            self.plain.extend_from_slice(record.payload);
                        }
                        Some(Err(e)) => break Err(broken(e)),
                        None => break Ok(()),
                    }
                },
                ConnectionState::PeerClosed => {
                    self.ended = true;
                    Ok(())
                }
                _ => Err(io::ErrorKind::NotConnected.into()),
            };
            self.received.discard(discard);
            done?;
        }
    }

    /// After an error, seals the alert that says so.
    fn seal_alert(&mut self) {
        // Not a step further: the library does not expect to be asked for more than this.
        while self.tls.wants_write() {
            let status = self.tls.step(self.received.filled_mut());
            let Ok(ConnectionState::EncodeTlsData(data)) = status.state else {
                return;
            };
            if encode(data, &mut self.sealed).is_err() {
                return;
            }
        }
    }
}

/// As the callers of a byte stream expect to hear it.
pub(super) fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
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

/// What is left of some slices.
struct Rest<'a> {
    slices: &'a [IoSlice<'a>],
    /// Bytes of the first that are done.
    taken: usize,
}

impl Rest<'_> {
    /// The first bytes that lie together, and whether others follow.
    fn front(&self) -> (&[u8], bool) {
        match self.slices.split_first() {
            Some((first, next)) => (
                first.get(self.taken..).unwrap_or_default(),
                !next.is_empty(),
            ),
            None => (&[], false),
        }
    }

    /// As many as one record takes, in one piece.
    fn joined(&self) -> Vec<u8> {
        let mut joined = Vec::with_capacity(PLAIN);
        let mut taken = self.taken;
        for slice in self.slices {
            let bytes = slice.get(taken..).unwrap_or_default();
            let fits = bytes.len().min(PLAIN - joined.len());
            joined.extend_from_slice(&bytes[..fits]);
            taken = 0;
        }
        joined
    }

    fn advance(&mut self, mut bytes: usize) {
        while let Some((first, next)) = self.slices.split_first() {
            let left = first.len() - self.taken;
            if bytes < left {
                self.taken += bytes;
                return;
            }
            bytes -= left;
            self.taken = 0;
            self.slices = next;
        }
    }
}
