//! SETTINGS: what each end takes (RFC 9114 §7.2.4, RFC 9204 §5, RFC 9220 §5, RFC 9297 §2.1.1).

use bytes::{Bytes, BytesMut};

use super::error::{Code, Fault};
use super::{frame, varint};

const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
const H3_DATAGRAM: u64 = 0x33;

/// Settings in one frame at most. The registry holds about a dozen, and a peer may add some that it
/// made up.
const COUNT: usize = 64;

/// What an end has said of itself; what it has not said is as the RFCs have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a field section that it takes, decoded and with 32 for each field; without a bound
    /// unless it named one (RFC 9114 §4.2.2).
    pub field_section: u64,
    /// Whether it takes extended CONNECT (RFC 9220 §3).
    pub extended_connect: bool,
    /// Whether it takes datagrams (RFC 9297 §2.1.1).
    pub datagrams: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            field_section: varint::MAX,
            extended_connect: false,
            datagrams: false,
        }
    }
}

impl Settings {
    /// The frame that says so. A dynamic table of QPACK and streams blocked by it are what no
    /// setting means: none (RFC 9204 §5).
    pub(super) fn frame(&self) -> Bytes {
        let mut payload = BytesMut::new();
        let pairs = [
            (MAX_FIELD_SECTION_SIZE, self.field_section),
            (ENABLE_CONNECT_PROTOCOL, self.extended_connect.into()),
            (H3_DATAGRAM, self.datagrams.into()),
        ];
        for (id, value) in pairs {
            varint::put(id, &mut payload);
            varint::put(value, &mut payload);
        }
        frame::whole(frame::SETTINGS, &payload)
    }

    /// Reads the payload of a frame.
    ///
    /// # Errors
    /// The fault that ends the connection.
    pub(super) fn read(mut payload: &[u8]) -> Result<Self, Fault> {
        let mut settings = Self::default();
        let mut seen = Vec::new();
        while !payload.is_empty() {
            let id = take(&mut payload)?;
            let value = take(&mut payload)?;
            if seen.contains(&id) {
                let why = "a setting was given twice";
                return Err(Fault::new(Code::SETTINGS_ERROR, why));
            }
            if seen.len() == COUNT {
                return Err(Fault::new(Code::EXCESSIVE_LOAD, "too many settings"));
            }
            seen.push(id);
            settings.set(id, value)?;
        }
        Ok(settings)
    }

    fn set(&mut self, id: u64, value: u64) -> Result<(), Fault> {
        match id {
            MAX_FIELD_SECTION_SIZE => self.field_section = value,
            ENABLE_CONNECT_PROTOCOL => self.extended_connect = flag(value)?,
            H3_DATAGRAM => self.datagrams = flag(value)?,
            // Of HTTP/2 (RFC 9114 §7.2.4.1).
            0x0 | 0x2..=0x5 => {
                let why = "a setting of HTTP/2 was given";
                return Err(Fault::new(Code::SETTINGS_ERROR, why));
            }
            // What a QPACK encoder of ours may use, which is nothing, and what we do not know.
            _ => {}
        }
        Ok(())
    }
}

fn flag(value: u64) -> Result<bool, Fault> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => {
            let why = "a setting that is 0 or 1 is neither";
            Err(Fault::new(Code::SETTINGS_ERROR, why))
        }
    }
}

fn take(payload: &mut &[u8]) -> Result<u64, Fault> {
    let short = Fault::new(Code::FRAME_ERROR, "SETTINGS end within a setting");
    let (value, size) = varint::read(payload).ok_or(short)?;
    *payload = payload.get(size..).unwrap_or_default();
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn settings_are_read() {
        let none = Settings::default();
        let ours = Settings {
            field_section: 65536,
            extended_connect: true,
            datagrams: true,
        };
        let frame = ours.frame();
        let many: Vec<u8> = (0..65).flat_map(|n| [0x40, 0x40 + n, 0]).collect();
        let error = |code| Err::<Settings, _>(code);
        for (name, payload, want) in [
            ("none", &[][..], Ok(none)),
            ("our own", &frame[2..], Ok(ours)),
            ("made up by the peer", &[0x21, 0x5], Ok(none)),
            ("QPACK's", &[0x1, 0x40, 0x64, 0x7, 0x10], Ok(none)),
            ("twice", &[0x8, 1, 0x8, 1], error(Code::SETTINGS_ERROR)),
            (
                "twice and unknown",
                &[0x21, 1, 0x21, 1],
                error(Code::SETTINGS_ERROR),
            ),
            ("of HTTP/2", &[0x4, 1], error(Code::SETTINGS_ERROR)),
            ("CONNECT is 2", &[0x8, 2], error(Code::SETTINGS_ERROR)),
            ("datagrams are 2", &[0x33, 2], error(Code::SETTINGS_ERROR)),
            ("no value", &[0x8], error(Code::FRAME_ERROR)),
            ("half a value", &[0x8, 0x40], error(Code::FRAME_ERROR)),
            ("65 of them", &many, error(Code::EXCESSIVE_LOAD)),
        ] {
            let got = Settings::read(payload).map_err(|fault| fault.code);
            assert_eq!(got, want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn settings_round_trip(field_section in 0..=varint::MAX, extended_connect: bool, datagrams: bool) {
            let settings = Settings { field_section, extended_connect, datagrams };
            let frame = settings.frame();
            prop_assert_eq!(Settings::read(&frame[2..]), Ok(settings));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _read = Settings::read(&bytes);
        }
    }
}
