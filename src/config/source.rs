//! A file's text, and places in it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::model::declaration::Origin;

/// A file as it was read. Kept alive by every [`Place`] in it.
pub struct Source {
    /// As shown to people: what they gave on the command line, joined with the path below it.
    shown: Arc<str>,
    /// Below the mesh directory.
    relative: Arc<str>,
    text: Arc<str>,
    /// Byte offset at which each line begins.
    lines: Vec<usize>,
}

/// A line and column, both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The character in it.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Source {
    /// A file's text under the name people know it by, and its path below the mesh directory.
    pub fn new(shown: &str, relative: &str, text: String) -> Arc<Self> {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        let lines = [0].into_iter().chain(breaks.map(|(at, _)| at + 1));
        Arc::new(Self {
            shown: Arc::from(shown),
            relative: Arc::from(relative),
            lines: lines.collect(),
            text: Arc::from(text),
        })
    }

    /// Its name as shown to people.
    pub fn name(&self) -> &str {
        &self.shown
    }

    /// Its path below the mesh directory.
    pub fn relative(&self) -> &Arc<str> {
        &self.relative
    }

    /// Its whole text.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Where the byte at `offset` stands; past the end is the end.
    pub fn position(&self, offset: usize) -> Position {
        let index = self.line_index(offset);
        let start = self.lines[index];
        let before = self.text.get(start..offset.min(self.text.len()));
        let column = before.map_or(0, |b| b.chars().count()) + 1;
        Position {
            line: u32::try_from(index + 1).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }

    /// Index from 0 of the line that holds `offset`.
    pub(super) fn line_index(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset) - 1
    }

    /// Where the line of that index begins; past the last one, the end of the text.
    pub(super) fn line_start(&self, index: usize) -> usize {
        self.lines.get(index).copied().unwrap_or(self.text.len())
    }

    /// The place of a span of bytes, moved to character boundaries inside the text.
    pub(super) fn place(self: &Arc<Self>, span: Range<usize>) -> Place {
        let fit = |mut at: usize| {
            at = at.min(self.text.len());
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = fit(span.start);
        Place {
            source: Arc::clone(self),
            span: start..fit(span.end).max(start),
        }
    }

    /// The file as a whole, when no text in it can be pointed at.
    pub(super) fn whole(self: &Arc<Self>) -> Place {
        self.place(0..0)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.shown)
    }
}

/// A stretch of text in a file.
#[derive(Clone)]
pub struct Place {
    source: Arc<Source>,
    span: Range<usize>,
}

impl Place {
    /// The file.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The bytes, on character boundaries.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The text.
    pub fn text(&self) -> &str {
        self.source.text.get(self.span()).unwrap_or_default()
    }

    /// Where it begins.
    pub fn start(&self) -> Position {
        self.source.position(self.span.start)
    }

    /// Where it ends, one past its last character.
    pub fn end(&self) -> Position {
        self.source.position(self.span.end)
    }

    /// What `model` keeps of it: file and line.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            file: Arc::clone(&self.source.relative),
            line: self.start().line,
        }
    }

    /// The order of places in a report: by file, then as read.
    pub(super) fn order(&self) -> (&str, usize, usize) {
        (&self.source.shown, self.span.start, self.span.end)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Place {
    /// `mesh/shop.toml:14:9`, or the file alone when it has no text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source.text.is_empty() {
            true => f.write_str(&self.source.shown),
            false => write!(f, "{}:{}", self.source.shown, self.start()),
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub place: Place,
}

impl<T> At<T> {
    pub(super) fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = Source::new("m/a.toml", "a.toml", "ä = 1\nbé = 2\n".to_owned());
        for (name, offset, want) in [
            ("start", 0, "1:1"),
            ("after a wide character", 2, "1:2"),
            ("line end", 6, "1:6"),
            ("second line", 7, "2:1"),
            ("inside the second line", 11, "2:4"),
            ("end", 15, "3:1"),
            ("past the end", 99, "3:1"),
        ] {
            assert_eq!(source.position(offset).to_string(), want, "{name}");
        }
    }

    #[test]
    fn places_never_split_a_character() {
        let source = Source::new("a", "a", "ä".to_owned());
        for (start, end) in [(0, 1), (1, 2), (1, 1), (0, 9), (7, 3)] {
            let place = source.place(start..end);
            assert!(place.span().start <= place.span().end);
            let _text = place.text();
        }
    }
}
