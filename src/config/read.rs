//! Reads a TOML file key by key, and collects everything that is wrong with it instead of
//! stopping at the first fault.
//!
//! A [`Table`] is asked for each key its kind knows; [`Table::finish`] then reports the keys
//! nobody asked for. Whatever cannot be read is reported where it stands and is `None` to the
//! caller, who goes on. `scalar` holds the texts and numbers that mean something; `syntax` the step
//! from text to tables.

mod depth;
pub(super) mod scalar;
mod syntax;

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::diagnose::{Code, Diagnostic};
use super::source::{At, Place, Source};
use super::suggest;

/// What reading a file gave.
pub(super) struct Outcome<T> {
    /// What the reader made of it; a best guess where there are findings.
    pub value: T,
    /// What is wrong with it.
    pub findings: Vec<Diagnostic>,
    /// Whether the text is TOML, so that nothing in it has gone unseen.
    pub whole: bool,
}

/// Reads a file's top-level table.
pub(super) fn document<T>(
    source: &Arc<Source>,
    what: &str,
    read: impl FnOnce(&Table<'_>) -> T,
) -> Outcome<T> {
    let parsed = syntax::parse(source);
    let file = File {
        source,
        findings: RefCell::default(),
    };
    let root = Table::new(
        &file,
        &parsed.root,
        what.to_owned(),
        String::new(),
        source.whole(),
    );
    let value = read(&root);
    root.finish();
    let mut findings = file.findings.into_inner();
    let whole = parsed.faults.is_empty();
    if !whole {
        drop_consequences(&mut findings, &parsed.broken);
        findings.extend(parsed.faults);
    }
    Outcome {
        value,
        findings,
        whole,
    }
}

/// Beside a fault of syntax the tables hold a guess at what was meant. What is missing from them
/// may be in the broken lines, and what is wrong on those lines follows from the fault.
fn drop_consequences(findings: &mut Vec<Diagnostic>, broken: &HashSet<u32>) {
    findings.retain(|finding| {
        finding.code() != Code::MissingKey && !broken.contains(&finding.place().start().line)
    });
}

struct File<'a> {
    source: &'a Arc<Source>,
    findings: RefCell<Vec<Diagnostic>>,
}

impl File<'_> {
    fn report(&self, finding: Diagnostic) {
        self.findings.borrow_mut().push(finding);
    }
}

/// A table that is being read.
pub(super) struct Table<'a> {
    file: &'a File<'a>,
    entries: &'a DeTable<'a>,
    /// What it is, or is part of, in words that begin a message: ``workload `cart-1` ``.
    what: String,
    /// The key it is the value of, when it is part of something, as in `health`.
    path: String,
    place: Place,
    /// Keys its reader knows.
    asked: RefCell<Vec<&'static str>>,
    /// Keys its reader knows and has reported.
    refused: RefCell<Vec<&'static str>>,
    /// Keys that should be there.
    missing: RefCell<Vec<(Vec<&'static str>, Diagnostic)>>,
}

impl<'a> Table<'a> {
    fn new(
        file: &'a File<'a>,
        entries: &'a DeTable<'a>,
        what: String,
        path: String,
        place: Place,
    ) -> Self {
        Self {
            file,
            entries,
            what,
            path,
            place,
            asked: RefCell::default(),
            refused: RefCell::default(),
            missing: RefCell::default(),
        }
    }

    /// What it is, in words.
    pub(super) fn what(&self) -> String {
        match self.path.is_empty() {
            true => self.what.clone(),
            false => format!("`{}` of {}", self.path, self.what),
        }
    }

    /// Its header, or its braces.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Reports a finding.
    pub(super) fn report(&self, finding: Diagnostic) {
        self.file.report(finding);
    }

