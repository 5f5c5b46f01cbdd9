//! `session-persistence` (§2.7).

use std::sync::Arc;
use std::time::Duration;

use super::{fields, timeouts};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::model::route::{PersistBy, Persistence};

/// What carries the token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Cookie,
    Header,
}

const CARRIERS: [(&str, Carrier); 2] = [("Cookie", Carrier::Cookie), ("Header", Carrier::Header)];

/// How long a cookie lives; `true` is beyond the browser.
const LIFETIMES: [(&str, bool); 2] = [("Session", false), ("Permanent", true)];

/// What is said of a cookie, by `cookie` and by Gateway API's `cookie-config`.
#[derive(Default)]
struct Cookie {
    name: Option<At<Arc<str>>>,
    path: Option<Arc<str>>,
    permanent: Option<At<bool>>,
}

pub(super) fn read(value: &Value<'_>) -> Option<Persistence> {
    let table = value.nested()?;
    let carrier = match table.value("type") {
        Some(word) => scalar::choice(&word, &CARRIERS),
        None => Some(Carrier::Cookie),
    };
    let session_name = table.optional("session-name", fields_name);
    let absolute_timeout = table.optional("absolute-timeout", |value| {
        scalar::duration(value, Duration::from_secs(1)..=*timeouts::ANY.end())
    });
    table.unsupported("idle-timeout", "write `absolute-timeout` instead");
    let by = match carrier {
        Some(Carrier::Cookie) => by_cookie(&table, session_name, absolute_timeout),
        Some(Carrier::Header) => by_header(&table, session_name),
        None => {
            // Known, though not which of them it should be.
            let _known = ["cookie", "cookie-config", "header"].map(|key| table.value(key));
            None
        }
    };
    table.finish();
    Some(Persistence {
        by: by?,
        absolute_timeout,
    })
}

fn by_header(table: &Table<'_>, session_name: Option<At<Arc<str>>>) -> Option<PersistBy> {
    reject_other(table, "cookie", "Header");
    reject_other(table, "cookie-config", "Header");
    let name = table.optional("header", |value| {
        let table = value.nested()?;
        let name = table.optional("name", fields_name);
        table.finish();
        name
    });
    let name = name.or(session_name);
    let Some(name) = name else {
        nameless(table, "header = { name = \"x-session\" }");
        return None;
    };
    Some(PersistBy::Header {
        name: Arc::from(name.value.to_ascii_lowercase()),
    })
}

fn by_cookie(
    table: &Table<'_>,
    session_name: Option<At<Arc<str>>>,
    absolute_timeout: Option<Duration>,
) -> Option<PersistBy> {
    reject_other(table, "header", "Cookie");
    let own = table.optional("cookie", |value| cookie(value, true));
    let config = table.optional("cookie-config", |value| cookie(value, false));
    let own = own.unwrap_or_default();
    let of_config = config.and_then(|config| config.permanent);
    let permanent = own.permanent.or(of_config);
    if let Some(permanent) = permanent.as_ref().filter(|p| p.value)
        && absolute_timeout.is_none()
    {
        let message = format!("{} has a permanent cookie without a time", table.what());
        let finding = Diagnostic::new(Code::MissingKey, permanent.place.clone(), message);
        let finding = finding.label("for how long?");
        let help = "add how long it lives, as in `absolute-timeout = \"24h\"`";
        table.missing(vec!["absolute-timeout"], finding.help(help));
    }
    let Some(name) = own.name.or(session_name) else {
        nameless(table, "cookie = { name = \"session\" }");
        return None;
    };
    Some(PersistBy::Cookie {
        name: name.value,
        path: own.path.unwrap_or_else(|| Arc::from("/")),
        permanent: permanent.is_some_and(|permanent| permanent.value),
    })
}

fn cookie(value: &Value<'_>, whole: bool) -> Option<Cookie> {
    let table = value.nested()?;
    let (name, path) = match whole {
        true => (
            table.optional("name", fields_name),
            table.optional("path", path),
        ),
        false => (None, None),
    };
    let permanent = table.optional("lifetime-type", |value| {
        let lifetime = scalar::choice(value, &LIFETIMES)?;
        Some(At::new(lifetime, value.place().clone()))
    });
    table.finish();
    Some(Cookie {
        name,
        path,
        permanent,
    })
}

/// A name of a cookie or header, as it is written.
fn fields_name(value: &Value<'_>) -> Option<At<Arc<str>>> {
    let text = value.text()?;
    if !fields::is_token(text) {
        value.reject(
            Code::BadName,
            &format!("is not the name of a cookie or header: {text:?}"),
            "not a name",
            "use letters, digits and hyphens",
        );
        return None;
    }
    Some(At::new(Arc::from(text), value.place().clone()))
}

/// The path of a cookie (RFC 6265 §4.1.1).
fn path(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    let legal = |c: char| c.is_ascii_graphic() && c != ';';
    if !text.starts_with('/') || !text.chars().all(legal) {
        value.bad(
            &format!("is not a path: {text:?}"),
            "not a path",
            "write a path, as in `\"/\"`",
        );
        return None;
    }
    Some(Arc::from(text))
}

fn reject_other(table: &Table<'_>, key: &'static str, carrier: &str) {
    if let Some(value) = table.value(key) {
        value.reject(
            Code::ConflictingKeys,
            &format!("is given, and `type` is `{carrier}`"),
            "not with this type",
            "take it out, or write the other `type`",
        );
    }
}

fn nameless(table: &Table<'_>, example: &str) {
    let message = format!("{} names nothing to keep the session in", table.what());
    let finding = Diagnostic::new(Code::MissingKey, table.place().clone(), message);
    let finding = finding.label("kept in what?");
    table.missing(
        vec!["session-name", "cookie", "header"],
        finding.help(format!("add it, as in `{example}`")),
    );
}
