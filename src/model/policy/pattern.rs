//! How a policy matches text (`spec/labels-and-policy.md` §3.2).

use std::fmt;
use std::sync::Arc;

/// What a value is compared with. All comparisons are of bytes, case included.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// `abc`: this and nothing else.
    Exact(Arc<str>),
    /// `abc*`: what begins so.
    Prefix(Arc<str>),
    /// `*abc`: what ends so.
    Suffix(Arc<str>),
    /// `*`: whatever is there at all.
    Present,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// There is nothing to compare with.
    #[error("is empty, which matches nothing")]
    Empty,
    /// A star that is neither first nor last, or a second one.
    #[error("has a `*` that is neither its first nor its last character, or two of them")]
    Star,
}

impl Pattern {
    /// Reads a pattern as it is written.
    ///
    /// # Errors
    /// [`PatternError`], where Istio would match the star literally or never match at all.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let literal = |text: &str| match text.contains('*') {
            true => Err(PatternError::Star),
            false => Ok(Arc::<str>::from(text)),
        };
        match text {
            "" => Err(PatternError::Empty),
            "*" => Ok(Self::Present),
            _ => match (text.strip_suffix('*'), text.strip_prefix('*')) {
                (Some(prefix), _) => literal(prefix).map(Self::Prefix),
                (None, Some(suffix)) => literal(suffix).map(Self::Suffix),
                (None, None) => literal(text).map(Self::Exact),
            },
        }
    }

    /// Whether `value` is what is meant. An empty value is one that is absent.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => &**exact == value,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Suffix(suffix) => value.ends_with(&**suffix),
            Self::Present => !value.is_empty(),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(exact),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Present => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_matches() {
        for (pattern, hits, misses) in [
            ("abc", &["abc"][..], &["", "ab", "abcd", "Abc", "xabc"][..]),
            ("abc*", &["abc", "abcd"], &["", "ab", "xabc", "Abc"]),
            ("*abc", &["abc", "xabc"], &["", "abcx", "xABC"]),
            ("*", &["a", "*"], &[""]),
        ] {
            let read = Pattern::parse(pattern).unwrap();
            assert_eq!(read.to_string(), pattern);
            for hit in hits {
                assert!(read.matches(hit), "{pattern} misses {hit:?}");
            }
            for miss in misses {
                assert!(!read.matches(miss), "{pattern} hits {miss:?}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern() {
        assert_eq!(Pattern::parse(""), Err(PatternError::Empty));
        for text in ["a*c", "**", "*a*", "a**", "**a"] {
            assert_eq!(Pattern::parse(text), Err(PatternError::Star), "{text}");
        }
    }
}
