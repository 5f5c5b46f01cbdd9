//! How header fields are read and changed (`spec/waypoint-l7.md` §2.2, §2.3).

use std::borrow::Cow;
use std::sync::Arc;

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
fn field((name, value): &(Arc<str>, Arc<str>)) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
    Some((field_name(name)?, value))
}

fn field_name(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes())
        .ok()
        .filter(|name| name != HOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::route::testing::headers;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (Arc::from(*name), Arc::from(*value)))
            .collect()
    }

    fn applied(
        change: &HeaderChange,
        before: &[(&str, &str)],
        name: &'static str,
    ) -> Option<String> {
        let mut fields = headers(before);
        change.apply(&mut fields);
        let value = joined(&fields, &HeaderName::from_static(name));
        value.map(Cow::into_owned)
    }

    #[test]
    fn fields_are_removed_then_set_then_added() {
        let change = HeaderChange {
            remove: vec![Arc::from("x-header-remove"), Arc::from("x-again")],
            set: pairs(&[
                ("x-header-set", "set-overwrites-values"),
                ("x-again", "set"),
                ("host", "other"),
                ("no name", "x"),
            ]),
            add: pairs(&[
                ("x-header-add", "add-appends-values"),
                ("x-again", "added\tä"),
                ("host", "third"),
                ("x-broken", "a\nb"),
            ]),
        };
        let before = [
            ("x-header-set", "a"),
            ("x-header-set", "b"),
            ("X-Header-Add", "some-other-value"),
            ("x-header-remove", "b"),
            ("x-again", "before"),
            ("host", "echo"),
        ];
        for (name, want) in [
            ("x-header-set", Some("set-overwrites-values")),
            ("x-header-add", Some("some-other-value,add-appends-values")),
            ("x-header-remove", None),
            ("x-again", Some("set,added\tä")),
            ("host", Some("echo")),
            ("x-broken", None),
        ] {
            assert_eq!(
                applied(&change, &before, name).as_deref(),
                want,
                "21 {name}"
            );
        }
        assert_eq!(change.host(), Some("other"));
        assert_eq!(HeaderChange::default().host(), None);
    }

    #[test]
    fn who_is_applied_last_wins() {
        let b = |value| HeaderChange {
            set: pairs(&[("b", value)]),
            ..HeaderChange::default()
        };
        let mut fields = headers(&[]);
        b("0").apply(&mut fields);
        b("1").apply(&mut fields);
        assert_eq!(
            joined(&fields, &HeaderName::from_static("b")).as_deref(),
            Some("1"),
            "22"
        );
    }
}
