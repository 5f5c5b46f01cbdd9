//! A telemetry resource, its expressions and formats as they are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{Fault, Reason};
use super::FORMAT;
use super::parts::{
    PRESENT, duration, each, format, given, lasting, maybe, string, strings, text, texts,
};
use crate::model::attached::PolicyKey;
use crate::model::declaration::Origin;
use crate::model::expression::Expression;
use crate::model::log_format::TextFormat;
use crate::model::telemetry::{
    CustomTag, Logging, Metric, Metrics, Override, Sampling, Sections, TagChange, Telemetry,
    Tracing,
};
use crate::wire::proto::waypoint as proto;
use proto::custom_tag::{Is, Named};
use proto::metric_override::Tag;
use proto::metric_override::tag::Becomes;

pub(super) mod setup;

pub(super) fn encode(telemetry: &Telemetry) -> proto::Telemetry {
    let says = &telemetry.says;
    proto::Telemetry {
        format: FORMAT,
        tracing: says.tracing.iter().map(encode_tracing).collect(),
        metrics: says.metrics.iter().map(encode_metrics).collect(),
        access_logging: says.logging.iter().map(encode_logging).collect(),
    }
}

pub(super) fn decode(
    key: PolicyKey,
    origin: Origin,
    given: proto::Telemetry,
) -> Result<Telemetry, Fault> {
    format(given.format)?;
    Ok(Telemetry {
        key,
        origin,
        says: Sections {
            tracing: each("tracing", given.tracing, tracing)?,
            metrics: each("metrics", given.metrics, metrics)?,
            logging: each("access_logging", given.access_logging, logging)?,
        },
    })
}

fn encode_tracing(tracing: &Tracing) -> proto::Tracing {
    let tags = tracing.custom_tags.as_ref();
    let tags = tags.map(|tags| proto::tracing::Tags {
        tags: tags
            .iter()
            .map(|(name, tag)| (name.to_string(), encode_tag(tag)))
            .collect(),
    });
    proto::Tracing {
        providers: strings(&tracing.providers),
        sampling: tracing.sampling.map(|share| share.0.into()),
        disable_span_reporting: tracing.disable_span_reporting,
        custom_tags: tags,
        enable_istio_tags: tracing.enable_istio_tags,
        disable_context_propagation: tracing.disable_context_propagation,
    }
}

fn tracing(given: proto::Tracing) -> Result<Tracing, Fault> {
    let tags = maybe("custom_tags", given.custom_tags, |given| {
        let tag = |(name, value)| Ok((Arc::from(name), tag(value)?));
        let tags: Result<BTreeMap<_, _>, Fault> = given.tags.into_iter().map(tag).collect();
        tags
    });
    Ok(Tracing {
        providers: texts(given.providers),
        sampling: given.sampling.map(sampling).transpose()?,
        disable_span_reporting: given.disable_span_reporting,
        custom_tags: tags?,
        enable_istio_tags: given.enable_istio_tags,
        disable_context_propagation: given.disable_context_propagation,
    })
}

fn sampling(hundredths: u32) -> Result<Sampling, Fault> {
    let share = u16::try_from(hundredths)
        .ok()
        .filter(|share| *share <= 10_000);
    let share = share.ok_or_else(|| Fault::new("sampling", Reason::NoNumber));
    share.map(Sampling)
}

fn encode_tag(tag: &CustomTag) -> proto::CustomTag {
    let named = |name: &Arc<str>, default: &Option<Arc<str>>| Named {
        name: name.to_string(),
        default: string(default.as_ref()),
    };
    proto::CustomTag {
        is: Some(match tag {
            CustomTag::Literal(text) => Is::Literal(text.to_string()),
            CustomTag::Environment { name, default } => Is::Environment(named(name, default)),
            CustomTag::Header { name, default } => Is::Header(named(name, default)),
            CustomTag::Formatter(format) => Is::Formatter(format.source().to_owned()),
        }),
    }
}

fn tag(tag: proto::CustomTag) -> Result<CustomTag, Fault> {
    Ok(match given("is", tag.is)? {
        Is::Literal(text) => CustomTag::Literal(Arc::from(text)),
        Is::Environment(Named { name, default }) => CustomTag::Environment {
            name: Arc::from(name),
            default: text(default),
        },
        Is::Header(Named { name, default }) => CustomTag::Header {
            name: Arc::from(name),
            default: text(default),
        },
        Is::Formatter(source) => CustomTag::Formatter(text_format("formatter", &source)?),
    })
}

fn encode_metrics(metrics: &Metrics) -> proto::Metrics {
    proto::Metrics {
        providers: strings(&metrics.providers),
        overrides: metrics.overrides.iter().map(encode_override).collect(),
        reporting_interval: metrics.reporting_interval.map(lasting),
    }
}

fn metrics(given: proto::Metrics) -> Result<Metrics, Fault> {
    Ok(Metrics {
        providers: texts(given.providers),
        overrides: each("overrides", given.overrides, change)?,
        reporting_interval: duration("reporting_interval", given.reporting_interval)?,
    })
}

fn encode_override(change: &Override) -> proto::MetricOverride {
    let tag = |(label, change): (&Arc<str>, &TagChange)| {
        let becomes = match change {
            TagChange::Upsert(expression) => Becomes::Upsert(expression.source().to_owned()),
            TagChange::Remove => Becomes::Remove(PRESENT),
        };
        let becomes = Some(becomes);
        (label.to_string(), Tag { becomes })
    };
    proto::MetricOverride {
        metric: change.metric.map_or("", Metric::as_str).to_owned(),
        disabled: change.disabled,
        tags: change.tags.iter().map(tag).collect(),
    }
}

fn change(change: proto::MetricOverride) -> Result<Override, Fault> {
    let name = change.metric;
    let metric = match name.as_str() {
        "" => None,
        known => {
            let metric = Metric::named(known);
            Some(metric.ok_or_else(|| Fault::new("metric", Reason::Unsupported(name)))?)
        }
    };
    let tag = |(label, tag): (String, Tag)| {
        let change = match given("becomes", tag.becomes)? {
            Becomes::Upsert(source) => TagChange::Upsert(expression("upsert", &source)?),
            Becomes::Remove(_) => TagChange::Remove,
        };
        Ok((Arc::from(label), change))
    };
    let tags: Result<BTreeMap<_, _>, Fault> = change.tags.into_iter().map(tag).collect();
    Ok(Override {
        metric,
        disabled: change.disabled,
        tags: tags.map_err(|fault| fault.within("tags"))?,
    })
}

fn encode_logging(logging: &Logging) -> proto::AccessLogging {
    proto::AccessLogging {
        providers: strings(&logging.providers),
        disabled: logging.disabled,
        filter: logging.filter.as_ref().map(|f| f.source().to_owned()),
    }
}

fn logging(given: proto::AccessLogging) -> Result<Logging, Fault> {
    let filter = given.filter.map(|source| expression("filter", &source));
    Ok(Logging {
        providers: texts(given.providers),
        disabled: given.disabled,
        filter: filter.transpose()?,
    })
}

fn expression(field: &str, source: &str) -> Result<Expression, Fault> {
    let read = Expression::parse(source);
    read.map_err(|fault| Fault::new(field, Reason::Value(format!("{source}: {fault}"))))
}

fn text_format(field: &str, source: &str) -> Result<TextFormat, Fault> {
    let read = TextFormat::parse(source);
    read.map_err(|fault| Fault::new(field, Reason::Value(fault.to_string())))
}
