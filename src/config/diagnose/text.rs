//! A report as text: one greppable line per finding, then the file with the mistake underlined.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents,
    NarratableReportHandler, SourceCode, SourceSpan, SpanContents, ThemeCharacters, ThemeStyles,
};

use super::{Diagnostic, Related, Report, Severity};
use crate::config::source::{Place, Source};

/// How a report is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawing {
    /// With box-drawing characters: for terminals.
    Unicode,
    /// With ASCII alone: for files and pipes.
    Ascii,
    /// In sentences: for screen readers.
    Narrated,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// How snippets are drawn.
    pub drawing: Drawing,
    /// Whether with colours. Sentences have none.
    pub color: bool,
    /// Columns to wrap at.
    pub width: usize,
    /// Findings drawn in full; what is over is counted only.
    pub most: usize,
}

impl Style {
    /// For a stream: what it is, whether its reader asked for no colours (`NO_COLOR`), and how
    /// wide it is.
    pub fn for_stream(terminal: bool, no_color: bool, width: usize) -> Self {
        Self {
            drawing: match terminal {
                true => Drawing::Unicode,
                false => Drawing::Ascii,
            },
            color: terminal && !no_color,
            width,
            most: 100,
        }
    }
}

/// Lines shown before and after the underlined one.
const CONTEXT: usize = 1;
/// A line longer than this, in bytes, is not shown: it would bury the message.
const LONGEST_LINE: usize = 500;

impl Report {
    /// As on a terminal 100 columns wide, or without `color` as in a file.
    pub fn to_text(&self, color: bool) -> String {
        self.text(&Style::for_stream(color, !color, 100))
    }

    /// The findings with their text underlined, and a last line that counts them.
    pub fn text(&self, style: &Style) -> String {
        let mut out = String::new();
        for diagnostic in self.diagnostics().iter().take(style.most) {
            // A `String` takes whatever is written to it, and our `SourceCode` reads any span.
            let drawn = draw(&mut out, diagnostic, style);
            debug_assert!(drawn.is_ok(), "drawing {diagnostic}");
            out.push('\n');
        }
        out.push_str(&self.summary(style.most));
        out
    }

    fn summary(&self, shown: usize) -> String {
        let count = |n: usize, one: &str| match n {
            1 => format!("1 {one}"),
            n => format!("{n} {one}s"),
        };
        let mut text = match (self.errors(), self.warnings()) {
            (0, 0) => "no findings".to_owned(),
            (0, w) => count(w, "warning"),
            (e, 0) => count(e, "error"),
            (e, w) => format!("{}, {}", count(e, "error"), count(w, "warning")),
        };
        if self.diagnostics().len() > shown {
            text.push_str(&format!(", the first {shown} of them shown"));
        }
        text.push('\n');
        text
    }
}

fn draw(out: &mut String, diagnostic: &Diagnostic, style: &Style) -> fmt::Result {
    if style.drawing == Drawing::Narrated {
        return narrate(out, diagnostic);
    }
    writeln!(out, "{}", headline(diagnostic, style.color))?;
    let drawer = drawer(style);
    let (near, far): (Vec<_>, Vec<_>) = diagnostic
        .related
        .iter()
        .partition(|related| related.place.source().name() == diagnostic.place.source().name());
    underline(out, &drawer, &Drawn::finding(diagnostic, &near))?;
    for Related { place, label } in far {
        writeln!(out, "  {place}: {}", printable(label))?;
        underline(out, &drawer, &Drawn::note(place, label))?;
    }
    Ok(())
}

/// Each place by itself: several in one snippet are told apart by eye only.
fn narrate(out: &mut String, diagnostic: &Diagnostic) -> fmt::Result {
    let drawer = NarratableReportHandler::new().with_context_lines(CONTEXT);
    let drawer = drawer.without_cause_chain();
    let finding = Drawn::finding(diagnostic, &[]).titled(diagnostic.to_string());
    drawer.render_report(out, &finding)?;
    for Related { place, label } in &diagnostic.related {
        let note = Drawn::note(place, label).titled(format!("{place}: {label}"));
        drawer.render_report(out, &note)?;
    }
    Ok(())
}

fn drawer(style: &Style) -> GraphicalReportHandler {
    let theme = GraphicalTheme {
        characters: match style.drawing {
            Drawing::Unicode => ThemeCharacters::unicode(),
            Drawing::Ascii | Drawing::Narrated => ThemeCharacters::ascii(),
        },
        styles: match style.color {
            true => ThemeStyles::ansi(),
            false => ThemeStyles::none(),
        },
    };
    GraphicalReportHandler::new_themed(theme)
        .with_width(style.width.clamp(40, 120))
        .with_context_lines(CONTEXT)
        .with_break_words(false)
        .with_links(false)
        .without_primary_span_start()
}

/// Draws what belongs under the headline. The drawer begins with a line for the message; ours
/// stands in the headline, so that line is empty and left out.
fn underline(out: &mut String, drawer: &GraphicalReportHandler, drawn: &Drawn<'_>) -> fmt::Result {
    let mut text = String::new();
    drawer.render_report(&mut text, drawn)?;
    out.push_str(text.split_once('\n').map_or("", |(_, rest)| rest));
    Ok(())
}

