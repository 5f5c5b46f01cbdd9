//! The streams that go one way: a control stream each way, the peer's two of QPACK, and what it
//! makes up (RFC 9114 §6.2, RFC 9204 §4.2).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, WriteError};

use super::error::{Code, Fault};
use super::frame::{self, Kind};
use super::reader::{FrameReader, ReadFault};
use super::settings::Settings;
use super::shared::{Shared, lock};
use super::{congestion, varint};

const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const ENCODER: u64 = 0x2;
const DECODER: u64 = 0x3;

/// The largest frame taken that a control stream can hold: of settings, the longest, a few dozen
/// bytes are in use.
const FRAME: u64 = 4 << 10;

/// Which of the peer's streams there are already, of which there may be one each.
#[derive(Default)]
pub(super) struct Claimed(AtomicU8);

impl Claimed {
    fn claim(&self, kind: u64) -> Result<(), Fault> {
        let bit = 1 << kind;
        match self.0.fetch_or(bit, Ordering::AcqRel) & bit {
            0 => Ok(()),
            _ => {
                let why = "a stream was opened of which there may be one";
                Err(Fault::new(Code::STREAM_CREATION_ERROR, why))
            }
        }
    }
}

/// Serves a stream that the peer has opened, to its end.
///
/// # Errors
/// What ends the connection.
pub(super) async fn serve(
    shared: Arc<Shared>,
    claimed: Arc<Claimed>,
    quic: RecvStream,
) -> Result<(), Fault> {
    let mut reader = FrameReader::new(quic);
    // One that ends before it says what it is means nothing (§6.2).
    let Ok(Some(kind)) = reader.integer().await else {
        return shared.chatter();
    };
    let fault = match kind {
        CONTROL => {
            claimed.claim(kind)?;
            control(&shared, &mut reader).await
        }
        ENCODER => {
            claimed.claim(kind)?;
            encoder(&shared, &mut reader).await
        }
        DECODER => {
            claimed.claim(kind)?;
            decoder(&shared, &mut reader).await
        }
        PUSH if shared.is_server() => {
            let why = "a client opened a stream for a push";
            Broken::Fault(Fault::new(Code::STREAM_CREATION_ERROR, why))
        }
        PUSH => {
            let why = "a push was sent that was not allowed";
            Broken::Fault(Fault::new(Code::ID_ERROR, why))
        }
        _ => {
            shared.chatter()?;
            reader.stop(Code::STREAM_CREATION_ERROR);
            return Ok(());
        }
    };
    match fault {
        Broken::Fault(fault) => Err(fault),
        Broken::Read(ReadFault::Lost(_) | ReadFault::Closed) => Ok(()),
        Broken::Read(ReadFault::Truncated) => {
            let why = "a control stream ends within a frame";
            Err(Fault::new(Code::FRAME_ERROR, why))
        }
        Broken::Read(ReadFault::Reset(_)) => Err(closed()),
    }
}

/// Why a stream that the connection needs is over.
enum Broken {
    Fault(Fault),
    Read(ReadFault),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ReadFault> for Broken {
    fn from(fault: ReadFault) -> Self {
        Self::Read(fault)
    }
}

fn closed() -> Fault {
    let why = "a stream was closed that the connection needs";
    Fault::new(Code::CLOSED_CRITICAL_STREAM, why)
}

async fn control(shared: &Shared, reader: &mut FrameReader) -> Broken {
    match read_control(shared, reader).await {
        Ok(()) => closed().into(),
        Err(broken) => broken,
    }
}

/// Reads the peer's control stream to its end (RFC 9114 §6.2.1).
async fn read_control(shared: &Shared, reader: &mut FrameReader) -> Result<(), Broken> {
    let Some((kind, length)) = reader.header().await? else {
        return Ok(());
    };
    if kind != Kind::Settings {
        let why = "a control stream does not begin with SETTINGS";
        return Err(Fault::new(Code::MISSING_SETTINGS, why).into());
    }
    let settings = payload(reader, length).await?;
    shared.learn(Settings::read(&settings)?);
    let mut last_push = None;
    while let Some((kind, length)) = reader.header().await? {
        shared.chatter()?;
        match kind {
            Kind::GoAway => {
                let id = integer(&payload(reader, length).await?)?;
                if !shared.is_server() && id % 4 != 0 {
                    let why = "GOAWAY names no request stream";
                    return Err(Fault::new(Code::ID_ERROR, why).into());
                }
                shared.peer_leaves(id)?;
            }
            Kind::MaxPushId if shared.is_server() => {
                let id = integer(&payload(reader, length).await?)?;
                if last_push.replace(id).is_some_and(|before| id < before) {
                    let why = "MAX_PUSH_ID takes back what it said";
                    return Err(Fault::new(Code::ID_ERROR, why).into());
                }
            }
            Kind::CancelPush => {
                integer(&payload(reader, length).await?)?;
                let why = "a push was cancelled that there is not";
                return Err(Fault::new(Code::ID_ERROR, why).into());
            }
            // As much as any other: what is skipped costs us as much as what is read.
            Kind::Unknown if length > FRAME => {
                let why = "a frame of a control stream is too long";
                return Err(Fault::new(Code::EXCESSIVE_LOAD, why).into());
            }
            Kind::Unknown => reader.skip().await?,
            Kind::Data
            | Kind::Headers
            | Kind::Settings
            | Kind::PushPromise
            | Kind::MaxPushId
            | Kind::Http2 => {
                let why = "a frame came on a control stream where it may not";
                return Err(Fault::new(Code::FRAME_UNEXPECTED, why).into());
            }
        }
    }
    Ok(())
}

async fn payload(reader: &mut FrameReader, length: u64) -> Result<Bytes, Broken> {
    if length > FRAME {
        let why = "a frame of a control stream is too long";
        return Err(Fault::new(Code::EXCESSIVE_LOAD, why).into());
    }
    Ok(reader.whole().await?.freeze())
}

/// A payload of one integer and nothing else.
fn integer(payload: &[u8]) -> Result<u64, Fault> {
    let read = varint::read(payload).filter(|(_, size)| *size == payload.len());
    let why = "a frame's payload is not the one integer it should be";
    let (value, _) = read.ok_or_else(|| Fault::new(Code::FRAME_ERROR, why))?;
    Ok(value)
}

/// The peer's encoder may say again that the table holds nothing, no more: each instruction but
/// that one adds to it (RFC 9204 §4.3).
async fn encoder(shared: &Shared, reader: &mut FrameReader) -> Broken {
    const SET_CAPACITY_0: u8 = 0b0010_0000;
    loop {
        let piece = match reader.raw().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return closed().into(),
            Err(fault) => return fault.into(),
        };
        for byte in piece {
            if byte != SET_CAPACITY_0 {
                let why = "an instruction needs a dynamic table";
                return Fault::new(Code::QPACK_ENCODER_STREAM_ERROR, why).into();
            }
            if let Err(fault) = shared.chatter() {
                return fault.into();
            }
        }
    }
}

