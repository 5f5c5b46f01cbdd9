//! What has been done for a request, and when.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use super::context::SpanContext;

/// Which end of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request was answered.
    Server,
    /// One was sent.
    Client,
}

/// A tag's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text of our own, or of the mesh's.
    Text(Cow<'static, str>),
    /// One that spans share.
    Shared(Arc<str>),
}

impl Value {
    /// As it is told.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Shared(text)
    }
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which.
    pub context: SpanContext,
    /// Which end of a call it is.
    pub kind: Kind,
    /// What was done.
    pub name: Arc<str>,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What is told of it, by key; each once.
    pub tags: Vec<(Cow<'static, str>, Value)>,
    /// What went wrong, if anything did.
    pub error: Option<Cow<'static, str>>,
}

/// A text that is no longer than so many octets, cut between characters.
pub fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        for (text, most, want) in [
            ("path", 4, "path"),
            ("path", 3, "pat"),
            ("path", 0, ""),
            ("aé", 2, "a"),
            ("aé", 3, "aé"),
            ("日本", 5, "日"),
        ] {
            assert_eq!(cut(text, most), want, "{text} {most}");
        }
    }
}
