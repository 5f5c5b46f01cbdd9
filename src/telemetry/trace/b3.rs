//! B3, Zipkin's own headers: several, or one for all (<https://github.com/openzipkin/b3-propagation>).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::{Decision, Incoming, SpanContext, SpanId, TraceId, lower_hex};

const SINGLE: HeaderName = HeaderName::from_static("b3");
const TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Reads what a request tells: by the one header where that can be read, else by the several.
pub(super) fn read(headers: &HeaderMap) -> Incoming {
    let single = field(headers, &SINGLE).and_then(parse);
    single.unwrap_or_else(|| several(headers))
}

/// A field that is there once.
fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut fields = headers.get_all(name).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => field.to_str().ok(),
        _ => None,
    }
}

/// `{trace}-{span}[-{sampled}[-{parent}]]`, or what is decided alone.
fn parse(text: &str) -> Option<Incoming> {
    let mut parts = text.split('-');
    let first = parts.next()?;
    let Some(span) = parts.next() else {
        return Some(Incoming {
            parent: None,
            decision: Some(decision(first)?),
        });
    };
    let ids = (trace_id(first)?, span_id(span)?);
    let decided = match parts.next() {
        None => None,
        Some(sampled) => Some(decision(sampled)?),
    };
    if let Some(parent) = parts.next() {
        span_id(parent)?;
    }
    parts.next().is_none().then_some(Incoming {
        parent: Some(ids),
        decision: decided,
    })
}

fn decision(text: &str) -> Option<Decision> {
    match text {
        "0" => Some(Decision::Drop),
        "1" => Some(Decision::Keep),
        "d" => Some(Decision::Debug),
        _ => None,
    }
}

fn several(headers: &HeaderMap) -> Incoming {
    let trace = field(headers, &TRACE).and_then(trace_id);
    let span = field(headers, &SPAN).and_then(span_id);
    let sampled = field(headers, &SAMPLED).and_then(|sampled| match sampled {
        // What the oldest of them write.
        "true" => Some(Decision::Keep),
        "false" => Some(Decision::Drop),
        "d" => None,
        other => decision(other),
    });
    let debug = field(headers, &FLAGS).filter(|flags| *flags == "1");
    Incoming {
        parent: trace.zip(span),
        decision: debug.map(|_| Decision::Debug).or(sampled),
    }
}

/// 128 bits, or 64.
fn trace_id(text: &str) -> Option<TraceId> {
    let digits = text.len() == 32 || text.len() == 16;
    digits
        .then(|| lower_hex(text))
        .flatten()
        .and_then(TraceId::new)
}

fn span_id(text: &str) -> Option<SpanId> {
    let digits = text.len() == 16;
    let bits = digits.then(|| lower_hex(text)).flatten()?;
    SpanId::new(u64::try_from(bits).ok()?)
}

