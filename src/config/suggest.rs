//! What someone may have meant by a word that is not known.

/// Words further apart than this are no misspellings of each other.
const CLOSE: f64 = 0.8;

/// The known word most like `given`, if any is like it at all.
///
/// `serviceAccount` and `service_account` count as `service-account`: who writes them knows the
/// field from Istio or another file format.
pub(super) fn closest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let kebab = kebab(given);
    let likeness = |word: &str| {
        let word = self::kebab(word);
        let like = strsim::jaro_winkler(&kebab, &word);
        let edits = strsim::osa_distance(&kebab, &word);
        match edits {
            0 => 2.0,
            1 => 1.0 + like,
            _ => like,
        }
    };
    let rated = known.into_iter().map(|word| (likeness(word), word));
    let best = rated.reduce(|a, b| if b.0 > a.0 { b } else { a })?;
    (best.0 >= CLOSE).then_some(best.1)
}

/// `targetPort`, `target_port` and `Target Port` as `target-port`.
pub(super) fn kebab(word: &str) -> String {
    let mut out = String::with_capacity(word.len() + 2);
    let mut after_lower = false;
    for c in word.chars() {
        if c == '_' || c == ' ' {
            out.push('-');
        } else {
            if c.is_uppercase() && after_lower {
                out.push('-');
            }
            out.extend(c.to_lowercase());
        }
        after_lower = c.is_lowercase() || c.is_ascii_digit();
    }
    out
}

/// `a`, `b` and `c`, as people list them.
pub(super) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().map(|w| format!("`{w}`")).collect();
    match words.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_find_their_word() {
        let known = [
            "name",
            "addresses",
            "service-account",
            "node",
            "capture",
            "labels",
            "PERMISSIVE",
            "ServiceEntry",
        ];
        for (given, want) in [
            ("adresses", Some("addresses")),
            ("address", Some("addresses")),
            ("serviceAccount", Some("service-account")),
            ("service_account", Some("service-account")),
            ("Node", Some("node")),
            ("label", Some("labels")),
            ("nmae", Some("name")),
            ("permisive", Some("PERMISSIVE")),
            ("PERMISIVE", Some("PERMISSIVE")),
            ("serviceentry", Some("ServiceEntry")),
            ("zebra", None),
            ("", None),
        ] {
            assert_eq!(closest(given, known), want, "{given}");
        }
    }

    #[test]
    fn lists_read_as_sentences() {
        assert_eq!(listed([]), "");
        assert_eq!(listed(["a"]), "`a`");
        assert_eq!(listed(["a", "b", "c"]), "`a`, `b` and `c`");
    }
}
