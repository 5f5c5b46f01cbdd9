//! `traceparent` and `tracestate` (<https://www.w3.org/TR/trace-context/>, level 1).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::{Decision, Incoming, SpanContext, SpanId, TraceId, lower_hex};

/// Carries the ids.
const PARENT: HeaderName = HeaderName::from_static("traceparent");
/// Carries what vendors add, which is nothing to us.
const STATE: HeaderName = HeaderName::from_static("tracestate");
/// The flag that a trace is kept (§3.2.2.5.1). The others mean nothing at this level.
const SAMPLED: u128 = 1;
/// Length of the fields of version 0.
const LENGTH: usize = 55;

/// Reads what a request tells; nothing where its field is there twice or none that the recommendation
/// would take (§3.2.2, §4.3).
pub(super) fn read(headers: &HeaderMap) -> Incoming {
    let mut fields = headers.get_all(PARENT).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Incoming::default();
    };
    let read = field.to_str().ok().and_then(parse);
    read.unwrap_or_default()
}

fn parse(text: &str) -> Option<Incoming> {
    let (known, more) = text.split_at_checked(LENGTH)?;
    let mut parts = known.split('-');
    let mut part = |length: usize| {
        let part = parts.next().filter(|part| part.len() == length)?;
        lower_hex(part)
    };
    let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let legal = match version {
        0xff => false,
        0 => more.is_empty(),
        // Later versions may say more, apart from what every version says (§4.3).
        _ => more.is_empty() || more.starts_with('-'),
    };
    let trace = TraceId::new(trace)?;
    let span = SpanId::new(u64::try_from(span).ok()?)?;
    let decision = match flags & SAMPLED {
        0 => Decision::Drop,
        _ => Decision::Keep,
    };
    legal.then_some(Incoming {
        parent: Some((trace, span)),
        decision: Some(decision),
    })
}

/// Tells of a span. What vendors have added stays with the trace that it was added to.
pub(super) fn write(headers: &mut HeaderMap, span: &SpanContext) {
    let goes_on = read(headers)
        .parent
        .is_some_and(|(trace, _)| trace == span.trace);
    if !goes_on {
        headers.remove(STATE);
    }
    let flags = u8::from(span.decision.keeps());
    let text = format!("00-{}-{}-{flags:02x}", span.trace, span.span);
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(PARENT, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_is_read_is_what_the_recommendation_takes() {
        let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        let upper = GOOD.to_uppercase();
        let no_trace = format!("00-{:032x}-00f067aa0ba902b7-01", 0);
        let no_span = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{:016x}-01", 0);
        let flags = |flags: &str| format!("00-{ids}-{flags}");
        let version = |version: &str, more: &str| format!("{version}-{ids}-01{more}");
        for (name, text, want) in [
            ("kept", GOOD, Some(Decision::Keep)),
            ("dropped", &flags("00"), Some(Decision::Drop)),
            ("unknown flags alone", &flags("fe"), Some(Decision::Drop)),
            ("unknown flags too", &flags("ff"), Some(Decision::Keep)),
            ("upper case", &upper, None),
            ("an upper-case flag", &flags("0A"), None),
            ("no trace", &no_trace, None),
            ("no span", &no_span, None),
            ("a longer one", &version("00", "-00"), None),
            ("a shorter one", &GOOD[..54], None),
            ("nothing", "", None),
            ("a later version", &version("cc", ""), Some(Decision::Keep)),
            ("with more", &version("cc", "-what"), Some(Decision::Keep)),
            ("with more, not apart", &version("cc", ".what"), None),
            ("no version", &version("ff", ""), None),
            ("an odd version", &version("0g", ""), None),
            ("a sign", &version("+0", ""), None),
            (
                "shifted",
                "000-bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                None,
            ),
            ("octets in the middle of a character", &"é".repeat(30), None),
        ] {
            let got = read(&headers(&[("traceparent", text)]));
            assert_eq!(got.decision, want, "{name}");
            assert_eq!(got.parent.is_some(), want.is_some(), "{name}");
        }
        let (trace, span) = read(&headers(&[("traceparent", GOOD)])).parent.unwrap();
        assert_eq!(format!("{trace}-{span}"), ids);
        let twice = headers(&[("traceparent", GOOD), ("traceparent", GOOD)]);
        assert_eq!(read(&twice), Incoming::default(), "twice");
    }

    #[test]
    fn state_stays_with_its_trace() {
        for (name, parent, kept) in [("read", GOOD, true), ("not read", "00-0", false)] {
            let state = ("tracestate", "a=1");
            let mut told = headers(&[("traceparent", parent), state, ("tracestate", "b=2")]);
            let span = SpanContext::within(read(&told), |_| true);
            write(&mut told, &span);
            assert_eq!(
                told.get_all(STATE).iter().count(),
                if kept { 2 } else { 0 },
                "{name}"
            );
            assert_eq!(read(&told).parent, Some((span.trace, span.span)), "{name}");
            // Another attempt.
            let child = span.child();
            write(&mut told, &child);
            assert_eq!(
                told.get_all(STATE).iter().count(),
                if kept { 2 } else { 0 },
                "{name}"
            );
            assert_eq!(told.get_all(PARENT).iter().count(), 1, "{name}");
        }
    }

    proptest! {
        #[test]
        fn spans_round_trip(trace in 1u128.., span in 1u64.., keeps: bool) {
            let context = SpanContext {
                trace: TraceId::new(trace).unwrap(),
                span: SpanId::new(span).unwrap(),
                parent: None,
                decision: if keeps { Decision::Keep } else { Decision::Drop },
            };
            let mut headers = HeaderMap::new();
            write(&mut headers, &context);
            let read = read(&headers);
            prop_assert_eq!(read.parent, Some((context.trace, context.span)));
            prop_assert_eq!(read.decision, Some(context.decision));
        }

        #[test]
        fn nothing_that_is_sent_panics(text in "[0-9a-f-]{0,70}|\\PC{0,60}") {
            if let Ok(value) = HeaderValue::try_from(text) {
                let mut headers = HeaderMap::new();
                headers.insert(PARENT, value);
                let _read = read(&headers);
            }
        }
    }
}
