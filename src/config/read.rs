//! Reads a TOML file key by key, and collects everything that is wrong with it instead of
//! stopping at the first fault.
//!
//! A [`Table`] is asked for each key its kind knows; [`Table::finish`] then reports the keys
//! nobody asked for. A [`Value`] that cannot be read is reported where it stands and is `None` to
//! the caller, who goes on. [`scalar`] holds the texts and numbers that mean something; `syntax`
//! the step from text to tables.

mod depth;
pub(super) mod scalar;
mod syntax;
mod value;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnose::{Code, Diagnostic, Severity};
use super::source::{At, Place, Source};
use super::suggest;

pub(super) use value::Value;

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
        errors: Cell::default(),
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
    /// How many of them are errors.
    errors: Cell<usize>,
}

impl File<'_> {
    fn report(&self, finding: Diagnostic) {
        if finding.severity() == Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
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

    /// How many errors have been found in its file so far.
    pub(super) fn errors(&self) -> usize {
        self.file.errors.get()
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
        for (_, finding) in missing {
            self.report(finding);
        }
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
