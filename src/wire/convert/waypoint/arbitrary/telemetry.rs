//! Arbitrary telemetry, and whom it is told to.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::policy::key;
use super::{lasting, list, origin, target, text, word};
use crate::model::declaration::{FileAccessLog, OtlpHttp, TraceContext};
use crate::model::expression::Expression;
use crate::model::log_format::{Layout, LogFormat, TextFormat};
use crate::model::telemetry::{
    CustomTag, Defaults, Exporter, Logging, Metric, Metrics, Override, Sampling, Sections, Setup,
    TagChange, Telemetry, Tracing,
};

pub(super) fn telemetry() -> impl Strategy<Value = Telemetry> {
    let says = (list(tracing()), list(metrics()), list(logging()));
    let says = says.prop_map(|(tracing, metrics, logging)| Sections {
        tracing,
        metrics,
        logging,
    });
    (key(), origin(), says).prop_map(|(key, origin, says)| Telemetry { key, origin, says })
}

fn expression() -> impl Strategy<Value = Expression> {
    select(vec!["true", "response.code >= 400", "request.host"])
        .prop_map(|source| Expression::parse(source).unwrap())
}

fn format() -> impl Strategy<Value = TextFormat> {
    select(vec!["", "a%%", "%REQ(a?b):9% %CEL(1 + 1)%"])
        .prop_map(|source| TextFormat::parse(source).unwrap())
}

fn named<T: std::fmt::Debug>(
    of: impl Strategy<Value = T>,
) -> impl Strategy<Value = BTreeMap<Arc<str>, T>> {
    prop::collection::btree_map(word(), of, 0..3)
}

fn tracing() -> impl Strategy<Value = Tracing> {
    let tag = prop_oneof![
        text().prop_map(CustomTag::Literal),
        (word(), option::of(text()))
            .prop_map(|(name, default)| CustomTag::Environment { name, default }),
        (word(), option::of(text()))
            .prop_map(|(name, default)| CustomTag::Header { name, default }),
        format().prop_map(CustomTag::Formatter),
    ];
    let sampling = option::of((0..=10_000_u16).prop_map(Sampling));
    let flags = any::<[Option<bool>; 3]>();
    (list(word()), sampling, option::of(named(tag)), flags).prop_map(
        |(providers, sampling, custom_tags, flags)| Tracing {
            providers,
            sampling,
            disable_span_reporting: flags[0],
            custom_tags,
            enable_istio_tags: flags[1],
            disable_context_propagation: flags[2],
        },
    )
}

fn metrics() -> impl Strategy<Value = Metrics> {
    let metric = option::of(select(Metric::ALL.map(|(metric, _, _)| metric).to_vec()));
    let tag = prop_oneof![
        expression().prop_map(TagChange::Upsert),
        Just(TagChange::Remove)
    ];
    let change = (metric, any::<Option<bool>>(), named(tag));
    let change = change.prop_map(|(metric, disabled, tags)| Override {
        metric,
        disabled,
        tags,
    });
    (list(word()), list(change), option::of(lasting())).prop_map(
        |(providers, overrides, reporting_interval)| Metrics {
            providers,
            overrides,
            reporting_interval,
        },
    )
}

fn logging() -> impl Strategy<Value = Logging> {
    let filter = option::of(expression());
    (list(word()), any::<bool>(), filter).prop_map(|(providers, disabled, filter)| Logging {
        providers,
        disabled,
        filter,
    })
}

pub(super) fn setup() -> impl Strategy<Value = Setup> {
    let defaults = (list(word()), list(word()), list(word()), any::<bool>());
    let defaults = defaults.prop_map(|(tracing, metrics, access_logging, file)| Defaults {
        tracing,
        metrics,
        access_logging,
        file,
    });
    (defaults, named(exporter())).prop_map(|(defaults, providers)| Setup {
        defaults,
        providers,
    })
}

fn log_format() -> impl Strategy<Value = LogFormat> {
    let members = list((word(), format()));
    prop_oneof![
        format().prop_map(LogFormat::Text),
        members.prop_map(LogFormat::Json)
    ]
}

fn exporter() -> impl Strategy<Value = Exporter> {
    let file = (text(), log_format(), any::<bool>());
    let file = file.prop_map(|(path, format, omit_empty)| FileAccessLog {
        path,
        layout: Layout { format, omit_empty },
    });
    let field = Just((
        HeaderName::from_static("x-a"),
        HeaderValue::from_static("b c"),
    ));
    let http = (text(), lasting(), list(field));
    let http = http.prop_map(|(path, timeout, headers)| OtlpHttp {
        path,
        timeout,
        headers,
    });
    let context = select(vec![TraceContext::B3, TraceContext::B3AndW3c]);
    prop_oneof![
        Just(Exporter::Prometheus),
        file.prop_map(Exporter::File),
        (target(), text(), log_format()).prop_map(|(to, log_name, format)| Exporter::OtelLog {
            to,
            log_name,
            format,
        }),
        (target(), option::of(http), any::<u32>()).prop_map(|(to, http, max_tag_length)| {
            Exporter::OpenTelemetry {
                to,
                http,
                max_tag_length,
            }
        }),
        (target(), text(), context).prop_map(|(to, path, trace_context)| Exporter::Zipkin {
            to,
            path,
            trace_context,
        }),
    ]
}
