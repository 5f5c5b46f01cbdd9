//! Messages in words, for people and for tests.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::code::Code;
use super::flag;
use super::kind::Kind;
use super::query::{Edns, Question};
use super::reader::Reader;

/// The flags that are told, in this order.
const FLAGS: [(u16, &str); 6] = [
    (flag::AUTHORITATIVE, "aa"),
    (flag::RECURSIVE, "ra"),
    (flag::RECURSE, "rd"),
    (flag::TRUNCATED, "tc"),
    (flag::AUTHENTIC, "ad"),
    (flag::UNCHECKED, "cd"),
];

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its number.
    pub id: u16,
    /// What became of the question, as `NOERROR`.
    pub code: String,
    /// The flags that are set.
    pub flags: Vec<&'static str>,
    /// The question, as `cart. A`; empty where there is none.
    pub question: String,
    /// Every record, as `owner life type data`.
    pub records: Vec<String>,
    /// What is said of the exchange, as `edns 1232`.
    pub edns: Option<String>,
}

/// Reads a whole message; `None` where it is none, or more follows it.
pub fn shown(message: &[u8]) -> Option<Shown> {
    let mut reader = Reader::at(message, 0);
    let (id, flags) = (reader.number()?, reader.number()?);
    let mut counts = [0; 4];
    for count in &mut counts {
        *count = reader.number()?;
    }
    let [questions, answers, authorities, additionals] = counts;
    let mut question = String::new();
    for _ in 0..questions {
        let asked = Question::read(&mut reader)?;
        question = format!("{} {}", asked.name, asked.kind);
    }
    let (mut records, mut edns, mut code) = (Vec::new(), None, flags & flag::CODE);
    for _ in 0..u32::from(answers) + u32::from(authorities) + u32::from(additionals) {
        let owner = reader.name()?;
        let (kind, class, life) = (Kind(reader.number()?), reader.number()?, reader.long()?);
        let length = usize::from(reader.number()?);
        let data = reader.clone();
        let bytes = reader.take(length)?;
        if kind == Kind::OPT {
            let Edns {
                payload, dnssec_ok, ..
            } = Edns::of(class, life);
            edns = Some(format!(
                "edns {payload}{}",
                if dnssec_ok { " do" } else { "" }
            ));
            code |= u16::from(life.to_be_bytes()[0]) << 4;
            continue;
        }
        let data = told(kind, bytes, data);
        records.push(format!("{owner} {life} {kind} {data}"));
    }
    (reader.offset() == message.len()).then(|| Shown {
        id,
        code: Code(code).to_string(),
        flags: FLAGS
            .iter()
            .filter(|(bit, _)| flags & bit != 0)
            .map(|(_, word)| *word)
            .collect(),
        question,
        records,
        edns,
    })
}

fn told(kind: Kind, bytes: &[u8], mut data: Reader<'_>) -> String {
    let octets = || format!("{} octets", bytes.len());
    match kind {
        Kind::A => {
            <[u8; 4]>::try_from(bytes).map_or_else(|_| octets(), |a| IpAddr::from(a).to_string())
        }
        Kind::AAAA => {
            <[u8; 16]>::try_from(bytes).map_or_else(|_| octets(), |a| IpAddr::from(a).to_string())
        }
        Kind::CNAME | Kind::PTR | Kind::NS => {
            data.name().map_or_else(octets, |name| name.to_string())
        }
        _ => octets(),
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        for word in &self.flags {
            write!(f, " {word}")?;
        }
        if !self.question.is_empty() {
            write!(f, " {}:", self.question)?;
        }
        for words in self.records.iter().chain(&self.edns) {
            write!(f, " {words}")?;
        }
        Ok(())
    }
}