fn headline(diagnostic: &Diagnostic, color: bool) -> String {
    let line = diagnostic.to_string();
    let line = printable(&line);
    if !color {
        return line.into_owned();
    }
    let paint = match diagnostic.severity() {
        Severity::Error => "\x1b[1;31m",
        Severity::Warning => "\x1b[1;33m",
    };
    format!("{paint}{line}\x1b[0m")
}

/// Files come from anywhere: what would steer the terminal is shown as a `?` instead.
fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r');
    match text.contains(steers) {
        true => Cow::Owned(text.replace(steers, "?")),
        false => Cow::Borrowed(text),
    }
}

/// A finding, or a place related to one, as the drawing library wants it.
#[derive(Debug)]
struct Drawn<'a> {
    /// None for a related place.
    finding: Option<&'a Diagnostic>,
    /// Empty where a headline says it.
    title: String,
    excerpt: Option<Excerpt>,
    labels: Vec<LabeledSpan>,
}

impl<'a> Drawn<'a> {
    /// With the related places that are in the same file.
    fn finding(diagnostic: &'a Diagnostic, near: &[&Related]) -> Self {
        let place = &diagnostic.place;
        let mut labels = vec![LabeledSpan::new_primary_with_span(
            diagnostic.label.as_deref().map(clean),
            place.span(),
        )];
        for related in near {
            let label = Some(clean(&related.label));
            labels.push(LabeledSpan::new_with_span(label, related.place.span()));
        }
        let places = near.iter().map(|r| &r.place).chain([place]);
        Self {
            finding: Some(diagnostic),
            title: String::new(),
            excerpt: Excerpt::of(place.source(), places),
            labels,
        }
    }

    fn note(place: &Place, label: &str) -> Self {
        Self {
            finding: None,
            title: String::new(),
            excerpt: Excerpt::of(place.source(), [place].into_iter()),
            labels: vec![LabeledSpan::new_with_span(Some(clean(label)), place.span())],
        }
    }

    fn titled(mut self, title: String) -> Self {
        self.title = clean(&title);
        self
    }
}

fn clean(text: &str) -> String {
    printable(text).into_owned()
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)
    }
}

impl std::error::Error for Drawn<'_> {}

impl miette::Diagnostic for Drawn<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.finding.map(Diagnostic::severity) {
            Some(Severity::Error) => miette::Severity::Error,
            Some(Severity::Warning) => miette::Severity::Warning,
            None => miette::Severity::Advice,
        })
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        let help = self.finding?.advice()?;
        Some(Box::new(printable(help)))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.excerpt.as_ref().map(|excerpt| excerpt as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

/// The lines of a file that its snippets need. Spans are those of the whole file.
#[derive(Debug)]
struct Excerpt {
    /// Index of the first line, and the byte it begins at.
    first: (usize, usize),
    /// Where each line begins in the file, and at the end where the last one ends.
    starts: Vec<usize>,
    text: String,
}

impl Excerpt {
    /// None when there is nothing to show, or a line too long to be shown.
    fn of<'a>(source: &Source, places: impl Iterator<Item = &'a Place>) -> Option<Self> {
        let (mut from, mut to) = (usize::MAX, 0);
        for place in places {
            let span = place.span();
            from = from.min(source.line_index(span.start).saturating_sub(CONTEXT));
            to = to.max(source.line_index(span.end) + 1 + CONTEXT);
        }
        let starts: Vec<_> = (from..=to).map(|index| source.line_start(index)).collect();
        let (begin, end) = (*starts.first()?, *starts.last()?);
        let too_long = |pair: &[usize]| pair[1] - pair[0] > LONGEST_LINE;
        if begin == end || starts.windows(2).any(too_long) {
            return None;
        }
        // A control character and its `?` may differ in length; byte by byte they do not.
        let text = source.text().get(begin..end)?;
        let text = text.chars().fold(String::new(), |mut shown, c| {
            match c.is_control() && !matches!(c, '\n' | '\t' | '\r') {
                true => shown.extend(std::iter::repeat_n('?', c.len_utf8())),
                false => shown.push(c),
            }
            shown
        });
        Some(Self {
            first: (from, begin),
            starts,
            text,
        })
    }
}

impl SourceCode for Excerpt {
    /// The library's own reader scans the file from its start for each label; this one looks up.
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let line = |offset: usize| self.starts.partition_point(|start| *start <= offset);
        let last = self.starts.len() - 1;
        let begin = line(span.offset()).saturating_sub(1 + before).min(last);
        let end = (line(span.offset() + span.len()) + after).min(last);
        let (from, to) = (self.starts[begin], self.starts[end]);
        let (first, base) = self.first;
        let data = from.checked_sub(base).zip(to.checked_sub(base));
        let data = data.and_then(|(from, to)| self.text.as_bytes().get(from..to));
        let data = data.ok_or(MietteError::OutOfBounds)?;
        Ok(Box::new(MietteSpanContents::new(
            data,
            (from..to.max(from)).into(),
            first + begin,
            0,
            end.saturating_sub(begin),
        )))
    }
}
