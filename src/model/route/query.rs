//! Parameters of a query (`spec/waypoint-l7.md` §2.2).

use std::borrow::Cow;

use super::percent::{decoded, encoded};

/// The value of the first parameter of a name, in which case counts; both are percent-decoded.
pub fn first<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    let mut pairs = query.split('&');
    pairs.find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name).then(|| decoded(value))
    })
}

/// A path and query without the parameters of some names, and with others in place of all by theirs.
pub fn edited(target: &str, remove: &[String], set: &[(String, String)]) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let goes = |pair: &&str| {
        let key = decoded(pair.split_once('=').map_or(*pair, |(key, _)| key));
        let set = set.iter().map(|(name, _)| name);
        remove.iter().chain(set).any(|name| key == **name)
    };
    let stay = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !goes(pair));
    let come = set
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    let all: Vec<String> = stay.map(str::to_owned).chain(come).collect();
    match all.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", all.join("&")),
    }
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
    fn parameters_go_and_come() {
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect()
        };
        for (name, target, remove, set, want) in [
            ("nothing", "/a?b=c", &[][..], &[][..], "/a?b=c"),
            ("one goes", "/a?b=c&d&b=e", &["b"], &[], "/a?d"),
            ("the last goes", "/a?b=c", &["b"], &[], "/a"),
            ("by what it means", "/a?%62=c", &["b"], &[], "/a"),
            ("one comes", "/a", &[], &[("b", "c d&e")], "/a?b=c%20d%26e"),
            (
                "in place of all",
                "/a?b=1&c=2&b=3",
                &[],
                &[("b", "4")],
                "/a?c=2&b=4",
            ),
        ] {
            let remove: Vec<String> = remove.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(edited(target, &remove, &owned(set)), want, "{name}");
        }
    }

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
