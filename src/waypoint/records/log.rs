//! An access log: what is written to it, and where that goes (`spec/waypoint-l7.md` §6.3).

use std::cell::RefCell;
use std::sync::Arc;

use crate::model::expression::Expression;
use crate::model::log_format::{Layout, LogFormat};
use crate::model::telemetry::Facts;
use crate::telemetry::batch::Sink;
use crate::telemetry::files::LogFile;
use crate::telemetry::record::Record;
use crate::telemetry::trace::SpanContext;

thread_local! {
    /// The line being written.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// An access log.
pub(in crate::waypoint) struct Log {
    pub(super) layout: Layout,
    /// What is written to it; everything where absent.
    pub(super) filter: Option<Expression>,
    pub(super) keeper: Keeper,
}

/// Who keeps what is written.
pub(in crate::waypoint) enum Keeper {
    File(Arc<LogFile>),
    Collector(Arc<Sink<Record>>),
}

impl Log {
    /// Writes a record of what `facts` are known of, and belongs to `span`, if it wants one.
    pub(super) fn write(&self, facts: &Facts<'_>, span: Option<SpanContext>) {
        let filter = self.filter.as_ref();
        if !filter.is_none_or(|filter| filter.holds(facts)) {
            return;
        }
        match &self.keeper {
            Keeper::File(file) => LINE.with_borrow_mut(|line| {
                line.clear();
                self.layout.write(facts, line);
                file.write(line);
            }),
            Keeper::Collector(sink) => sink.tell(record(&self.layout, facts, span)),
        }
    }
}

/// The record of a collector: the line that a file would have, or the members of its object but for those
/// that would be `null`.
fn record(layout: &Layout, facts: &Facts<'_>, span: Option<SpanContext>) -> Record {
    let (text, members) = match &layout.format {
        LogFormat::Text(_) => {
            let mut line = String::new();
            layout.write(facts, &mut line);
            line.truncate(line.trim_end_matches('\n').len());
            (Some(line), Vec::new())
        }
        LogFormat::Json(members) => {
            let said = members.iter();
            let said = said.filter_map(|(key, text)| Some((Arc::clone(key), text.render(facts)?)));
            (None, said.collect())
        }
    };
    Record {
        time: facts.started,
        text,
        members,
        span,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use prometheus_client::metrics::counter::Counter;

    use super::*;
    use crate::model::log_format::TextFormat;
    use crate::telemetry::batch;
    use crate::telemetry::files::Files;
    use crate::telemetry::trace::{Decision, SpanId, TraceId};

    fn facts() -> Facts<'static> {
        let address = |text: &str| text.parse().unwrap();
        Facts {
            started: SystemTime::UNIX_EPOCH + Duration::from_secs(5),
            route: Some("a \"route\""),
            ..Facts::of_connection(address("10.1.0.1:4711"), address("10.96.0.20:80"))
        }
    }

    fn log(format: LogFormat, filter: &str, keeper: Keeper) -> Log {
        Log {
            layout: Layout {
                format,
                omit_empty: false,
            },
            filter: (!filter.is_empty()).then(|| Expression::parse(filter).unwrap()),
            keeper,
        }
    }

    fn text(text: &str) -> LogFormat {
        LogFormat::Text(TextFormat::parse(text).unwrap())
    }

    #[test]
    fn only_what_the_filter_takes_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path: Arc<str> = Arc::from(dir.path().join("log").to_str().unwrap());
        let files = Files::new(Arc::default());
        for (filter, line) in [
            ("", "all"),
            ("destination.port == 80", "port"),
            ("destination.port == 81", "other"),
            ("request.host == 'x'", "absent"),
            ("destination.port", "no truth"),
        ] {
            let keeper = Keeper::File(files.open(&path));
            log(text(line), filter, keeper).write(&facts(), None);
        }
        drop(files);
        assert_eq!(std::fs::read_to_string(&*path).unwrap(), "all\nport\n");
    }

    #[tokio::test]
    async fn a_collector_is_told_the_line_or_its_members() {
        let span = SpanContext {
            trace: TraceId::random(),
            span: SpanId::random(),
            parent: None,
            decision: Decision::Keep,
        };
        let members = [
            ("route", "%ROUTE_NAME%"),
            ("name", "%REQUESTED_SERVER_NAME%"),
            ("both", "%REQUESTED_SERVER_NAME% %DURATION%"),
        ];
        let members = members.map(|(key, text)| (Arc::from(key), TextFormat::parse(text).unwrap()));
        for (name, format, line, told) in [
            (
                "a text",
                text("\"%ROUTE_NAME%\" %REQUESTED_SERVER_NAME%"),
                Some("\"a \\\"route\\\"\" -"),
                vec![],
            ),
            (
                "a text with an end",
                text("%DURATION%\n"),
                Some("0"),
                vec![],
            ),
            (
                "members",
                LogFormat::Json(members.into()),
                None,
                vec![("route", "a \"route\""), ("both", "- 0")],
            ),
        ] {
            let (sink, mut batches) = batch::queue(Counter::default());
            let keeper = Keeper::Collector(Arc::new(sink));
            log(format, "", keeper).write(&facts(), Some(span));
            let told = told.into_iter();
            let want = Record {
                time: facts().started,
                text: line.map(ToOwned::to_owned),
                members: told.map(|(k, v)| (Arc::from(k), v.to_owned())).collect(),
                span: Some(span),
            };
            let batch = batches.next().await;
            assert_eq!(batch, Some(vec![want]), "{name}");
        }
    }
}
