//! How header fields are read and changed (`spec/waypoint-l7.md` §2.2, §2.3).

use std::borrow::Cow;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};

use super::HeaderChange;

/// The fields of a name as one value, joined with `,` where there are several.
pub(super) fn joined<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, str>> {
    let mut values = headers.get_all(name).iter();
    let mut text = String::from_utf8_lossy(values.next()?.as_bytes());
    for value in values {
        let text = text.to_mut();
        text.push(',');
        text.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    Some(text)
}

impl HeaderChange {
    /// Removes, then sets, then adds. `host` is left alone: it is the request's authority, of which
    /// [`Self::host`] speaks.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in self.remove.iter().filter_map(|name| field_name(name)) {
            headers.remove(name);
        }
        for (name, value) in self.set.iter().filter_map(field) {
            headers.insert(name, value);
        }
        for (name, value) in self.add.iter().filter_map(field) {
            headers.append(name, value);
        }
    }

    /// The authority it sets.
    pub fn host(&self) -> Option<&str> {
        let host = self.set.iter().find(|(name, _)| **name == *HOST.as_str());
        host.map(|(_, value)| &**value)
    }
}

/// A field; none where it cannot be one, which loading refuses.
fn field(
    (name, value): &(std::sync::Arc<str>, std::sync::Arc<str>),
) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
    Some((field_name(name)?, value))
}

fn field_name(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes())
        .ok()
        .filter(|name| name != HOST)
}
