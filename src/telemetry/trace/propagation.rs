//! In which headers a trace is told, by whom its spans go to (`spec/waypoint-l7.md` §6.4).

use http::HeaderMap;

use super::context::{Incoming, SpanContext};
use super::{b3, w3c};
use crate::model::declaration::TraceContext;
use crate::model::telemetry::Exporter;

/// The headers that carry a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// `traceparent` and `tracestate`.
    W3c,
    /// B3.
    B3,
    /// B3 is read first, then W3C; both are written.
    B3AndW3c,
}

impl Propagation {
    /// That of whoever takes spans; none of who takes none.
    pub fn of(exporter: &Exporter) -> Option<Self> {
        match exporter {
            Exporter::OpenTelemetry { .. } => Some(Self::W3c),
            Exporter::Zipkin { trace_context, .. } => Some(match trace_context {
                TraceContext::B3 => Self::B3,
                TraceContext::B3AndW3c => Self::B3AndW3c,
            }),
            Exporter::Prometheus | Exporter::File(_) | Exporter::OtelLog { .. } => None,
        }
    }

    /// Reads what a request tells of its trace.
    pub fn read(self, headers: &HeaderMap) -> Incoming {
        match self {
            Self::W3c => w3c::read(headers),
            Self::B3 => b3::read(headers),
            Self::B3AndW3c => {
                let read = b3::read(headers);
                match read.parent {
                    Some(_) => read,
                    None => {
                        let other = w3c::read(headers);
                        Incoming {
                            parent: other.parent,
                            // What is decided alone holds for whichever trace there is.
                            decision: read.decision.or(other.decision),
                        }
                    }
                }
            }
        }
    }

    /// Tells of a span, in the place of what a request told.
    pub fn write(self, headers: &mut HeaderMap, span: &SpanContext) {
        match self {
            Self::W3c => w3c::write(headers, span),
            Self::B3 => b3::write(headers, span),
            Self::B3AndW3c => {
                b3::write(headers, span);
                w3c::write(headers, span);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::Decision;

    const W3C: (&str, &str) = (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
    );
    const B3: (&str, &str) = ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");

    #[test]
    fn each_speaks_its_own() {
        use Propagation::{B3 as Own, B3AndW3c as Both, W3c};
        for (name, by, fields, trace, decision, written) in [
            (
                "W3C",
                W3c,
                &[W3C][..],
                "4bf9",
                Some(Decision::Drop),
                "tracestate traceparent",
            ),
            ("W3C of B3", W3c, &[B3], "", None, "traceparent"),
            ("B3", Own, &[B3], "80f1", Some(Decision::Keep), "b3"),
            ("B3 of W3C", Own, &[W3C], "", None, "x-b3-traceid"),
            (
                "both of both",
                Both,
                &[W3C, B3],
                "80f1",
                Some(Decision::Keep),
                "b3 traceparent",
            ),
            (
                "both of W3C",
                Both,
                &[W3C],
                "4bf9",
                Some(Decision::Drop),
                "x-b3-traceid traceparent tracestate",
            ),
            (
                "both of B3",
                Both,
                &[B3],
                "80f1",
                Some(Decision::Keep),
                "b3 traceparent",
            ),
            (
                "both, one decided",
                Both,
                &[W3C, ("x-b3-sampled", "1")],
                "4bf9",
                Some(Decision::Keep),
                "x-b3-traceid",
            ),
            (
                "both of nothing",
                Both,
                &[],
                "",
                None,
                "x-b3-traceid traceparent",
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("tracestate", "a=1".parse().unwrap());
            for (name, value) in fields {
                headers.insert(*name, value.parse().unwrap());
            }
            let read = by.read(&headers);
            let told = read.parent.map(|(trace, _)| trace.to_string());
            assert_eq!(told.is_some(), !trace.is_empty(), "{name}");
            assert!(told.unwrap_or_default().starts_with(trace), "{name}");
            assert_eq!(read.decision, decision, "{name}");
            let span = SpanContext::within(read, |_| false);
            by.write(&mut headers, &span);
            for field in written.split(' ') {
                assert!(headers.contains_key(field), "{name}: {field}");
            }
            // What was told to those who read the other headers is left as it was.
            for (field, value) in fields {
                let own = by == Both || (by == W3c) == (*field == W3C.0);
                assert!(own || headers[*field] == value, "{name}: {field}");
            }
            assert_eq!(
                by.read(&headers).parent,
                Some((span.trace, span.span)),
                "{name}"
            );
        }
    }
}
