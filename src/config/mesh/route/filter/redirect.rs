//! `request-redirect` and `url-rewrite` (§2.4).

use std::sync::Arc;

use crate::config::diagnose::Code;
use crate::config::mesh::route::scope::Scope;
use crate::config::mesh::route::{host, path};
use crate::config::read::{Value, scalar};
use crate::config::suggest;
use crate::model::route::{Redirect, Rewrite};

pub(in crate::config::mesh::route) const SCHEMES: [(&str, &str); 2] =
    [("http", "http"), ("https", "https")];

/// Statuses that send a client elsewhere, and what is meant by none.
const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
const USUAL_STATUS: u16 = 302;

pub(super) fn redirect(value: &Value<'_>, scope: &Scope) -> Option<Redirect> {
    let table = value.nested()?;
    let scheme = table.optional("scheme", |value| scalar::choice(value, &SCHEMES));
    let hostname = table.optional("hostname", host::precise);
    let port = table.optional("port", scalar::port);
    let path = table.optional("path", |value| path::change(value, scope));
    let status = table.optional("status-code", status);
    table.finish();
    Some(Redirect {
        scheme: scheme.map(Arc::from),
        host: hostname,
        port,
        path,
        status: status.unwrap_or(USUAL_STATUS),
    })
}

pub(in crate::config::mesh::route) fn status(value: &Value<'_>) -> Option<u16> {
    let number = value.integer(0..=999)?;
    let status = STATUSES.into_iter().find(|s| u64::from(*s) == number);
    if status.is_none() {
        let words = STATUSES.map(|status| status.to_string());
        value.bad(
            &format!("is not the status of a redirect: {number}"),
            "no redirect",
            format!(
                "write one of {}",
                suggest::listed(words.iter().map(String::as_str))
            ),
        );
    }
    status
}

pub(super) fn rewrite(value: &Value<'_>, scope: &Scope) -> Option<Rewrite> {
    let table = value.nested()?;
    let hostname = table.optional("hostname", host::precise);
    let path = table.optional("path", |value| path::change(value, scope));
    table.finish();
    if table.entries().next().is_none() {
        value.reject(
            Code::NoEffect,
            "rewrites nothing",
            "has no effect",
            "add `hostname` or `path`, or take the filter out",
        );
    }
    Some(Rewrite {
        host: hostname,
        path,
    })
}
