//! Rows about timeouts, retries and sessions.

use super::keys::{found, in_rule};
use super::{Code, Row, row, ruled};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = times();
    rows.extend(sessions());
    rows
}

fn times() -> Vec<Row> {
    use Code::*;
    vec![
        in_rule(
            "no unit",
            "timeouts = { request = 5 }",
            23,
            WrongType,
            "give its unit: `\\\"5s\\\"`",
        ),
        in_rule(
            "no duration",
            "timeouts = { backend-request = \"1.5s\" }",
            31,
            BadValue,
            "is not a duration",
        ),
        in_rule(
            "an attempt longer than all",
            "timeouts = { request = \"1s\", backend-request = \"1001ms\" }",
            47,
            ConflictingKeys,
            "one attempt may take longer",
        ),
        in_rule(
            "an unknown limit",
            "timeouts = { idle = \"1s\" }",
            13,
            UnknownKey,
            "`request`",
        ),
        in_rule(
            "a status",
            "retry = { codes = [399] }",
            19,
            BadValue,
            "from 400 to 599",
        ),
        in_rule(
            "a negative number",
            "retry = { attempts = -1 }",
            21,
            BadValue,
            "from 0 to 1000",
        ),
        in_rule(
            "no wait",
            "retry = { backoff = \"soon\" }",
            20,
            BadValue,
            "is not a duration",
        ),
        in_rule(
            "another spelling",
            "retry = { retry-on = \"5xx\" }",
            10,
            UnknownKey,
            "`codes`",
        ),
    ]
}

fn sessions() -> Vec<Row> {
    use Code::*;
    let one = |name, fragment: &str, at: u32, code, text| {
        let fragment = format!("session-persistence = {{ {fragment} }}");
        in_rule(name, &fragment, 24 + at, code, text)
    };
    vec![
        row(
            "nothing to keep it in",
            ruled("session-persistence = {}"),
            vec![found(
                22,
                MissingKey,
                "names nothing to keep the session in",
            )],
        ),
        one(
            "an unknown type",
            "type = \"cookie\"",
            7,
            BadValue,
            "write `\\\"Cookie\\\"`",
        ),
        one(
            "a name that is none",
            "cookie = { name = \"a b\" }, session-name = \"c\"",
            18,
            BadName,
            "is not the name of a cookie",
        ),
        one(
            "for ever",
            "cookie = { name = \"a\", lifetime-type = \"Permanent\" }",
            39,
            MissingKey,
            "as in `absolute-timeout = \\\"24h\\\"`",
        ),
        one(
            "for ever, in Gateway API's words",
            "session-name = \"a\", cookie-config = { lifetime-type = \"Permanent\" }",
            54,
            MissingKey,
            "for how long?",
        ),
        one(
            "a header and a cookie",
            "type = \"Header\", header = { name = \"a\" }, cookie = { name = \"a\" }",
            51,
            ConflictingKeys,
            "`type` is `Header`",
        ),
        one(
            "a path that is none",
            "cookie = { name = \"a\", path = \"/a;b\" }",
            30,
            BadValue,
            "is not a path",
        ),
        one(
            "idle",
            "session-name = \"a\", idle-timeout = \"1h\"",
            35,
            Unsupported,
            "write `absolute-timeout`",
        ),
    ]
}
