//! Which trace a request belongs to, and what has been decided about it.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// Names a trace: 128 bits, never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// Names a span within its trace: 64 bits, never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    /// None of zero.
    pub fn new(bits: u128) -> Option<Self> {
        NonZeroU128::new(bits).map(Self)
    }

    /// One that nobody else has.
    pub fn random() -> Self {
        // Of 2^128 one is no id.
        Self(NonZeroU128::new(rand::random()).unwrap_or(NonZeroU128::MAX))
    }

    /// As OTLP has it.
    pub fn bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

impl SpanId {
    /// None of zero.
    pub fn new(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }

    /// One that nobody else in the trace has.
    pub fn random() -> Self {
        Self(NonZeroU64::new(rand::random()).unwrap_or(NonZeroU64::MAX))
    }

    /// As OTLP has it.
    pub fn bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether the spans of a trace are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// They are not.
    Drop,
    /// They are.
    Keep,
    /// They are, whatever anybody on the way would rather do (B3's debug flag).
    Debug,
}

impl Decision {
    /// Whether spans are kept.
    pub fn keeps(self) -> bool {
        match self {
            Self::Drop => false,
            Self::Keep | Self::Debug => true,
        }
    }
}

/// What a request tells of its trace. Nothing, by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// The span it was sent in.
    pub parent: Option<(TraceId, SpanId)>,
    /// What has been decided, if anything has.
    pub decision: Option<Decision>,
}

/// A span, as those that it calls are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// The one it is in.
    pub parent: Option<SpanId>,
    /// Whether it is kept.
    pub decision: Decision,
}

impl SpanContext {
    /// A span within whatever a request tells, in a trace of its own where that is nothing; `decide` says
    /// whether it is kept where nobody has said so.
    pub fn within(incoming: Incoming, decide: impl FnOnce(TraceId) -> bool) -> Self {
        let (trace, parent) = match incoming.parent {
            Some((trace, parent)) => (trace, Some(parent)),
            None => (TraceId::random(), None),
        };
        let decided = || match decide(trace) {
            true => Decision::Keep,
            false => Decision::Drop,
        };
        Self {
            trace,
            span: SpanId::random(),
            parent,
            decision: incoming.decision.unwrap_or_else(decided),
        }
    }

    /// A span within this one.
    pub fn child(&self) -> Self {
        Self {
            span: SpanId::random(),
            parent: Some(self.span),
            ..*self
        }
    }
}

/// Lower-case hexadecimal digits as a number; none where there is anything else.
pub(super) fn lower_hex(text: &str) -> Option<u128> {
    let legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let all = !text.is_empty() && text.bytes().all(legal);
    all.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}
