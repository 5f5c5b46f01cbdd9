//! `tracing` of a telemetry.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Mode, Scope, Use, mode, names, text_format};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::no_effect;
use crate::config::mesh::route::is_token;
use crate::config::read::{Table, Value, scalar};
use crate::model::telemetry::{CustomTag, Sampling, Tracing};

pub(super) fn read(value: &Value<'_>, scope: &Scope) -> Option<(Mode, Tracing)> {
    let table = value.nested()?;
    let mode = mode(&table);
    let providers = scope.providers(&table, Use::Tracing);
    if let [_, second, ..] = &*providers {
        let message = format!(
            "{}: spans are told to the first provider alone",
            table.what()
        );
        let help = "keep the one that is meant";
        no_effect(&table, second.place.clone(), message, help);
    }
    let tracing = Tracing {
        providers: names(&providers),
        sampling: table.optional("random-sampling-percentage", sampling),
        disable_span_reporting: table.optional("disable-span-reporting", Value::boolean),
        custom_tags: table.optional("custom-tags", custom_tags),
        enable_istio_tags: table.optional("enable-istio-tags", Value::boolean),
        disable_context_propagation: table.optional("disable-context-propagation", Value::boolean),
    };
    table.unsupported(
        "use-request-id-for-trace-sampling",
        "take it out: request ids say nothing of sampling here",
    );
    table.finish();
    Some((mode, tracing))
}

/// In hundredths of a percent: nobody sees a smaller difference.
fn sampling(value: &Value<'_>) -> Option<Sampling> {
    let hundredths = (value.decimal(0.0..=100.0)? * 100.0).round();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is within bounds"
    )]
    Some(Sampling(hundredths as u16))
}

fn custom_tags(value: &Value<'_>) -> Option<BTreeMap<Arc<str>, CustomTag>> {
    let table = value.nested()?;
    let tag = |(name, value): (crate::config::source::At<&str>, Value<'_>)| {
        Some((Arc::from(name.value), tag(&value)?))
    };
    Some(table.entries().filter_map(tag).collect())
}

/// Reads what there is to say of one kind.
type Read = fn(&Value<'_>) -> Option<CustomTag>;

/// One of the four kinds.
fn tag(value: &Value<'_>) -> Option<CustomTag> {
    let table = value.nested()?;
    let kinds: [(&'static str, Read); 4] = [
        ("literal", literal),
        ("environment", environment),
        ("header", header),
        ("formatter", formatter),
    ];
    let written = kinds.map(|(key, read)| table.value(key).map(|value| (value, read)));
    let mut written = written.into_iter().flatten();
    let first = written.next();
    if let (Some((first, _)), Some((second, _))) = (&first, written.next()) {
        let message = format!("{} is of two kinds", table.what());
        table.report(
            Diagnostic::new(Code::ConflictingKeys, second.place().clone(), message)
                .label("one of the two")
                .related(first.place().clone(), "the other")
                .help("keep the one that is meant"),
        );
    }
    if first.is_none() {
        let message = format!("{} does not say what the tag's value is", table.what());
        let finding = Diagnostic::new(Code::MissingKey, table.place().clone(), message)
            .label("of what value?")
            .help("add it, as in `literal = { value = \"production\" }`");
        table.missing(kinds.map(|(key, _)| key).to_vec(), finding);
    }
    table.finish();
    let (value, read) = first?;
    read(&value)
}

fn literal(value: &Value<'_>) -> Option<CustomTag> {
    let table = value.nested()?;
    let text = table.required("value", "value = \"production\"", Value::text);
    table.finish();
    Some(CustomTag::Literal(Arc::from(text?)))
}

fn environment(value: &Value<'_>) -> Option<CustomTag> {
    let (name, default) = named(&value.nested()?, "name = \"REGION\"");
    Some(CustomTag::Environment {
        name: Arc::from(name?),
        default,
    })
}

fn header(value: &Value<'_>) -> Option<CustomTag> {
    let (name, default) = named(&value.nested()?, "name = \"x-tenant\"");
    let name = name?;
    if !is_token(name) {
        value.reject(
            Code::BadName,
            &format!("is of a header whose name cannot be one: {name:?}"),
            "not a header",
            "name a header, as in `x-tenant`",
        );
        return None;
    }
    Some(CustomTag::Header {
        name: Arc::from(name.to_ascii_lowercase()),
        default,
    })
}

fn named<'a>(table: &Table<'a>, example: &str) -> (Option<&'a str>, Option<Arc<str>>) {
    let name = table.required("name", example, scalar::plain);
    let default = table.optional("default-value", Value::text);
    table.finish();
    (name, default.map(Arc::from))
}

fn formatter(value: &Value<'_>) -> Option<CustomTag> {
    let table = value.nested()?;
    let format = table.required("value", "value = \"%REQ(X-TENANT)%\"", text_format);
    table.finish();
    Some(CustomTag::Formatter(format?))
}
