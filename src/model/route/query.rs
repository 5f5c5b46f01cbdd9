//! Parameters of a query (`spec/waypoint-l7.md` §2.2).

use std::borrow::Cow;

use super::percent::decoded;

/// The value of the first parameter of a name, in which case counts; both are percent-decoded.
pub fn first<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    let mut pairs = query.split('&');
    pairs.find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name).then(|| decoded(value))
    })
}

/// The values of all parameters of a name, in their order; decoded likewise.
pub fn all<'q>(query: &'q str, name: &str) -> impl Iterator<Item = Cow<'q, str>> {
    let pairs = query.split('&');
    pairs.filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name).then(|| decoded(value))
    })
}

/// A query without the parameters of some names; the others are as they were.
pub fn without(query: &str, is_one: impl Fn(&str) -> bool) -> String {
    let kept = query.split('&').filter(|pair| {
        let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
        !is_one(&decoded(key))
    });
    kept.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_and_taken_out() {
        for (query, want, rest) in [
            ("t=1", &["1"][..], ""),
            ("a=1&t=2&b=%20", &["2"], "a=1&b=%20"),
            ("t=1&a&t=%32&%74=3", &["1", "2", "3"], "a"),
            ("t", &[""], ""),
            ("T=1&tt=2", &[], "T=1&tt=2"),
            ("", &[], ""),
            ("a=1&&b=2", &[], "a=1&&b=2"),
        ] {
            assert_eq!(all(query, "t").collect::<Vec<_>>(), want, "{query}");
            assert_eq!(without(query, |name| name == "t"), rest, "{query}");
        }
    }
}
