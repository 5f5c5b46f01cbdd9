//! What a server answers, as far as it must be known to pass it on.

use std::time::Duration;

use super::answer::finish;
use super::code::Code;
use super::kind::Kind;
use super::query::{Query, Question, Transport};
use super::reader::Reader;
use super::{HEADER, flag};

/// Largest life of a record (RFC 2181 §8): a larger number means none.
const LONGEST_LIFE: u32 = 0x7fff_ffff;
/// An octet that is no length of a label, nor refers anywhere (RFC 6891 §5).
const NO_LENGTH: u8 = 0x40;
/// Octets of the numbers at the end of an SOA record, the last of which says how long there is none of
/// what was asked for (RFC 2308 §4).
const SOA_NUMBERS: usize = 20;

/// An answer to a question of ours, without what was said of the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    message: Vec<u8>,
    /// Where the lives of its records stand.
    lives: Vec<u16>,
    /// What became of the question.
    pub code: Code,
    /// How long it may be kept; `None` where nothing says so.
    pub life: Option<Duration>,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Its answer.
    Answer(Received),
    /// That it does not fit.
    Truncated,
    /// Something else: it is of somebody else, or late.
    Other,
    /// What cannot be read, from whom was asked.
    Unreadable,
}

/// Of what age the answer is when it is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lives {
    /// It was received so long ago.
    Less(Duration),
    /// It is past its end, and is good for so long all the same.
    All(Duration),
}

/// Reads what came from a server, for a question that was sent to it under a number.
pub fn hear(mut message: Vec<u8>, id: u16, question: &Question) -> Heard {
    let Some((flags, counts, mut reader)) = head(&message, id, question) else {
        return Heard::Other;
    };
    if flags & flag::TRUNCATED != 0 {
        return Heard::Truncated;
    }
    let first = reader.offset();
    let Some(records) = Records::read(&mut reader, counts) else {
        return Heard::Unreadable;
    };
    let ageless = without_lives(&message, &records.lives);
    if Records::read(&mut Reader::at(&ageless, first), counts).is_none() {
        return Heard::Unreadable;
    }
    let code = Code(records.code << 4 | flags & flag::CODE);
    let life = records.life(code);
    message.truncate(records.end);
    message[10..12].copy_from_slice(&records.additionals.to_be_bytes());
    message.shrink_to_fit();
    Heard::Answer(Received {
        message,
        lives: records.lives,
        code,
        life,
    })
}

/// The same with lives that end no name and lead to none, and so the octets before them, in which a
/// reference might begin: a name that refers to the life of a record is another once that has aged.
fn without_lives(message: &[u8], lives: &[u16]) -> Vec<u8> {
    let mut message = message.to_vec();
    for at in lives.iter().map(|at| usize::from(*at)) {
        if let Some(place) = message.get_mut(at - 1..at + 4) {
            place.fill(NO_LENGTH);
        }
    }
    message
}

/// The flags and counts of a message, if it is an answer to that question.
fn head<'a>(
    message: &'a [u8],
    id: u16,
    question: &Question,
) -> Option<(u16, [u16; 3], Reader<'a>)> {
    let mut reader = Reader::at(message, 0);
    let (number, flags, questions) = (reader.number()?, reader.number()?, reader.number()?);
    let counts = [reader.number()?, reader.number()?, reader.number()?];
    let answers = flags & (flag::RESPONSE | flag::OPCODE) == flag::RESPONSE;
    if number != id || !answers || questions != 1 {
        return None;
    }
    let asked = Question::read(&mut reader)?;
    // What is written out ends where ours does, and can be replaced by it.
    let end = HEADER + question.name.wire().len() + 4;
    let same = asked.is(question) && reader.offset() == end;
    same.then_some((flags, counts, reader))
}

/// What is known of the records of a message.
#[derive(Default)]
struct Records {
    lives: Vec<u16>,
    /// Where those end that are passed on.
    end: usize,
    /// How many there are after the authorities.
    additionals: u16,
    /// The upper part of the code.
    code: u16,
    answers: u16,
    shortest: Option<u32>,
    none_for: Option<u32>,
}

impl Records {
    fn read(reader: &mut Reader<'_>, counts: [u16; 3]) -> Option<Self> {
        let [answers, authorities, additionals] = counts;
        let mut records = Self {
            answers,
            end: reader.offset(),
            ..Self::default()
        };
        for _ in 0..answers {
            let (_, life) = records.record(reader)?;
            let shortest = records.shortest.map_or(life, |s| s.min(life));
            records.shortest = Some(shortest);
        }
        for _ in 0..authorities {
            let (none_for, life) = records.record(reader)?;
            let none_for = none_for.map(|minimum| minimum.min(life));
            records.none_for = none_for.or(records.none_for);
        }
        for _ in 0..additionals {
            let at = reader.clone();
            if let Some(code) = exchange(reader) {
                // Those behind it may refer to it; who puts them there is read without them.
                records.code = code;
                return Some(records);
            }
            *reader = at;
            records.record(reader)?;
            records.additionals += 1;
        }
        Some(records)
    }

