//! Rows about `[[telemetry]]` and what `[mesh]` says of it.

use super::super::Code;
use super::{Rows, WORKLOAD};

pub(super) fn add(rows: &mut Rows) {
    tracing(rows);
    metrics(rows);
    logging(rows);
    settings(rows);
}

impl Rows {
    /// The third line of a telemetry.
    fn telemetry(&mut self, name: &'static str, line: &str, want: (u32, Code, &'static str)) {
        let text = format!("[[telemetry]]\nname = \"t\"\n{line}\n{WORKLOAD}");
        self.add(name, text, &[(3, want.0, want.1, want.2)]);
    }

    /// The second line of `[mesh]`.
    fn setting(&mut self, name: &'static str, line: &str, want: (u32, Code, &'static str)) {
        let text = format!("[mesh]\n{line}\n{WORKLOAD}");
        self.add(name, text, &[(2, want.0, want.1, want.2)]);
    }
}

fn tracing(rows: &mut Rows) {
    use Code::*;
    rows.telemetry(
        "camel case",
        "accessLogging = []",
        (1, UnknownKey, "did you mean `access-logging`?"),
    );
    rows.telemetry(
        "more than all",
        "tracing = [{ random-sampling-percentage = 101 }]",
        (43, BadValue, "is not a number from 0 to 100"),
    );
    rows.telemetry(
        "a tag without a value",
        "tracing = [{ custom-tags = { a = {} } }]",
        (34, MissingKey, "add it, as in `literal"),
    );
    rows.telemetry(
        "a tag of two kinds",
        "tracing = [{ custom-tags = { a = { literal = { value = \"x\" }, header = { name = \"y\" } } } }]",
        (72, ConflictingKeys, "is of two kinds"),
    );
    rows.telemetry(
        "a tag by no header",
        "tracing = [{ custom-tags = { a = { header = { name = \"a b\" } } } }]",
        (45, BadName, "whose name cannot be one"),
    );
    rows.telemetry(
        "a tag of no format",
        "tracing = [{ custom-tags = { a = { formatter = { value = \"%BYTES%\" } } } }]",
        (58, BadValue, "`%BYTES%` is no operator"),
    );
    rows.telemetry(
        "for clients",
        "tracing = [{ match = { mode = \"CLIENT\" } }]",
        (31, NoEffect, "a waypoint is a server"),
    );
    rows.telemetry(
        "no such mode",
        "tracing = [{ match = { mode = \"client\" } }]",
        (31, BadValue, "write `\\\"CLIENT\\\"`"),
    );
}

fn metrics(rows: &mut Rows) {
    use Code::*;
    let mut change = |name, says: &str, want: (u32, Code, &'static str)| {
        let line = format!("metrics = [{{ overrides = [{{ {says} }}] }}]");
        rows.telemetry(name, &line, (want.0 + 28, want.1, want.2));
    };
    change(
        "no such metric",
        "match = { metric = \"REQUEST_CONT\" }",
        (20, BadValue, "write `\\\"REQUEST_COUNT\\\"`"),
    );
    change(
        "nobody's metric",
        "match = { custom-metric = \"my_metric\" }",
        (27, NoEffect, "nobody counts `my_metric`"),
    );
    change(
        "two metrics",
        "match = { metric = \"ALL_METRICS\", custom-metric = \"istio_requests_total\" }",
        (51, ConflictingKeys, "is of two metrics"),
    );
    change(
        "a label that is none",
        "tag-overrides = { \"a-b\" = { operation = \"REMOVE\" } }",
        (19, BadName, "`a-b` cannot be a label"),
    );
    change(
        "a bucket's label",
        "tag-overrides = { le = { operation = \"REMOVE\" } }",
        (19, BadName, "`le` cannot be a label"),
    );
    change(
        "a label of no value",
        "tag-overrides = { a = { } }",
        (23, MissingKey, "has no `value`"),
    );
    change(
        "a value of nothing",
        "tag-overrides = { a = { value = \"request.hots\" } }",
        (33, BadValue, "did you mean `request.host`?"),
    );
    change(
        "a value of what goes",
        "tag-overrides = { a = { operation = \"REMOVE\", value = \"1\" } }",
        (55, NoEffect, "what goes has no value"),
    );
}

fn logging(rows: &mut Rows) {
    use Code::*;
    rows.telemetry(
        "a filter that is none",
        "access-logging = [{ filter = { expression = \"response.code >=\" } }]",
        (45, BadValue, "at character 17: expected a value"),
    );
    rows.telemetry(
        "a filter of nothing",
        "access-logging = [{ filter = { } }]",
        (30, MissingKey, "has no `expression`"),
    );
    rows.telemetry(
        "a filter of what is not written",
        "access-logging = [{ disabled = true, filter = { expression = \"true\" } }]",
        (47, NoEffect, "what is not written is not filtered"),
    );
}

fn settings(rows: &mut Rows) {
    use Code::*;
    rows.setting(
        "a file of no directory",
        "access-log-file = \"access.log\"",
        (19, BadValue, "is not an absolute path"),
    );
    rows.setting(
        "no such encoding",
        "access-log-encoding = \"json\"",
        (23, BadValue, "write `\\\"JSON\\\"`"),
    );
    rows.setting(
        "a format of no file",
        "access-log-format = \"%PROTOCOL%\"",
        (21, NoEffect, "a format of no file"),
    );
    rows.setting(
        "an unknown operator",
        "access-log-format = \"%REQUEST%\"\naccess-log-file = \"/a\"",
        (21, BadValue, "`%REQUEST%` is no operator"),
    );
    rows.setting(
        "an operator that does not end",
        "access-log-format = \"100%\"\naccess-log-file = \"/a\"",
        (21, BadValue, "at character 4: `%` begins an operator"),
    );
    rows.setting(
        "JSON that is none",
        "access-log-format = \"%PROTOCOL%\"\naccess-log-encoding = \"JSON\"\naccess-log-file = \"/a\"",
        (21, BadValue, "is no JSON object of texts"),
    );
    rows.setting(
        "a format of a provider",
        "extension-providers = [{ name = \"p\", envoy-file-access-log = { log-format = { labels = { a = \"%CEL(1 +)%\" } } } }]",
        (94, BadValue, "expected a value, found the end"),
    );
}
