//! `filters`: what is done to a request or an answer on its way (§2.3).

pub(super) mod cors;
mod extension;
pub(super) mod header_change;
mod mirror;
pub(super) mod redirect;

use super::scope::Scope;
use crate::config::diagnose::Code;
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::config::suggest;
use crate::model::route::{BackendRef, Filter, Kind};

/// Gateway API's limit on the filters of one rule.
const MOST_FILTERS: usize = 16;

/// What `filters` stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// A rule.
    Rule,
    /// A backend of one.
    Backend,
}

/// The types of filter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    RequestHeaders,
    ResponseHeaders,
    Redirect,
    Rewrite,
    Mirror,
    Cors,
    Extension,
    ExternalAuth,
}

const TYPES: [(&str, Type); 8] = [
    ("RequestHeaderModifier", Type::RequestHeaders),
    ("ResponseHeaderModifier", Type::ResponseHeaders),
    ("RequestRedirect", Type::Redirect),
    ("URLRewrite", Type::Rewrite),
    ("RequestMirror", Type::Mirror),
    ("CORS", Type::Cors),
    ("ExtensionRef", Type::Extension),
    ("ExternalAuth", Type::ExternalAuth),
];

/// The keys of what they say.
const KEYS: [&str; 7] = [
    "request-header-modifier",
    "response-header-modifier",
    "request-redirect",
    "url-rewrite",
    "request-mirror",
    "cors",
    "extension-ref",
];

impl Type {
    /// Whether it can stand there; on backends only what concerns the one request that goes to it.
    fn fits(self, kind: Kind, of: Of) -> bool {
        let http = kind == Kind::Http;
        match self {
            Self::RequestHeaders | Self::ResponseHeaders => true,
            Self::Rewrite => http,
            Self::Redirect | Self::Cors => http && of == Of::Rule,
            Self::Mirror | Self::Extension => of == Of::Rule,
            Self::ExternalAuth => false,
        }
    }

    /// Whether one list can have several.
    fn repeats(self) -> bool {
        matches!(self, Self::Mirror | Self::Extension)
    }
}

/// The filters of a table, in the order of the file.
pub(super) fn read(table: &Table<'_>, scope: &Scope, of: Of) -> Vec<At<Filter<BackendRef>>> {
    let Some(value) = table.value("filters") else {
        return Vec::new();
    };
    let mut had = Vec::new();
    let help = "do with fewer, or with another rule";
    let filters = super::lists::at_most(&value, MOST_FILTERS, "filters", help, |item| {
        filter(item, scope, of, &mut had)
    });
    filters.unwrap_or_default()
}

fn filter(
    value: &Value<'_>,
    scope: &Scope,
    of: Of,
    had: &mut Vec<Type>,
) -> Option<At<Filter<BackendRef>>> {
    let table = value.nested()?;
    let Some(word) = table.value("type") else {
        return without_type(&table);
    };
    let Some(of_type) = type_of(&word, scope, of) else {
        // What else is in it belongs to a type that is not known.
        return None;
    };
    if had.contains(&of_type) && !of_type.repeats() {
        word.reject(
            Code::ConflictingKeys,
            "is a type that this list has already",
            "again",
            "join the two, or take one out",
        );
    }
    had.push(of_type);
    let filter = content(&table, of_type, scope);
    table.finish();
    Some(At::new(filter?, value.place().clone()))
}

/// Reports that the type is missing. The keys of all types are known, though not which belongs here.
fn without_type(table: &Table<'_>) -> Option<At<Filter<BackendRef>>> {
    table.required("type", "type = \"RequestHeaderModifier\"", |_| Some(()));
    let _known = KEYS.map(|key| table.value(key));
    table.finish();
    None
}

fn type_of(word: &Value<'_>, scope: &Scope, of: Of) -> Option<Type> {
    if word.text()? == "ExternalAuth" {
        word.unsupported(
            "write an `authorization-policy` with `action = \"CUSTOM\"` instead, which asks a provider",
        );
        return None;
    }
    let of_type = scalar::choice(word, &TYPES)?;
    if of_type.fits(scope.kind, of) {
        return Some(of_type);
    }
    let whose = match of {
        Of::Rule => format!("a rule of this {}", scope.kind.as_str()),
        Of::Backend => format!("a backend of this {}", scope.kind.as_str()),
    };
    let fitting = TYPES.iter().filter(|(_, t)| t.fits(scope.kind, of));
    let fitting = suggest::listed(fitting.map(|(word, _)| *word));
    word.bad(
        &format!("is no filter for {whose}"),
        "not here",
        format!("{whose} can have {fitting}"),
    );
    None
}

fn content(table: &Table<'_>, of_type: Type, scope: &Scope) -> Option<Filter<BackendRef>> {
    match of_type {
        Type::RequestHeaders => table.required(
            "request-header-modifier",
            "request-header-modifier = { set = [{ name = \"x-a\", value = \"b\" }] }",
            |value| header_change::read(value, true).map(Filter::RequestHeaders),
        ),
        Type::ResponseHeaders => table.required(
            "response-header-modifier",
            "response-header-modifier = { remove = [\"server\"] }",
            |value| header_change::read(value, false).map(Filter::ResponseHeaders),
        ),
        Type::Redirect => table.required(
            "request-redirect",
            "request-redirect = { scheme = \"https\" }",
            |value| redirect::redirect(value, scope).map(Filter::Redirect),
        ),
        Type::Rewrite => table.required(
            "url-rewrite",
            "url-rewrite = { hostname = \"cart.example.com\" }",
            |value| redirect::rewrite(value, scope).map(Filter::Rewrite),
        ),
        Type::Mirror => table.required(
            "request-mirror",
            "request-mirror = { backend-ref = { name = \"cart-v2\", port = 80 } }",
            |value| mirror::read(value, scope).map(Filter::Mirror),
        ),
        Type::Cors => table.required(
            "cors",
            "cors = { allow-origins = [\"https://shop.example\"] }",
            |value| cors::read(value).map(Filter::Cors),
        ),
        Type::Extension => table.required(
            "extension-ref",
            "extension-ref = { group = \"extensions.istio.io\", kind = \"WasmPlugin\", name = \"stamp\" }",
            |value| extension::read(value).map(Filter::Unresolved),
        ),
        Type::ExternalAuth => None,
    }
}
