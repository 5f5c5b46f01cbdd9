//! Host names: server names of a `tls-route`, and the host of a redirect or rewrite.

use std::sync::Arc;

use super::lists::{MOST, at_most};
use crate::config::diagnose::Code;
use crate::config::read::{Value, scalar};

/// `hostnames`: exact, or all below a suffix.
pub(super) fn read(value: &Value<'_>) -> Option<Vec<Arc<str>>> {
    at_most(
        value,
        MOST,
        "names",
        "write another route for them",
        |item| {
            let text = item.text()?;
            let rest = text.strip_prefix("*.").unwrap_or(text);
            judge(item, text, scalar::name_fault(rest))
        },
    )
}

/// The one host of a redirect or rewrite, without a port.
pub(super) fn precise(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    let is_address = text.parse::<std::net::Ipv4Addr>().is_ok();
    let fault = scalar::name_fault(text).filter(|_| !is_address);
    judge(value, text, fault)
}

pub(super) fn judge(
    value: &Value<'_>,
    text: &str,
    fault: Option<&'static str>,
) -> Option<Arc<str>> {
    let Some(fault) = fault else {
        return Some(Arc::from(text));
    };
    let lower = text.to_ascii_lowercase();
    let help = match lower != text && scalar::name_fault(&lower).is_none() {
        true => format!("write `\"{lower}\"`"),
        false => {
            "write a host name, as in `\"cart.example.com\"`, without port and path".to_owned()
        }
    };
    value.reject(
        Code::BadName,
        &format!("{fault}: {text:?}"),
        "not a host name",
        help,
    );
    None
}
