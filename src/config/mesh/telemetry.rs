//! `[[telemetry]]` and what `[mesh]` says of it (`spec/labels-and-policy.md` §5.2,
//! `spec/waypoint-l7.md` §6): Istio's fields, camelCase turned kebab-case.

mod logging;
mod metrics;
mod settings;
mod tracing;

use std::cell::RefCell;
use std::sync::Arc;

use super::labels::Labels;
use super::policy::{WrittenAttachment, read_attachment};
use super::{name_of, namespace_of, no_effect};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::expression::Expression;
use crate::model::telemetry::Sections;

pub(super) use logging::{Written as WrittenFormat, log_format, text_format};
pub(super) use settings::read as read_settings;

/// A `[[telemetry]]` table.
pub(in crate::config) struct WrittenTelemetry {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// Its namespace, by whatever way it has it.
    pub namespace: At<Arc<str>>,
    /// `selector` or `target-refs`.
    pub attachment: WrittenAttachment,
    /// What it says to servers.
    pub says: Sections,
    /// The providers it names.
    pub providers: Vec<NamedProvider>,
}

/// A provider where it is named.
pub(in crate::config) struct NamedProvider {
    /// What for.
    pub used: Use,
    /// Its name.
    pub name: At<Arc<str>>,
}

/// What a provider is named for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Use {
    /// Spans.
    Tracing,
    /// Metrics.
    Metrics,
    /// Access logs.
    Logging,
}

/// For which side of a connection something is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Client,
    Server,
    Both,
}

const MODES: [(&str, Mode); 3] = [
    ("CLIENT", Mode::Client),
    ("SERVER", Mode::Server),
    ("CLIENT_AND_SERVER", Mode::Both),
];

/// What the readers of its parts find on the way.
#[derive(Default)]
struct Scope {
    providers: RefCell<Vec<NamedProvider>>,
}

pub(super) fn read(value: &Value<'_>, home: Option<&At<Arc<str>>>) -> Option<WrittenTelemetry> {
    let table = value.resource("telemetry")?;
    Labels::read(&table).finish(&table);
    let name = name_of(&table, "telemetry", scalar::name);
    let namespace = namespace_of(&table, home);
    let attachment = read_attachment(&table);
    let scope = Scope::default();
    let says = Sections {
        tracing: section(&table, "tracing", |value| tracing::read(value, &scope)),
        metrics: section(&table, "metrics", |value| metrics::read(value, &scope)),
        logging: section(&table, "access-logging", |value| {
            logging::read(value, &scope)
        }),
    };
    table.finish();
    Some(WrittenTelemetry {
        place: table.place().clone(),
        name: name?,
        namespace,
        attachment,
        says,
        providers: scope.providers.into_inner(),
    })
}

/// The parts of a section that are for servers.
fn section<T>(
    table: &Table<'_>,
    key: &'static str,
    read: impl Fn(&Value<'_>) -> Option<(Mode, T)>,
) -> Vec<T> {
    let parts = table.optional(key, |value| value.list(&read));
    let parts = parts.into_iter().flatten();
    let of_servers = parts.filter(|(mode, _)| *mode != Mode::Client);
    of_servers.map(|(_, part)| part).collect()
}

/// `match.mode`, in a `match` that says no more.
fn mode(table: &Table<'_>) -> Mode {
    let mode = table.optional("match", |value| {
        let table = value.nested()?;
        let mode = mode_in(&table);
        table.finish();
        Some(mode)
    });
    mode.unwrap_or(Mode::Both)
}

/// `mode`, where it stands. What is for clients is for nobody here.
fn mode_in(table: &Table<'_>) -> Mode {
    let Some(value) = table.value("mode") else {
        return Mode::Both;
    };
    let mode = scalar::choice(&value, &MODES).unwrap_or(Mode::Both);
    if mode == Mode::Client {
        let message = format!(
            "{}: `mode = \"CLIENT\"` is for sidecars, and a waypoint is a server",
            table.what()
        );
        let help = "write `mode = \"SERVER\"`, or leave it out";
        no_effect(table, value.place().clone(), message, help);
    }
    mode
}

impl Scope {
    /// `providers = [{ name = "…" }]`.
    fn providers(&self, table: &Table<'_>, used: Use) -> Vec<At<Arc<str>>> {
        let named = table.optional("providers", |value| {
            value.list(|value| {
                let table = value.nested()?;
                let name = table.required("name", "name = \"otlp\"", scalar::plain);
                table.finish();
                let place = value.place().clone();
                Some(At::new(Arc::from(name?), place))
            })
        });
        let named = named.unwrap_or_default();
        let noted = named.iter().map(|name| NamedProvider {
            used,
            name: name.clone(),
        });
        self.providers.borrow_mut().extend(noted);
        named
    }
}

fn names(providers: &[At<Arc<str>>]) -> Vec<Arc<str>> {
    let names = providers.iter().map(|name| Arc::clone(&name.value));
    names.collect()
}

/// An expression over what is known of a request.
fn expression(value: &Value<'_>) -> Option<Expression> {
    let text = value.text()?;
    match Expression::parse(text) {
        Ok(expression) => Some(expression),
        Err(fault) => {
            value.bad(
                &format!("is no expression, {fault}"),
                "not an expression",
                "write one of CEL over what is known of a request, as in `\"response.code >= 400\"`",
            );
            None
        }
    }
}