    /// The value of a key, when it is there. Every key the kind knows is asked for, and so known.
    pub(super) fn value(&self, key: &'static str) -> Option<Value<'a>> {
        self.asked.borrow_mut().push(key);
        let value = self.entries.get(key)?;
        Some(self.child(key, value))
    }

    /// The value of a key that is not offered to who misspells another.
    pub(super) fn value_unlisted(&self, key: &'static str) -> Option<Value<'a>> {
        let value = self.entries.get(key)?;
        self.refused.borrow_mut().push(key);
        Some(self.child(key, value))
    }

    /// What `read` makes of a key, when the key is there.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Option<T> {
        read(&self.value(key)?)
    }

    /// What `read` makes of a key that must be there; `example` shows how it is written.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.value(key) {
            Some(value) => read(&value),
            None => {
                let message = format!("{} has no `{key}`", self.what());
                let finding = Diagnostic::new(Code::MissingKey, self.place.clone(), message);
                let finding = finding.label(format!("`{key}` is missing"));
                let finding = finding.help(format!("add it, as in `{example}`"));
                self.missing(vec![key], finding);
                None
            }
        }
    }

    /// Reports that one of these keys should be there; unless one is, misspelt.
    pub(super) fn missing(&self, keys: Vec<&'static str>, finding: Diagnostic) {
        self.missing.borrow_mut().push((keys, finding));
    }

    /// Reports a key, when it is there, as something this version does not do.
    pub(super) fn unsupported(&self, key: &'static str, why: &str) {
        if let Some(value) = self.value(key) {
            value.unsupported(why);
        }
    }

    /// Every key and value, for tables whose keys are the operator's own.
    pub(super) fn entries(&self) -> impl Iterator<Item = (At<&'a str>, Value<'a>)> {
        self.entries.iter().map(|(key, value)| {
            let name = key.get_ref().as_ref();
            let place = self.file.source.place(key.span());
            (At::new(name, place), self.child(name, value))
        })
    }

    /// Reports the keys nobody asked for, and those that are missing, except where one looks like
    /// the misspelling of the other.
    pub(super) fn finish(&self) {
        let (asked, refused) = (self.asked.borrow(), self.refused.borrow());
        let mut missing = self.missing.take();
        for (key, _) in self.entries {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) || refused.contains(&name) {
                continue;
            }
            let meant = suggest::closest(name, asked.iter().copied());
            missing.retain(|(absent, _)| !absent.iter().any(|key| Some(*key) == meant));
            let message = format!("unknown key `{name}` in {}", self.what());
            let place = self.file.source.place(key.span());
            let finding = Diagnostic::new(Code::UnknownKey, place, message);
            self.report(match meant {
                Some(known) => finding
                    .label(format!("did you mean `{known}`?"))
                    .help(format!("write `{known}` instead")),
                None => finding.label("no such key").help(format!(
                    "the keys here are {}",
                    suggest::listed(asked.iter().copied())
                )),
            });
        }
        let missing = missing.into_iter().map(|(_, finding)| finding);
        self.file.findings.borrow_mut().extend(missing);
    }

    fn child(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value {
            file: self.file,
            what: self.what.clone(),
            path: match self.path.is_empty() {
                true => key.to_owned(),
                false => format!("{}.{key}", self.path),
            },
            place: self.file.source.place(value.span()),
            inner: value.get_ref(),
        }
    }
}