/// Tells of a span, in as many headers as the request came with: the several, unless it has the one.
pub(super) fn write(headers: &mut HeaderMap, span: &SpanContext) {
    let mut set = |name: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    set(TRACE, span.trace.to_string());
    set(SPAN, span.span.to_string());
    let debug = span.decision == Decision::Debug;
    if debug {
        set(FLAGS, "1".to_owned());
    } else {
        set(SAMPLED, u8::from(span.decision.keeps()).to_string());
    }
    if let Some(parent) = span.parent {
        set(PARENT, parent.to_string());
    } else {
        headers.remove(PARENT);
    }
    // Debug says that it is kept, and the other field must not say it otherwise.
    headers.remove(if debug { SAMPLED } else { FLAGS });
    if headers.contains_key(SINGLE) {
        let sampled = match span.decision {
            Decision::Drop => '0',
            Decision::Keep => '1',
            Decision::Debug => 'd',
        };
        let mut text = format!("{}-{}-{sampled}", span.trace, span.span);
        if let Some(parent) = span.parent {
            text.push_str(&format!("-{parent}"));
        }
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(SINGLE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const S: &str = "e457b5a2e4d86bd1";
    const P: &str = "05e3ac9a4f6e3b90";

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    /// What is read, in short: trace, span and decision.
    fn told(headers: &HeaderMap) -> String {
        let Incoming { parent, decision } = read(headers);
        let ids = parent.map(|(trace, span)| format!("{trace} {span} "));
        let decision = decision.map(|d| format!("{d:?}"));
        format!(
            "{}{}",
            ids.unwrap_or_default(),
            decision.unwrap_or_default()
        )
    }

    #[test]
    fn one_header_says_all() {
        let all = format!("{T} {S} ");
        let short = format!("{:0>32} {S} ", &T[16..]);
        for (name, text, want) in [
            ("everything", format!("{T}-{S}-1-{P}"), format!("{all}Keep")),
            ("no parent", format!("{T}-{S}-0"), format!("{all}Drop")),
            ("debug", format!("{T}-{S}-d"), format!("{all}Debug")),
            ("nothing decided", format!("{T}-{S}"), all.clone()),
            (
                "64 bits",
                format!("{}-{S}-1", &T[16..]),
                format!("{short}Keep"),
            ),
            ("decided alone", "0".to_owned(), "Drop".to_owned()),
            ("debug alone", "d".to_owned(), "Debug".to_owned()),
            ("an odd decision", format!("{T}-{S}-2"), String::new()),
            ("an odd parent", format!("{T}-{S}-1-5"), String::new()),
            ("too much", format!("{T}-{S}-1-{P}-1"), String::new()),
            (
                "no such length",
                format!("{}-{S}-1", &T[1..]),
                String::new(),
            ),
            (
                "upper case",
                format!("{T}-{}-1", S.to_uppercase()),
                String::new(),
            ),
            ("no trace", format!("{:032}-{S}-1", 0), String::new()),
            ("no span", format!("{T}-{:016}-1", 0), String::new()),
        ] {
            assert_eq!(told(&headers(&[("b3", &text)])), want, "{name}");
        }
    }

    #[test]
    fn several_headers_say_the_same() {
        let ids = [("x-b3-traceid", T), ("x-b3-spanid", S)];
        let all = format!("{T} {S} ");
        for (name, more, want) in [
            ("kept", &[("x-b3-sampled", "1")][..], format!("{all}Keep")),
            ("dropped", &[("x-b3-sampled", "0")], format!("{all}Drop")),
            ("of old", &[("x-b3-sampled", "true")], format!("{all}Keep")),
            ("nothing decided", &[], all.clone()),
            ("odd", &[("x-b3-sampled", "2")], all.clone()),
            ("debug", &[("x-b3-flags", "1")], format!("{all}Debug")),
            (
                "debug, and dropped",
                &[("x-b3-flags", "1"), ("x-b3-sampled", "0")],
                format!("{all}Debug"),
            ),
            ("no debug", &[("x-b3-flags", "0")], all.clone()),
            ("two spans", &[("x-b3-spanid", P)], String::new()),
        ] {
            let fields: Vec<_> = ids.iter().chain(more).copied().collect();
            assert_eq!(told(&headers(&fields)), want, "{name}");
        }
        let alone = headers(&[("x-b3-sampled", "0")]);
        assert_eq!(told(&alone), "Drop", "decided alone");
        let both = headers(&[("b3", "1"), ("x-b3-traceid", P), ("x-b3-sampled", "0")]);
        assert_eq!(told(&both), "Keep", "the one goes first");
        let unread = headers(&[("b3", "what"), ("x-b3-sampled", "0")]);
        assert_eq!(told(&unread), "Drop", "where it can be read");
    }

    #[test]
    fn spans_are_told_as_requests_came() {
        for (name, fields, single) in [
            ("nothing", &[][..], false),
            (
                "several",
                &[("x-b3-sampled", "1"), ("x-b3-parentspanid", P)],
                false,
            ),
            ("one", &[("b3", "1")], true),
            (
                "debug",
                &[("x-b3-flags", "1"), ("x-b3-sampled", "1")],
                false,
            ),
            ("dropped", &[("x-b3-sampled", "0")], false),
        ] {
            let mut headers = headers(fields);
            let span = SpanContext::within(read(&headers), |_| true);
            for span in [span, span.child()] {
                write(&mut headers, &span);
                assert_eq!(headers.contains_key("b3"), single, "{name}");
                let parent = headers.get("x-b3-parentspanid");
                let parent = parent.map(|v| v.to_str().unwrap().to_owned());
                assert_eq!(parent, span.parent.map(|p| p.to_string()), "{name}");
                // Whichever of the two is read.
                for without in ["b3", "none"] {
                    let mut headers = headers.clone();
                    headers.remove(without);
                    let read = read(&headers);
                    assert_eq!(read.parent, Some((span.trace, span.span)), "{name}");
                    assert_eq!(read.decision, Some(span.decision), "{name}");
                }
            }
        }
    }
}
