//! A value of a table while it is being read: what type it has, and what to say when it is another.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeArray, DeValue};

use super::{File, Table};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::source::{At, Place};

/// A value that is being read.
pub(in crate::config) struct Value<'a> {
    pub(super) file: &'a File<'a>,
    /// What it is part of, in words: ``workload `cart-1` ``.
    pub(super) what: String,
    /// Its key in there, as in `health.port`.
    pub(super) path: String,
    pub(super) place: Place,
    pub(super) inner: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    /// Where it stands.
    pub(in crate::config) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it is a list without items.
    pub(in crate::config) fn is_empty_list(&self) -> bool {
        self.inner.as_array().is_some_and(|items| items.is_empty())
    }

    /// Whether it is a table, and not several.
    pub(in crate::config) fn is_table(&self) -> bool {
        self.inner.is_table()
    }

    /// Whether it is a whole number.
    pub(in crate::config) fn is_integer(&self) -> bool {
        self.inner.is_integer()
    }

    /// Where it stands, or, for an array of tables, where each of them begins.
    pub(in crate::config) fn places(&self) -> Vec<Place> {
        match self.inner {
            DeValue::Array(items) if !items.is_empty() => {
                let items = self.items(items);
                items.into_iter().map(|item| item.place).collect()
            }
            _ => vec![self.place.clone()],
        }
    }

    /// Reports a finding about it; the message goes on from what it is, as in `is not a port`.
    pub(in crate::config) fn reject(
        &self,
        code: Code,
        message: &str,
        label: &str,
        help: impl Into<String>,
    ) {
        let message = format!("{}: `{}` {message}", self.what, self.path);
        let finding = Diagnostic::new(code, self.place.clone(), message);
        self.file.report(finding.label(label).help(help));
    }

    /// Reports that it means nothing.
    pub(in crate::config) fn bad(&self, message: &str, label: &str, help: impl Into<String>) {
        self.reject(Code::BadValue, message, label, help);
    }

    /// Reports that it asks for something this version does not do.
    pub(in crate::config) fn unsupported(&self, why: &str) {
        self.reject(
            Code::Unsupported,
            "is not supported by this version",
            "not supported yet",
            why,
        );
    }

    /// Reports that it has the wrong type.
    pub(in crate::config) fn wrong_type(&self, expected: &str, help: impl Into<String>) {
        let found = type_name(self.inner);
        let message = format!("is {found}, expected {expected}");
        self.reject(Code::WrongType, &message, found, help);
    }

    /// Reports a finding of the file it is in.
    pub(in crate::config) fn report(&self, finding: Diagnostic) {
        self.file.report(finding);
    }

    /// Whether it is a text.
    pub(in crate::config) fn is_text(&self) -> bool {
        matches!(self.inner, DeValue::String(_))
    }

    /// A text.
    pub(in crate::config) fn text(&self) -> Option<&'a str> {
        match self.inner {
            DeValue::String(text) => Some(text.as_ref()),
            other => {
                self.wrong_type("a string", quoting(other, &self.place));
                None
            }
        }
    }

    /// A text with its place.
    pub(in crate::config) fn text_at(&self) -> Option<At<&'a str>> {
        Some(At::new(self.text()?, self.place.clone()))
    }

    /// `true` or `false`.
    pub(in crate::config) fn boolean(&self) -> Option<bool> {
        let value = self.inner.as_bool();
        if value.is_none() {
            self.wrong_type("`true` or `false`", "write it unquoted: `true` or `false`");
        }
        value
    }

    /// A whole number within bounds.
    pub(in crate::config) fn integer(&self, bounds: RangeInclusive<u64>) -> Option<u64> {
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
    pub(in crate::config) fn count(&self, bounds: RangeInclusive<u32>) -> Option<u32> {
        let number = self.integer(u64::from(*bounds.start())..=u64::from(*bounds.end()))?;
        u32::try_from(number).ok()
    }

    /// A number within bounds, with or without decimals.
    pub(in crate::config) fn decimal(&self, bounds: RangeInclusive<f64>) -> Option<f64> {
        let written = match self.inner {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => {
                self.wrong_type("a number", "write a number, as in `12.5`");
                return None;
            }
        };
        let number = written.parse::<f64>().ok();
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            let range = format!("from {} to {}", bounds.start(), bounds.end());
            let message = format!("is not a number {range}");
            self.bad(&message, "out of range", format!("write a number {range}"));
        }
        number
    }

    /// A list, as far as its items can be read.
    pub(in crate::config) fn list<T>(
        &self,
        read: impl FnMut(&Self) -> Option<T>,
    ) -> Option<Vec<T>> {
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
    pub(in crate::config) fn array_of_tables(&self, kind: &str) -> Vec<Self> {
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
    pub(in crate::config) fn resource(&self, kind: &str) -> Option<Table<'a>> {
        let name = self.inner.as_table().and_then(|t| t.get("name"));
        let what = match name.and_then(|name| name.get_ref().as_str()) {
            Some(name) => format!("{kind} `{name}`"),
            None => format!("a {kind} without a name"),
        };
        self.table(what, String::new())
    }

    /// A table that is called something of its own in messages.
    pub(in crate::config) fn titled(&self, what: &str) -> Option<Table<'a>> {
        self.table(what.to_owned(), String::new())
    }

    /// A table inside another.
    pub(in crate::config) fn nested(&self) -> Option<Table<'a>> {
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

    fn items(&self, items: &'a DeArray<'a>) -> Vec<Self> {
        let place = |item: &Spanned<DeValue<'_>>| self.file.source.place(item.span());
        items
            .iter()
            .map(|item| self.item(place(item), item.get_ref()))
            .collect()
    }

    fn item(&self, place: Place, inner: &'a DeValue<'a>) -> Self {
        Self {
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