/// A value that is being read.
pub(super) struct Value<'a> {
    file: &'a File<'a>,
    /// What it is part of, in words: ``workload `cart-1` ``.
    what: String,
    /// Its key in there, as in `health.port`.
    path: String,
    place: Place,
    inner: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    /// Where it stands.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it is a list without items.
    pub(super) fn is_empty_list(&self) -> bool {
        self.inner.as_array().is_some_and(|items| items.is_empty())
    }

    /// Whether it is a whole number.
    pub(super) fn is_integer(&self) -> bool {
        self.inner.is_integer()
    }

    /// Where it stands, or, for an array of tables, where each of them begins.
    pub(super) fn places(&self) -> Vec<Place> {
        match self.inner {
            DeValue::Array(items) if !items.is_empty() => {
                let items = self.items(items);
                items.into_iter().map(|item| item.place).collect()
            }
            _ => vec![self.place.clone()],
        }
    }

    /// Reports a finding about it; the message goes on from what it is, as in `is not a port`.
    pub(super) fn reject(&self, code: Code, message: &str, label: &str, help: impl Into<String>) {
        let message = format!("{}: `{}` {message}", self.what, self.path);
        let finding = Diagnostic::new(code, self.place.clone(), message);
        self.file.report(finding.label(label).help(help));
    }

    /// Reports that it means nothing.
    pub(super) fn bad(&self, message: &str, label: &str, help: impl Into<String>) {
        self.reject(Code::BadValue, message, label, help);
    }

    /// Reports that it asks for something this version does not do.
    pub(super) fn unsupported(&self, why: &str) {
        self.reject(
            Code::Unsupported,
            "is not supported by this version",
            "not supported yet",
            why,
        );
    }

    /// Reports that it has the wrong type.
    pub(super) fn wrong_type(&self, expected: &str, help: impl Into<String>) {
        let found = type_name(self.inner);
        let message = format!("is {found}, expected {expected}");
        self.reject(Code::WrongType, &message, found, help);
    }

    /// A text.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.inner {
            DeValue::String(text) => Some(text.as_ref()),
            other => {
                self.wrong_type("a string", quoting(other, &self.place));
                None
            }
        }
    }

    /// A text with its place.
    pub(super) fn text_at(&self) -> Option<At<&'a str>> {
        Some(At::new(self.text()?, self.place.clone()))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let value = self.inner.as_bool();
        if value.is_none() {
            self.wrong_type("`true` or `false`", "write it unquoted: `true` or `false`");
        }
        value
    }

    /// A whole number within bounds.
    pub(super) fn integer(&self, bounds: RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (bounds.start(), bounds.end());
        let range = format!("from {low} to {high}");
        let DeValue::Integer(number) = self.inner else {
            let text = self
                .inner
                .as_str()
                .and_then(|t| t.trim().parse::<u64>().ok());
            let help = match text {
                Some(number) => format!("write it unquoted: `{number}`"),
                None => format!("write a whole number {range}"),
            };
            self.wrong_type("a whole number", help);
            return None;
        };
        let value = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let value = value.filter(|v| bounds.contains(v));
        if value.is_none() {
            let message = format!("is not a number {range}");
            self.bad(&message, "out of range", format!("write a number {range}"));
        }
        value
    }

    /// A whole number within bounds that fit in 32 bits.
    pub(super) fn count(&self, bounds: RangeInclusive<u32>) -> Option<u32> {
        let number = self.integer(u64::from(*bounds.start())..=u64::from(*bounds.end()))?;
        u32::try_from(number).ok()
    }

    /// A list, as far as its items can be read.
    pub(super) fn list<T>(&self, read: impl FnMut(&Self) -> Option<T>) -> Option<Vec<T>> {
        match self.inner {
            DeValue::Array(items) => Some(self.items(items).iter().filter_map(read).collect()),
            _ => {
                let text = self.place.text();
                let help = match text.contains('\n') || text.len() > 60 {
                    false => format!("write a list: `[{text}]`"),
                    true => "write a list, in square brackets".to_owned(),
                };
                self.wrong_type("a list", help);
                None
            }
        }
    }

    /// The items of an array of tables (`[[kind]]`); a single `[kind]` is read too, and reported.
    pub(super) fn array_of_tables(&self, kind: &str) -> Vec<Value<'a>> {
        match self.inner {
            DeValue::Array(items) => self.items(items),
            DeValue::Table(_) => {
                self.wrong_type(
                    "an array of tables",
                    format!("write the header as `[[{kind}]]`, once for each {kind}"),
                );
                vec![self.item(self.place.clone(), self.inner)]
            }
            _ => {
                self.wrong_type(
                    "an array of tables",
                    format!("begin each {kind} with a line `[[{kind}]]`"),
                );
                Vec::new()
            }
        }
    }

    /// A table, named by its kind and, where it has one, its name.
    pub(super) fn resource(&self, kind: &str) -> Option<Table<'a>> {
        let name = self.inner.as_table().and_then(|t| t.get("name"));
        let what = match name.and_then(|name| name.get_ref().as_str()) {
            Some(name) => format!("{kind} `{name}`"),
            None => format!("a {kind} without a name"),
        };
        self.table(what, String::new())
    }

    /// A table that is called something of its own in messages.
    pub(super) fn titled(&self, what: &str) -> Option<Table<'a>> {
        self.table(what.to_owned(), String::new())
    }

    /// A table inside another.
    pub(super) fn nested(&self) -> Option<Table<'a>> {
        self.table(self.what.clone(), self.path.clone())
    }

    fn table(&self, what: String, path: String) -> Option<Table<'a>> {
        let DeValue::Table(entries) = self.inner else {
            self.wrong_type("a table", "write a table, as in `{ key = \"value\" }`");
            return None;
        };
        Some(Table::new(
            self.file,
            entries,
            what,
            path,
            self.place.clone(),
        ))
    }

    fn items(&self, items: &'a DeArray<'a>) -> Vec<Value<'a>> {
        let place = |item: &Spanned<DeValue<'_>>| self.file.source.place(item.span());
        items
            .iter()
            .map(|item| self.item(place(item), item.get_ref()))
            .collect()
    }

    fn item(&self, place: Place, inner: &'a DeValue<'a>) -> Value<'a> {
        Value {
            file: self.file,
            what: self.what.clone(),
            path: self.path.clone(),
            place,
            inner,
        }
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// How to write as a string what is none.
fn quoting(value: &DeValue<'_>, place: &Place) -> String {
    match value {
        DeValue::Array(_) | DeValue::Table(_) | DeValue::String(_) => {
            "write one string, in double quotes".to_owned()
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            format!("write it in quotes: `\"{}\"`", place.text())
        }
    }
}

#[cfg(test)]
mod tests;
