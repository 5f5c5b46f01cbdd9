//! How a text is matched.

use std::fmt;
use std::sync::Arc;

/// Bytes a compiled pattern may take.
const SIZE: usize = 1 << 20;

/// A regular expression in RE2's language, which takes a text as a whole or not at all. Two are equal
/// when they are written alike.
#[derive(Clone)]
pub struct Regex {
    source: Arc<str>,
    whole: regex::Regex,
    /// By itself, as it is found within a text.
    part: regex::Regex,
}

/// Not a regular expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no regular expression: {0}")]
pub struct RegexError(String);

impl Regex {
    /// Compiles it.
    ///
    /// # Errors
    /// [`RegexError`] where it is none, or too large a one.
    pub fn new(source: &str) -> Result<Self, RegexError> {
        // By itself first, so that nobody closes the group that makes it a whole.
        let part = regex::RegexBuilder::new(source)
            .size_limit(SIZE)
            .build()
            .map_err(|e| RegexError(e.to_string()))?;
        let whole = regex::RegexBuilder::new(&format!("^(?:{source})$"))
            .size_limit(SIZE)
            .build()
            .map_err(|e| RegexError(e.to_string()))?;
        Ok(Self {
            source: Arc::from(source),
            whole,
            part,
        })
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What finds it within a text.
    pub(super) fn part(&self) -> &regex::Regex {
        &self.part
    }

    /// Whether it takes all of a text.
    pub fn is_match(&self, text: &str) -> bool {
        self.whole.is_match(text)
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Regex {}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?})", self.source)
    }
}

/// How a text that may be absent is matched; case counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// It is this.
    Exact(Arc<str>),
    /// It begins so.
    Prefix(Arc<str>),
    /// It matches as a whole.
    Regex(Regex),
    /// It is there.
    Present,
}

impl TextMatch {
    /// Whether it takes a text that is there.
    pub fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Exact(want) => **want == *text,
            Self::Prefix(want) => text.starts_with(&**want),
            Self::Regex(want) => want.is_match(text),
            Self::Present => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_the_whole_text() {
        let regex = Regex::new("/a.*c|/b").unwrap();
        for (text, want) in [
            ("/a/bc", true),
            ("/b", true),
            ("/abcd", false),
            ("x/b", false),
            ("/bx", false),
        ] {
            assert_eq!(regex.is_match(text), want, "{text}");
        }
        assert!(Regex::new("a)|(b").is_err());
        assert!(Regex::new("(").is_err());
    }
}
