//! A validated JWT as policies see it (`spec/waypoint-l7.md` §4.2).

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::model::policy::Pattern;

/// Claims whose words count, too, whatever a rule says.
const SPACED: [&str; 2] = ["scope", "permission"];

/// A token that was validated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Token {
    /// `iss`; empty where it has none.
    pub issuer: Arc<str>,
    /// `sub`; empty where it has none.
    pub subject: Arc<str>,
    /// All its claims.
    pub claims: Map<String, Value>,
    /// Further claims whose words count, too (`space-delimited-claims`).
    pub spaced: Arc<[Arc<str>]>,
}

impl Token {
    /// Whether its principal `<iss>/<sub>` is what a pattern means, of which the part after the last
    /// slash is for the subject.
    pub(super) fn is(&self, pattern: &Pattern) -> bool {
        let (issuer, subject) = (&*self.issuer, &*self.subject);
        if issuer.is_empty() || subject.is_empty() {
            return false;
        }
        match pattern {
            Pattern::Present => true,
            Pattern::Exact(whole) => whole
                .rsplit_once('/')
                .is_some_and(|(iss, sub)| iss == issuer && sub == subject),
            Pattern::Prefix(begin) => match begin.rsplit_once('/') {
                Some((iss, sub)) => iss == issuer && subject.starts_with(sub),
                None => issuer.starts_with(&**begin),
            },
            Pattern::Suffix(end) => match end.rsplit_once('/') {
                Some((iss, sub)) => issuer.ends_with(iss) && sub == subject,
                None => subject.ends_with(&**end),
            },
        }
    }

    /// Whether a claim, by the names that lead there, is what a pattern means.
    pub(super) fn claims(&self, path: &[Arc<str>], pattern: &Pattern) -> bool {
        self.claim(path).is_some_and(|value| {
            let spaced = matches!(path, [name] if self.is_spaced(name));
            leaf(value, pattern, spaced)
        })
    }

    fn claim(&self, path: &[Arc<str>]) -> Option<&Value> {
        let (first, inner) = path.split_first()?;
        let begin = self.claims.get(&**first)?;
        inner
            .iter()
            .try_fold(begin, |value, name| value.get(&**name))
    }

    fn is_spaced(&self, name: &str) -> bool {
        SPACED.contains(&name) || self.spaced.iter().any(|spaced| **spaced == *name)
    }
}

/// Whether a value, or one that a list has, is what a pattern means.
fn leaf(value: &Value, pattern: &Pattern, spaced: bool) -> bool {
    match value {
        Value::String(text) => {
            pattern.matches(text) || (spaced && text.split(' ').any(|word| pattern.matches(word)))
        }
        Value::Bool(_) => pattern.matches(&value.to_string()),
        Value::Number(number) if !number.is_f64() => pattern.matches(&number.to_string()),
        Value::Array(all) => all.iter().any(|one| match one {
            Value::String(text) => pattern.matches(text),
            _ => false,
        }),
        Value::Null | Value::Number(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> Token {
        Token {
            issuer: Arc::from("https://issuer/1"),
            subject: Arc::from("sub-1"),
            claims: serde_json::from_str(claims).unwrap(),
            spaced: Arc::from([Arc::from("groups")]),
        }
    }

    #[test]
    fn principals_are_split_at_the_last_slash() {
        let token = token("{}");
        for (pattern, want) in [
            ("*", true),
            ("https://issuer/1/sub-1", true),
            ("https://issuer/1/*", true),
            ("https://issuer/1/sub*", true),
            ("https://issuer/*", false),
            ("*/sub-1", true),
            ("*/1/sub-1", true),
            ("*2/sub-1", false),
            ("*sub-1", true),
            ("*1", true),
            ("https:*", true),
            ("https://issuer/1/sub-2", false),
            ("https://issuer/1", false),
            ("sub-1", false),
        ] {
            let read = Pattern::parse(pattern).unwrap();
            assert_eq!(token.is(&read), want, "{pattern}");
        }
        let nobody = Token {
            subject: Arc::from(""),
            ..token
        };
        assert!(!nobody.is(&Pattern::Present));
    }

    #[test]
    fn claims_are_found_by_the_names_that_lead_there() {
        let token = token(
            r#"{"a": {"b": "v", "c": ["w", "v", 5]}, "n": 7, "f": 1.5, "t": true, "z": null, "s": "x v",
                "scope": "read write", "groups": "one two", "https://x/y": "u"}"#,
        );
        for (path, pattern, want) in [
            (&["a", "b"][..], "v", true),
            (&["a", "b"], "v*", true),
            (&["a", "c"], "v", true),
            (&["a", "c"], "5", false),
            (&["a"], "*", false),
            (&["a", "d"], "*", false),
            (&["a", "b", "c"], "*", false),
            (&["n"], "7", true),
            (&["f"], "1.5", false),
            (&["t"], "true", true),
            (&["z"], "*", false),
            (&["s"], "v", false),
            (&["s"], "x v", true),
            (&["scope"], "write", true),
            (&["groups"], "two", true),
            (&["https://x/y"], "u", true),
            (&["none"], "*", false),
        ] {
            let path: Vec<Arc<str>> = path.iter().map(|name| Arc::from(*name)).collect();
            let read = Pattern::parse(pattern).unwrap();
            assert_eq!(token.claims(&path, &read), want, "{path:?} {pattern}");
        }
    }
}
