//! What is asked, by us and of us.

use super::code::Code;
use super::kind::Kind;
use super::name::Name;
use super::reader::Reader;
use super::{HEADER, flag};

/// Largest answer by UDP (DNS flag day 2020): it crosses any path in one piece.
const DATAGRAM: u16 = 1232;
/// Largest one for who does not say how much he takes (RFC 1035 §2.3.4).
const PLAIN: u16 = 512;
/// Octets of what is said of the exchange, without options.
pub(super) const EDNS: usize = 11;
/// The flag of EDNS by which signatures are asked for (RFC 3225).
const DNSSEC_OK: u32 = 0x8000;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// On a connection.
    Tcp,
}

impl Transport {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// A name, and what of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Of whom.
    pub name: Name,
    /// What.
    pub kind: Kind,
    /// Nearly always [`super::IN`].
    pub class: u16,
}

impl Question {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            name: reader.name()?,
            kind: Kind(reader.number()?),
            class: reader.number()?,
        })
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.name.wire());
        to.extend(self.kind.0.to_be_bytes());
        to.extend(self.class.to_be_bytes());
    }

    /// Whether both ask for the same.
    pub fn is(&self, other: &Self) -> bool {
        self.kind == other.kind && self.class == other.class && self.name.is(&other.name)
    }
}

/// What is said of the exchange itself (RFC 6891 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edns {
    /// The largest datagram that is taken.
    pub payload: u16,
    /// 0, unless it is one that nobody knows yet.
    pub version: u8,
    /// Whether signatures are wanted.
    pub dnssec_ok: bool,
}

impl Edns {
    /// Of a record of kind OPT: its class and its life.
    pub(super) fn of(class: u16, life: u32) -> Self {
        let [_extended, version, ..] = life.to_be_bytes();
        Self {
            payload: class,
            version,
            dnssec_ok: life & DNSSEC_OK != 0,
        }
    }

    pub(super) fn write(self, code: Code, to: &mut Vec<u8>) {
        let [_, extended] = (code.0 >> 4).to_be_bytes();
        let flags = if self.dnssec_ok { DNSSEC_OK } else { 0 };
        let life = u32::from_be_bytes([extended, self.version, 0, 0]) | flags;
        to.push(0);
        to.extend(Kind::OPT.0.to_be_bytes());
        to.extend(self.payload.to_be_bytes());
        to.extend(life.to_be_bytes());
        to.extend([0, 0]);
    }
}

/// A question as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its number.
    pub id: u16,
    /// Those flags of its header that the answer repeats or goes by.
    pub(super) flags: u16,
    /// What is asked.
    pub question: Question,
    /// What is said of the exchange.
    pub edns: Option<Edns>,
}

/// What is not to be answered as a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// With nothing: it is no message, or one that says that another was none.
    Silence,
    /// With a code alone.
    Code {
        /// The code.
        code: Code,
        /// The number of what came.
        id: u16,
        /// Its flags.
        flags: u16,
    },
}

impl Unfit {
    /// What is sent back.
    pub fn reply(self) -> Option<Vec<u8>> {
        let Self::Code { code, id, flags } = self else {
            return None;
        };
        let kept = flags & (flag::OPCODE | flag::RECURSE);
        let flags = flag::RESPONSE | flag::RECURSIVE | kept | (code.0 & flag::CODE);
        let mut reply = Vec::with_capacity(HEADER + EDNS);
        reply.extend(id.to_be_bytes());
        reply.extend(flags.to_be_bytes());
        reply.extend([0; 8]);
        // The rest of the code has no other place.
        if code == Code::VERSION {
            reply[11] = 1;
            own_edns(false).write(code, &mut reply);
        }
        Some(reply)
    }
}

fn own_edns(dnssec_ok: bool) -> Edns {
    Edns {
        payload: DATAGRAM,
        version: 0,
        dnssec_ok,
    }
}

