//! A TLS 1.3 session after its handshake: application bytes both ways, new keys when they are due,
//! and the end (RFC 8446 §4.6, §5, §6).

use std::io::{self, IoSlice};

use bytes::BytesMut;
use rustls::kernel::KernelConnection;
use rustls::{
    AlertDescription, Error, ExtractedSecrets, InvalidMessage, PeerMisbehaved, SupportedCipherSuite,
};
use tokio::io::ReadBuf;

use super::buffer::{Buffer, PLAIN, RECORD};
use super::key::{self, HEADER, Key, Kind, pieces, unexpected};

/// Types of handshake messages that may still come (§4).
const TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// Room for a record of the session's own.
const OWN: usize = 64;
/// Longest handshake message taken, as the library has it.
const MESSAGE: usize = 0xffff;
/// Messages and records without a byte for the application that may follow each other: new keys,
/// tickets, empty records. The library has the same for each of them.
const IDLE: u32 = 32;
/// Alerts (§6): of level warning and fatal, the orderly end, and one that means nothing.
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// What opening came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// As many bytes of the peer's as there was room for.
    Plain,
    /// All records that had come whole are open; the next is not here yet.
    Starved,
    /// The peer has ended its direction in order.
    Ended,
}

/// Both directions of a session.
pub(super) struct Traffic<D> {
    send: Key,
    receive: Key,
    /// Makes the keys that follow.
    library: KernelConnection<D>,
    /// Records after which a key is replaced.
    limit: u64,
    /// Whether the peer may hand out tickets, which nobody here resumes by.
    tickets: bool,
    /// The beginning of a handshake message.
    partial: Vec<u8>,
    /// What the peer has said since its last application bytes, none of it of any use.
    idle: u32,
    /// The peer has asked for a new key of ours.
    owed: bool,
    /// Our direction has ended.
    closed: bool,
}

