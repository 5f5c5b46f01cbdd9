//! A log line put together by hand, letter for letter as the log's own formatter would: what is
//! written for every connection must not cost as much as carrying it.

use std::fmt::{Display, Write as _};

use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use super::Format;

/// A line being written.
pub struct Line<'a> {
    text: &'a mut String,
    format: Format,
}

impl<'a> Line<'a> {
    /// Begins a line behind what `text` holds, with the time that it is now.
    pub fn begin(
        text: &'a mut String,
        format: Format,
        level: Level,
        target: &str,
        message: &str,
    ) -> Self {
        if format == Format::Json {
            text.push_str("{\"timestamp\":\"");
        }
        // Writing to a string does not fail, here and below.
        let _infallible = SystemTime.format_time(&mut Writer::new(text));
        let _infallible = match format {
            Format::Text => write!(text, " {level:>5} {target}: {message}"),
            Format::Json => write!(text, "\",\"level\":\"{level}\",\"message\":\"{message}\""),
        };
        Self { text, format }
    }

    /// A field whose value needs no quotes in text and no escapes in JSON: an address.
    pub fn bare(&mut self, name: &str, value: &impl Display) -> &mut Self {
        self.name(name);
        let _infallible = match self.format {
            Format::Text => write!(self.text, "{value}"),
            Format::Json => write!(self.text, "\"{value}\""),
        };
        self
    }

    /// A field whose value is quoted and needs no escapes: an identity.
    pub fn quoted(&mut self, name: &str, value: &impl Display) -> &mut Self {
        self.name(name);
        let _infallible = write!(self.text, "\"{value}\"");
        self
    }

    /// A field with any text.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        let plain = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
        if value.bytes().all(plain) {
            self.text.push('"');
            self.text.push_str(value);
            self.text.push('"');
            return self;
        }
        let _infallible = match self.format {
            Format::Text => write!(self.text, "{value:?}"),
            Format::Json => write!(self.text, "{}", serde_json::Value::from(value)),
        };
        self
    }

    /// A field with a number.
    pub fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.name(name);
        let _infallible = write!(self.text, "{value}");
        self
    }

    /// Ends the line.
    pub fn end(self, target: &str) {
        if self.format == Format::Json {
            self.text.push_str(",\"target\":\"");
            self.text.push_str(target);
            self.text.push_str("\"}");
        }
        self.text.push('\n');
    }

    fn name(&mut self, name: &str) {
        match self.format {
            Format::Text => {
                self.text.push(' ');
                self.text.push_str(name);
                self.text.push('=');
            }
            Format::Json => {
                self.text.push_str(",\"");
                self.text.push_str(name);
                self.text.push_str("\":");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the log's own formatter makes of the same event.
    fn theirs(format: Format, awkward: &str) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let builder = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false);
        let event = || {
            tracing::info!(
                target: "access",
                { src.addr = %"10.0.0.1:1", src.identity = "spiffe://m/ns/a/sa/b", bytes_sent = 7u64, error = awkward },
                "connection complete"
            );
        };
        match format {
            Format::Text => tracing::subscriber::with_default(builder.finish(), event),
            Format::Json => {
                let json = builder.json().flatten_event(true).finish();
                tracing::subscriber::with_default(json, event);
            }
        }
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn ours(format: Format, awkward: &str) -> String {
        let mut text = String::new();
        let mut line = Line::begin(
            &mut text,
            format,
            Level::INFO,
            "access",
            "connection complete",
        );
        line.bare("src.addr", &"10.0.0.1:1")
            .quoted("src.identity", &"spiffe://m/ns/a/sa/b")
            .number("bytes_sent", 7)
            .text("error", awkward);
        line.end("access");
        text
    }

    /// Without the time, which differs.
    fn timeless(line: &str) -> String {
        let (before, after) = line.split_once("Z").unwrap();
        let at = before.len() - "2026-11-26T01:42:44.972943".len();
        format!("{}{after}", &before[..at])
    }

    #[test]
    fn a_line_is_as_the_formatter_writes_it() {
        for (name, awkward) in [
            ("plain", "connection reset"),
            ("empty", ""),
            ("quotes", "it said \"no\""),
            ("a backslash", "a\\b"),
            ("control characters", "a\nb\tc\u{1b}[31m\u{7f}"),
            ("beyond ASCII", "nicht möglich — 無"),
        ] {
            for format in [Format::Text, Format::Json] {
                let (ours, theirs) = (ours(format, awkward), theirs(format, awkward));
                assert_eq!(timeless(&ours), timeless(&theirs), "{name}, {format:?}");
            }
        }
    }
}