/// Cancellations of streams that we may not have taken up yet.
const UNSEEN: u64 = 1000;

/// The peer's decoder may cancel streams, each of them once, no more: nothing of ours needs to be
/// acknowledged (RFC 9204 §4.4).
async fn decoder(shared: &Shared, reader: &mut FrameReader) -> Broken {
    let (mut number, mut cancelled) = (Cancelled::default(), 0);
    loop {
        let piece = match reader.raw().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return closed().into(),
            Err(fault) => return fault.into(),
        };
        for byte in piece {
            if let Err(fault) = number.take(byte) {
                return fault.into();
            }
            cancelled += u64::from(number.is_whole());
        }
        if cancelled > lock(&shared.demux).opened() + UNSEEN {
            let why = "more streams are cancelled than there were";
            return Fault::new(Code::EXCESSIVE_LOAD, why).into();
        }
    }
}

/// The bytes of an instruction that cancels a stream that are still allowed; 0 between two.
#[derive(Default)]
struct Cancelled(u8);

impl Cancelled {
    fn is_whole(&self) -> bool {
        self.0 == 0
    }

    fn take(&mut self, byte: u8) -> Result<(), Fault> {
        let why = "an instruction acknowledges what was never sent";
        let fault = Fault::new(Code::QPACK_DECODER_STREAM_ERROR, why);
        match self.0 {
            0 if byte >> 6 != 0b01 => return Err(fault),
            // Ten bytes hold any number there is.
            0 if byte & 0x3f == 0x3f => self.0 = 9,
            0 => {}
            1 if byte & 0x80 != 0 => return Err(fault),
            _ if byte & 0x80 == 0 => self.0 = 0,
            _ => self.0 -= 1,
        }
        Ok(())
    }
}

/// Our control stream, whose end would be the connection's: that is closed first.
struct Ours {
    stream: SendStream,
    quic: Connection,
}

impl Drop for Ours {
    fn drop(&mut self) {
        congestion::close(&self.quic, Code::NO_ERROR, "");
    }
}

/// Opens our control stream, sends SETTINGS, and GOAWAY when it is time. Returns once the
/// connection is over; a peer that closes the stream ends it. We need no streams for QPACK, whose
/// dynamic table neither end has (RFC 9204 §4.2).
pub(super) async fn speak(shared: Arc<Shared>) {
    let Ok(stream) = shared.quic.open_uni().await else {
        return;
    };
    let quic = shared.quic.clone();
    let mut ours = Ours { stream, quic };
    // A stream's priority can be set as long as it is open.
    let _open = ours.stream.set_priority(1);
    let settings = Settings {
        field_section: shared.config.field_section,
        extended_connect: true,
        datagrams: shared.config.datagrams,
    };
    let greeting = [&[CONTROL as u8][..], &settings.frame()].concat();
    let mut status = shared.status.subscribe();
    let stopped = ours.stream.stopped();
    let spoken = async {
        ours.stream.write_all(&greeting).await?;
        let leaving = loop {
            let leaving = async {
                let leaving = status.wait_for(|status| status.leaving.is_some()).await;
                leaving.ok().and_then(|status| status.leaving)
            };
            tokio::select! {
                leaving = leaving => break leaving,
                () = shared.probes.notified() => {
                    ours.stream.write_all(&frame::nothing()).await?;
                }
            }
        };
        if let Some(id) = leaving {
            ours.stream.write_all(&frame::goaway(id)).await?;
        }
        // Kept open.
        std::future::pending::<Result<(), WriteError>>().await
    };
    let closes = tokio::select! {
        stopped = stopped => matches!(stopped, Ok(Some(_))),
        broke = spoken => matches!(broke, Err(WriteError::Stopped(_))),
    };
    if closes {
        shared.fail(closed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cancellations_are_taken_from_a_decoder() {
        let long = [&[0x7f][..], &[0x80; 8], &[0]].concat();
        for (name, bytes, good) in [
            ("one", &[0x44][..], true),
            (
                "several, one of them long",
                &[0x44, 0x7f, 0x81, 0x01, 0x40],
                true,
            ),
            ("the longest", &long, true),
            ("a longer one", &[&[0x7f][..], &[0x80; 9]].concat(), false),
            ("an acknowledgement", &[0x84], false),
            ("an increment", &[0x01], false),
        ] {
            let mut number = Cancelled::default();
            let taken = bytes.iter().all(|byte| number.take(*byte).is_ok());
            assert_eq!(taken, good, "{name}");
        }
    }
}
