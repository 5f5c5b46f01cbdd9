//! What reports have room for (`spec/control-plane.md` §7.2).

/// Longest text of a report, in bytes.
pub const LONGEST_DETAIL: usize = 256;

/// As much of a text as a report has room for.
pub fn shortened(mut text: String) -> String {
    let mut ends = (0..=LONGEST_DETAIL).rev();
    let end = ends.find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or_default());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_with_a_whole_character() {
        for (name, text, want) in [
            ("short", "no room".to_owned(), 7),
            ("as long as may be", "x".repeat(256), 256),
            ("longer", "x".repeat(257), 256),
            ("of two bytes each", format!("x{}", "ü".repeat(200)), 255),
        ] {
            assert_eq!(shortened(text).len(), want, "{name}");
        }
    }
}
