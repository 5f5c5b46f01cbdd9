//! How deep a text nests, found without building anything.
//!
//! The parser under `toml` bounds brackets and dotted keys each, but not their product: half a
//! megabyte of both makes a tree whose mere dropping overflows the stack.

use std::ops::Range;

use toml_parser::decoder::Encoding;
use toml_parser::parser::{EventReceiver, parse_document};
use toml_parser::{ErrorSink, Source, Span};

/// Tables and lists inside each other, counted from the top of the file
/// (`spec/reliability.md` §2b).
pub(super) const DEEPEST: usize = 32;

/// Where a text first nests deeper than [`DEEPEST`].
pub(super) fn too_deep(text: &str) -> Option<Range<usize>> {
    let tokens = Source::new(text).lex().into_vec();
    let mut gauge = Gauge::default();
    parse_document(&tokens, &mut gauge, &mut ());
    gauge.over.map(|span| span.start()..span.end())
}

/// Follows the parser's events. A key of n parts opens n tables until its value ends.
#[derive(Default)]
struct Gauge {
    /// Parts of the last header.
    header: usize,
    in_header: bool,
    /// Parts of the key being read, on top of what `open` holds.
    key: usize,
    /// For each open bracket, the parts of the key it is the value of, and itself.
    open: Vec<usize>,
    /// The sum of `open`.
    sum: usize,
    over: Option<Span>,
}

impl Gauge {
    fn measure(&mut self, span: Span) -> bool {
        let within = self.header + self.sum + self.key <= DEEPEST;
        if !within && self.over.is_none() {
            self.over = Some(span);
        }
        within
    }

    fn enter(&mut self, span: Span) -> bool {
        let added = self.key + 1;
        self.open.push(added);
        self.sum += added;
        self.key = 0;
        self.measure(span)
    }

    fn leave(&mut self) {
        self.sum -= self.open.pop().unwrap_or(0);
        self.key = 0;
    }

    fn begin_header(&mut self) {
        (self.header, self.key, self.in_header) = (0, 0, true);
        self.open.clear();
        self.sum = 0;
    }

    fn end_header(&mut self) {
        self.header = self.key;
        (self.key, self.in_header) = (0, false);
    }
}

impl EventReceiver for Gauge {
    fn std_table_open(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.begin_header();
    }

    fn std_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.end_header();
    }

    fn array_table_open(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.begin_header();
    }

    fn array_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.end_header();
    }

    fn inline_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        self.enter(span)
    }

    fn inline_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.leave();
    }

    fn array_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        self.enter(span)
    }

    fn array_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.leave();
    }

    fn simple_key(&mut self, span: Span, _: Option<Encoding>, _: &mut dyn ErrorSink) {
        self.key += 1;
        self.measure(span);
    }

    fn scalar(&mut self, _: Span, _: Option<Encoding>, _: &mut dyn ErrorSink) {
        self.key = 0;
    }

    fn value_sep(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.key = 0;
    }

    fn newline(&mut self, _: Span, _: &mut dyn ErrorSink) {
        if self.in_header {
            self.end_header();
        }
        self.key = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_counted_over_brackets_headers_and_dots() {
        let dots = |n: usize| vec!["a"; n].join(".");
        for (name, text, over) in [
            ("flat", "a = 1\nb = [1, 2]\n".to_owned(), false),
            (
                "brackets at the limit",
                format!("a = {}{}", "[".repeat(31), "]".repeat(31)),
                false,
            ),
            (
                "one more",
                format!("a = {}{}", "[".repeat(32), "]".repeat(32)),
                true,
            ),
            ("dots at the limit", format!("{} = 1", dots(32)), false),
            ("a dot more", format!("{} = 1", dots(33)), true),
            (
                "header and dots",
                format!("[{}]\n{} = 1", dots(16), dots(17)),
                true,
            ),
            (
                "headers do not add up",
                format!("[{}]\n[{}]\n", dots(30), dots(30)),
                false,
            ),
            (
                "siblings do not add up",
                format!("a = [{}]", "[1],".repeat(100)),
                false,
            ),
            (
                "dots in text",
                format!("a = \"{}\"", ".".repeat(100)),
                false,
            ),
            (
                "versions in a list",
                format!("a = [{}]", "1.5,".repeat(100)),
                false,
            ),
            ("mixed", "x = {a.b={c.d=[[1]]}}".to_owned(), false),
            ("unclosed", "a = ".to_owned() + &"[".repeat(100), true),
        ] {
            assert_eq!(too_deep(&text).is_some(), over, "{name}: {text}");
        }
    }
}