    /// Reads one that is passed on: how long it says that there is none, and its life.
    fn record(&mut self, reader: &mut Reader<'_>) -> Option<(Option<u32>, u32)> {
        let _owner = reader.pass_name()?;
        let (kind, _class) = (Kind(reader.number()?), reader.number()?);
        let at = u16::try_from(reader.offset()).ok()?;
        let life = reader.long()?;
        let life = if life > LONGEST_LIFE { 0 } else { life };
        let length = usize::from(reader.number()?);
        let mut data = reader.clone();
        reader.take(length)?;
        let none_for = names(kind, &mut data, reader.offset())?;
        self.lives.push(at);
        self.end = reader.offset();
        Some((none_for, life))
    }

    fn life(&self, code: Code) -> Option<Duration> {
        let seconds = match code {
            // Aliases that lead nowhere are kept no longer than that they do.
            Code::OK if self.answers > 0 => self.shortest.min(self.none_for.or(self.shortest)),
            Code::OK | Code::NO_NAME => self.none_for,
            _ => None,
        };
        seconds.map(|s| Duration::from_secs(s.into()))
    }
}

/// Reads what is said of the exchange, if that comes next: the upper part of the code.
fn exchange(reader: &mut Reader<'_>) -> Option<u16> {
    let (octets, kind, _) = (
        reader.pass_name()?,
        Kind(reader.number()?),
        reader.number()?,
    );
    let [extended, ..] = reader.long()?.to_be_bytes();
    let length = reader.number()?;
    reader.take(length.into())?;
    (kind == Kind::OPT && octets == 1).then_some(extended.into())
}

/// Reads the names within a record of the kinds in which names refer to others (RFC 3597 §4), since
/// whoever this is passed on to reads them too. Of an SOA the last number.
fn names(kind: Kind, data: &mut Reader<'_>, end: usize) -> Option<Option<u32>> {
    let (before, names, after) = match kind {
        Kind::NS | Kind::CNAME | Kind::PTR | Kind::DNAME => (0, 1, 0),
        Kind::MX => (2, 1, 0),
        Kind::SOA => (0, 2, SOA_NUMBERS),
        _ => return Some(None),
    };
    data.take(before)?;
    for _ in 0..names {
        data.pass_name()?;
    }
    let numbers = data.take(after)?;
    let minimum = numbers.last_chunk().map(|n| u32::from_be_bytes(*n));
    (data.offset() == end).then_some(minimum)
}

impl Received {
    /// Octets that it takes to keep it.
    pub fn size(&self) -> usize {
        self.message.len() + 2 * self.lives.len()
    }

    /// The answer to the same question of somebody else.
    pub fn reply(&self, query: &Query, lives: Lives, transport: Transport) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.message.len() + 11);
        message.extend(&self.message);
        let flags = u16::from_be_bytes([message[2], message[3]]);
        let checked = query.dnssec_ok() || query.flags & flag::AUTHENTIC != 0;
        let authentic = if checked { flags & flag::AUTHENTIC } else { 0 };
        message[..2].copy_from_slice(&query.id.to_be_bytes());
        // Cut to what a header holds, it would be another one: a failure might read as success.
        let code = match query.edns {
            None if self.code.0 > flag::CODE => Code::FAILURE,
            _ => self.code,
        };
        let flags = query.answered(authentic, code);
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        // In the letters in which it was asked for.
        let name = query.question.name.wire();
        message[HEADER..HEADER + name.len()].copy_from_slice(name);
        for at in self.lives.iter().map(|at| usize::from(*at)) {
            let (_, from) = message.split_at_mut(at);
            if let Some(life) = from.first_chunk_mut() {
                *life = aged(u32::from_be_bytes(*life), lives).to_be_bytes();
            }
        }
        finish(query, code, message, transport)
    }

    /// The message, without what was said of the exchange.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }
}

fn aged(life: u32, lives: Lives) -> u32 {
    let seconds = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
    match lives {
        Lives::All(life) => seconds(life),
        Lives::Less(_) if life > LONGEST_LIFE => 0,
        Lives::Less(age) => life.saturating_sub(seconds(age)),
    }
}

#[cfg(test)]
mod tests;
