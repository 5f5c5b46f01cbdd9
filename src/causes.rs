//! Errors as text.

/// An error with its causes, outermost first, joined by colons: what logs and people are told.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // A wrapper that only repeats its cause adds nothing.
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Said {
        said: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn every_cause_is_told_once() {
        for (errors, want) in [
            (&["refused"][..], "refused"),
            (&["cannot connect", "refused"], "cannot connect: refused"),
            (
                &["cannot connect: refused", "refused"],
                "cannot connect: refused",
            ),
            (&["a", "b", "c"], "a: b: c"),
        ] {
            let mut errors = errors.iter().rev();
            let said = |said, source| Said { said, source };
            let innermost = said(*errors.next().unwrap(), None);
            let error = errors.fold(innermost, |e, text| said(*text, Some(Box::new(e))));
            assert_eq!(chain(&error), want);
        }
    }
}
