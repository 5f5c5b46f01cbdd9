//! Splits the text of an expression into its words.

use super::ExpressionError;

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    Int(i64),
    Double(f64),
    Text(String),
    Name(String),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// A word, and the byte it begins at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) word: Word,
}

/// What is wrong, at which byte.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }

    /// The same by the character of its source.
    pub(super) fn within(self, source: &str) -> ExpressionError {
        let before = source.get(..self.at).unwrap_or(source);
        ExpressionError {
            at: before.chars().count(),
            message: self.message,
        }
    }
}

/// The longer ones first.
const SIGNS: [&str; 22] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "?", ":", "(", ")", "[", "]", ",", ".", "+",
    "-", "*", "/", "%",
];

pub(super) fn words(source: &str) -> Result<Vec<Token>, Fault> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        let rest = source.get(at..).unwrap_or_default();
        let Some(first) = rest.chars().next() else {
            let word = Word::End;
            tokens.push(Token { at, word });
            return Ok(tokens);
        };
        let length = if first.is_ascii_whitespace() {
            1
        } else {
            let (word, length) = word(rest, first).map_err(|mut fault| {
                fault.at += at;
                fault
            })?;
            tokens.push(Token { at, word });
            length
        };
        at += length;
    }
}

/// The word that a text begins with, and its length.
fn word(rest: &str, first: char) -> Result<(Word, usize), Fault> {
    if first.is_ascii_digit() {
        return number(rest);
    }
    if first.is_ascii_alphabetic() || first == '_' {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let name = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let raw = rest
            .get(name.len()..)
            .and_then(|after| after.chars().next());
        if let ("r" | "R", Some(quote @ ('"' | '\''))) = (name, raw) {
            let (text, length) = text(rest.get(1..).unwrap_or_default(), quote, true)?;
            return Ok((Word::Text(text), length + 1));
        }
        return Ok((Word::Name(name.to_owned()), name.len()));
    }
    if let quote @ ('"' | '\'') = first {
        let (text, length) = text(rest, quote, false)?;
        return Ok((Word::Text(text), length));
    }
    let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
    match sign {
        Some(sign) => Ok((Word::Sign(sign), sign.len())),
        None => Err(Fault::new(0, format!("`{first}` means nothing here"))),
    }
}

fn number(rest: &str) -> Result<(Word, usize), Fault> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(rest);
    let after = rest.get(whole..).unwrap_or_default();
    let decimals = after.strip_prefix('.').map_or(0, digits);
    let length = match decimals {
        0 => whole,
        decimals => whole + 1 + decimals,
    };
    let written = rest.get(..length).unwrap_or_default();
    let word = match decimals {
        0 => written.parse().ok().map(Word::Int),
        _ => written.parse().ok().map(Word::Double),
    };
    let next = rest.get(length..).and_then(|rest| rest.chars().next());
    if next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Fault::new(length, "a number ends here"));
    }
    match word {
        Some(word) => Ok((word, length)),
        None => Err(Fault::new(0, format!("`{written}` is too large a number"))),
    }
}

/// A quoted text and its length with the quotes.
fn text(rest: &str, quote: char, raw: bool) -> Result<(String, usize), Fault> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Ok((text, at + 1)),
            '\\' if !raw => {
                let (_, escaped) = chars.next().ok_or_else(unclosed)?;
                text.push(match escaped {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    '\\' | '"' | '\'' | '`' | '?' => escaped,
                    other => {
                        let message = format!("`\\{other}` stands for nothing");
                        return Err(Fault::new(at, message));
                    }
                });
            }
            c => text.push(c),
        }
    }
    Err(unclosed())
}

fn unclosed() -> Fault {
    Fault::new(0, "this text has no end")
}