impl Query {
    /// Reads a question.
    ///
    /// # Errors
    /// [`Unfit`], with what is to be sent back.
    pub fn read(message: &[u8]) -> Result<Self, Unfit> {
        let mut reader = Reader::at(message, 0);
        let (id, flags, counts) = Self::head(&mut reader).ok_or(Unfit::Silence)?;
        let unfit = |code| Unfit::Code { code, id, flags };
        if flags & flag::RESPONSE != 0 {
            // Two who tell each other so would never end.
            let is_complaint = flags & flag::CODE == Code::FORMAT.0;
            return Err(if is_complaint {
                Unfit::Silence
            } else {
                unfit(Code::FORMAT)
            });
        }
        if flags & flag::OPCODE != 0 {
            return Err(unfit(Code::NOT_IMPLEMENTED));
        }
        let body = Self::body(&mut reader, counts);
        let (question, edns) = body.ok_or_else(|| unfit(Code::FORMAT))?;
        if edns.is_some_and(|edns| edns.version > 0) {
            return Err(unfit(Code::VERSION));
        }
        let kept = flag::RECURSE | flag::UNCHECKED | flag::AUTHENTIC;
        Ok(Self {
            id,
            flags: flags & kept,
            question,
            edns,
        })
    }

    fn head(reader: &mut Reader<'_>) -> Option<(u16, u16, [u16; 4])> {
        let (id, flags) = (reader.number()?, reader.number()?);
        let mut counts = [0; 4];
        for count in &mut counts {
            *count = reader.number()?;
        }
        Some((id, flags, counts))
    }

    fn body(reader: &mut Reader<'_>, counts: [u16; 4]) -> Option<(Question, Option<Edns>)> {
        let [1, answers, authorities, additionals] = counts else {
            return None;
        };
        let question = Question::read(reader)?;
        let mut edns = None;
        let before = u32::from(answers) + u32::from(authorities);
        for number in 0..before + u32::from(additionals) {
            let octets = reader.pass_name()?;
            let (kind, class) = (Kind(reader.number()?), reader.number()?);
            let (life, length) = (reader.long()?, reader.number()?);
            reader.take(length.into())?;
            if kind != Kind::OPT {
                continue;
            }
            let misplaced = number < before || octets != 1;
            if misplaced || edns.replace(Edns::of(class, life)).is_some() {
                return None;
            }
        }
        Some((question, edns))
    }

    /// A question of our own.
    pub fn new(id: u16, question: Question) -> Self {
        Self {
            id,
            flags: flag::RECURSE,
            question,
            edns: None,
        }
    }

    /// The largest answer that may be sent.
    pub fn limit(&self, transport: Transport) -> usize {
        match (transport, self.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => usize::from(PLAIN),
            (Transport::Udp, Some(edns)) => usize::from(edns.payload.clamp(PLAIN, DATAGRAM)),
        }
    }

    /// Whether signatures are wanted.
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Whether who asks checks signatures himself.
    pub fn unchecked(&self) -> bool {
        self.flags & flag::UNCHECKED != 0
    }

    /// The flags of an answer, with a code.
    pub(super) fn answered(&self, more: u16, code: Code) -> u16 {
        let kept = self.flags & (flag::RECURSE | flag::UNCHECKED);
        flag::RESPONSE | flag::RECURSIVE | kept | more | (code.0 & flag::CODE)
    }

    /// Appends what is said of the exchange, where whoever asked did so too: with what he takes, since
    /// the answer is no larger (`spec/hbone-dataplane.md` §5).
    pub(super) fn append_edns(&self, code: Code, to: &mut Vec<u8>) -> bool {
        let Some(edns) = self.edns else {
            return false;
        };
        let payload = edns.payload.max(PLAIN);
        Edns { payload, ..edns }.write(code, to);
        true
    }
}

/// A question to a server: with what is said of the exchange, unless that server does not know it.
pub fn ask(id: u16, query: &Query, edns: bool) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + query.question.name.wire().len() + 15);
    let unchecked = query.flags & flag::UNCHECKED;
    message.extend(id.to_be_bytes());
    message.extend((flag::RECURSE | flag::AUTHENTIC | unchecked).to_be_bytes());
    for count in [1, 0, 0, u16::from(edns)] {
        message.extend(count.to_be_bytes());
    }
    query.question.write(&mut message);
    if edns {
        own_edns(query.dnssec_ok()).write(Code::OK, &mut message);
    }
    message
}

#[cfg(test)]
mod tests;
