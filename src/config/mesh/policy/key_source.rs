//! `jwks`, `jwks-uri` and `timeout`: whose signatures a rule believes (`spec/waypoint-l7.md` §5.4).

use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::model::authentication::Keys;
use crate::model::declaration::{KeySource, Remote, RemoteAt};

/// `timeout` where it is not given, and what it may be.
const TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);

/// Where the keys of a rule are.
pub(super) fn read(table: &Table<'_>, issuer: Option<&At<Arc<str>>>) -> Option<KeySource> {
    let inline = table.value("jwks");
    let uri = table.value("jwks-uri");
    let timeout = table.optional("timeout", |value| scalar::duration(value, TIMEOUTS));
    let timeout = timeout.unwrap_or(TIMEOUT);
    if let (Some(inline), Some(uri)) = (&inline, &uri) {
        let message = format!("{} has both `jwks` and `jwks-uri`", table.what());
        table.report(
            Diagnostic::new(Code::ConflictingKeys, uri.place().clone(), message)
                .label("one of the two")
                .related(inline.place().clone(), "the other")
                .help(
                    "keep `jwks` for keys that are written here, `jwks-uri` for those that change",
                ),
        );
    }
    if issuer.is_none() && uri.is_none() {
        let message = format!("{} has neither `issuer` nor `jwks-uri`", table.what());
        let finding = Diagnostic::new(Code::MissingKey, table.place().clone(), message);
        let finding = finding.label("whose tokens?");
        let help = "add the issuer, as in `issuer = \"https://accounts.example.com\"`";
        table.missing(vec!["issuer", "jwks-uri"], finding.help(help));
    }
    let remote = |at| KeySource::Remote(Remote { at, timeout });
    match (inline, uri, issuer) {
        (Some(inline), _, _) => keys(&inline).map(KeySource::Inline),
        (None, Some(uri), _) => url(&uri).map(|uri| remote(RemoteAt::Uri(uri))),
        (None, None, Some(issuer)) => {
            discovered(table, issuer).map(|issuer| remote(RemoteAt::Discovery(issuer)))
        }
        (None, None, None) => None,
    }
}

/// A key set that is written here.
fn keys(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    match Keys::read(text.as_bytes()) {
        Err(fault) => {
            value.bad(
                &format!("is no JSON Web Key Set: {fault}"),
                "not a key set",
                "write it as `'{\"keys\": [{\"kty\": \"EC\", \"crv\": \"P-256\", \"x\": \"…\", \"y\": \"…\"}]}'`",
            );
            None
        }
        Ok(keys) if keys.is_empty() => {
            value.bad(
                "has no key that could sign a token",
                "believes nobody",
                "public keys are RSA of 2048 to 8192 bits, EC on P-256, P-384 or P-521, or Ed25519, not for encryption",
            );
            None
        }
        Ok(_) => Some(Arc::from(text)),
    }
}

/// `https://…`, `http://…`, or `file:///…`.
fn url(value: &Value<'_>) -> Option<Arc<str>> {
    let text = scalar::plain(value)?;
    let fault = match text.strip_prefix("file://") {
        Some(path) if path.starts_with('/') => None,
        Some(_) => Some((
            "names no absolute path",
            "write it with three slashes, as in `\"file:///etc/lateen/keys.json\"`",
        )),
        None => web_fault(text),
    };
    match fault {
        None => Some(Arc::from(text)),
        Some((fault, help)) => {
            value.bad(&format!("{fault}: {text:?}"), "cannot be fetched", help);
            None
        }
    }
}

/// What keeps a text from being a URL that keys are fetched by.
fn web_fault(text: &str) -> Option<(&'static str, &'static str)> {
    const HELP: &str = "write a URL, as in `\"https://accounts.example.com/keys\"`";
    let Ok(uri) = text.parse::<Uri>() else {
        return Some(("is no URL", HELP));
    };
    let authority = uri.authority().map(|a| a.as_str());
    match (uri.scheme_str(), authority) {
        (Some("http" | "https"), Some(authority)) if authority.contains('@') => Some((
            "has a user name or a password in it",
            "leave it out: public keys are for everyone, and this file is no place for secrets",
        )),
        (Some("http" | "https"), Some(_)) => None,
        _ => Some(("is no URL of http, https or file", HELP)),
    }
}

/// An issuer whose keys are where his configuration says.
fn discovered(table: &Table<'_>, issuer: &At<Arc<str>>) -> Option<Arc<str>> {
    if web_fault(&issuer.value).is_none() {
        return Some(Arc::clone(&issuer.value));
    }
    let message = format!(
        "{}: nobody says where the keys of issuer `{}` are, which is no URL to find them by",
        table.what(),
        issuer.value
    );
    let finding = Diagnostic::new(Code::MissingKey, issuer.place.clone(), message);
    let finding = finding.label("has no keys");
    let help = "add `jwks-uri = \"https://…\"`, or the keys themselves by `jwks`";
    table.missing(vec!["jwks-uri", "jwks"], finding.help(help));
    None
}
