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