impl<D> Traffic<D> {
    /// A session with the keys that its handshake led to.
    ///
    /// # Errors
    /// For a cipher suite that is not one of ours.
    pub(super) fn new(
        secrets: ExtractedSecrets,
        library: KernelConnection<D>,
        tickets: bool,
    ) -> Result<Self, Error> {
        let limit = match library.negotiated_cipher_suite() {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            #[allow(
                unreachable_patterns,
                reason = "what else there is depends on the library's features"
            )]
            _ => return Err(Error::General("not a session of TLS 1.3".to_owned())),
        };
        Ok(Self {
            send: Key::new(secrets.tx)?,
            receive: Key::new(secrets.rx)?,
            library,
            limit,
            tickets,
            partial: Vec::new(),
            idle: 0,
            owed: false,
            closed: false,
        })
    }

    /// Opens records of `received` into `into` while it has room; of the last one's bytes, what it
    /// has no room for goes into `plain`.
    ///
    /// # Errors
    /// When the peer breaks the protocol, or says that we do.
    pub(super) fn open(
        &mut self,
        received: &mut Buffer,
        into: &mut ReadBuf<'_>,
        plain: &mut BytesMut,
    ) -> Result<Opened, Error> {
        while into.remaining() > 0 {
            let Some((header, length)) = key::next(received.filled())? else {
                return Ok(Opened::Starved);
            };
            let body = received.filled_mut().get_mut(HEADER..HEADER + length);
            let body = body.unwrap_or_default();
            let (kind, content) = self.receive.open(header, body)?;
            let content = body.get(..content).unwrap_or_default();
            match kind {
                Kind::Application if self.partial.is_empty() => {
                    match content.is_empty() {
                        true => self.patient()?,
                        false => self.idle = 0,
                    }
                    let (now, later) = content.split_at(content.len().min(into.remaining()));
                    into.put_slice(now);
                    plain.extend_from_slice(later);
                }
                Kind::Handshake => self.handshake(content)?,
                Kind::Alert if !self.partial.is_empty() => return Err(unexpected()),
                Kind::Alert if alert(content)? => return Ok(Opened::Ended),
                Kind::Alert => self.patient()?,
                Kind::Application | Kind::Other => return Err(unexpected()),
            }
            received.discard(HEADER + length);
        }
        Ok(Opened::Plain)
    }

    /// Counts one more thing of no use.
    fn patient(&mut self) -> Result<(), Error> {
        self.idle += 1;
        match self.idle > IDLE {
            true => Err(PeerMisbehaved::TooManyEmptyFragments.into()),
            false => Ok(()),
        }
    }

    /// Takes in a record of handshake messages, or of parts of them.
    fn handshake(&mut self, content: &[u8]) -> Result<(), Error> {
        if content.is_empty() {
            return Err(InvalidMessage::InvalidEmptyPayload.into());
        }
        self.partial.extend_from_slice(content);
        while let Some([kind, a, b, c]) = self.partial.first_chunk().copied() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > MESSAGE {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            if self.partial.len() < 4 + length {
                return Ok(());
            }
            self.patient()?;
            let last = self.partial.len() == 4 + length;
            let body = self.partial.get(4..4 + length).unwrap_or_default();
            match (kind, body) {
                (TICKET, _) if self.tickets => {}
                // What follows is under the new key, so nothing may share the record (§5.1).
                (KEY_UPDATE, [asked @ (0 | 1)]) if last => {
                    self.owed |= *asked == 1;
                    self.receive = Key::new(self.library.update_rx_secret()?)?;
                }
                (KEY_UPDATE, _) => return Err(InvalidMessage::InvalidKeyUpdate.into()),
                _ => return Err(unexpected()),
            }
            self.partial.drain(..4 + length);
        }
        Ok(())
    }

    /// Seals bytes from the front of `slices`, as many as `sealed` has room for; tells how many.
    ///
    /// # Errors
    /// When our direction has ended.
    pub(super) fn seal(
        &mut self,
        mut slices: &[IoSlice<'_>],
        sealed: &mut Buffer,
    ) -> io::Result<usize> {
        if self.closed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let (mut taken, mut done) = (0, 0);
        while let Some((first, next)) = slices.split_first() {
            let front = first.get(taken..).unwrap_or_default();
            if front.is_empty() {
                (slices, taken) = (next, 0);
                continue;
            }
            let due = self.owed || self.send.used() >= self.limit;
            if sealed.room() < RECORD + if due { OWN } else { 0 } {
                break;
            }
            if due {
                self.renew(sealed).map_err(broken)?;
            }
            // A frame's head, and frames of a few bytes, share a record with what follows.
            let bytes = if front.len() < PLAIN && !next.is_empty() {
                let pieces = pieces(slices, taken);
                let space = sealed.space();
                let (bytes, length) = self
                    .send
                    .seal_pieces(Kind::Application, pieces, space)
                    .map_err(broken)?;
                sealed.fill(length);
                bytes
            } else {
                let front = front.get(..PLAIN).unwrap_or(front);
                let length = self.send.seal(Kind::Application, front, sealed.space());
                sealed.fill(length.map_err(broken)?);
                front.len()
            };
            done += bytes;
            taken += bytes;
            while let Some((first, next)) = slices.split_first()
                && taken >= first.len()
            {
                taken -= first.len();
                slices = next;
            }
        }
        Ok(done)
    }

    /// Goes on under a new key.
    fn renew(&mut self, sealed: &mut Buffer) -> Result<(), Error> {
        self.put(Kind::Handshake, &[KEY_UPDATE, 0, 0, 1, 0], sealed)?;
        self.send = Key::new(self.library.update_tx_secret()?)?;
        self.owed = false;
        Ok(())
    }

    /// Seals the end of our direction.
    ///
    /// # Errors
    /// When it has ended before.
    pub(super) fn seal_end(&mut self, sealed: &mut Buffer) -> io::Result<()> {
        if self.closed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.closed = true;
        let ended = self.put(Kind::Alert, &[WARNING, CLOSE_NOTIFY], sealed);
        ended.map_err(broken)
    }

    /// Seals the alert that tells the peer why the session is over, where it is the peer's fault.
    pub(super) fn seal_alert(&mut self, error: &Error, sealed: &mut Buffer) {
        let description = match error {
            Error::AlertReceived(_) => return,
            Error::DecryptError => AlertDescription::BadRecordMac,
            Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            Error::InvalidMessage(_) => AlertDescription::DecodeError,
            Error::InappropriateMessage { .. } | Error::PeerMisbehaved(_) => {
                AlertDescription::UnexpectedMessage
            }
            _ => AlertDescription::InternalError,
        };
        self.closed = true;
        // Without it the peer learns as much from the end of the connection.
        let _best_effort = self.put(Kind::Alert, &[FATAL, description.into()], sealed);
    }

    /// Seals a message of the session's own.
    pub(super) fn put(
        &mut self,
        kind: Kind,
        message: &[u8],
        sealed: &mut Buffer,
    ) -> Result<(), Error> {
        sealed.reserve(OWN);
        let length = self.send.seal(kind, message, sealed.space())?;
        sealed.fill(length);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn limit(&mut self, records: u64) {
        self.limit = records;
    }
}

/// As the callers of a byte stream expect to hear it.
pub(super) fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Whether an alert is the orderly end; the other that is not fatal means nothing (§6.1).
fn alert(content: &[u8]) -> Result<bool, Error> {
    match content {
        [_level, CLOSE_NOTIFY] => Ok(true),
        [_level, USER_CANCELED] => Ok(false),
        [_level, description] => Err(Error::AlertReceived((*description).into())),
        _ => Err(InvalidMessage::MessageTooShort.into()),
    }
}
