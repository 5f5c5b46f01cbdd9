//! Rows about what rules match.

use super::keys::in_rule;
use super::{CART, Code, Row, TO, route, row};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = matches();
    rows.extend(grpc());
    rows
}

fn matches() -> Vec<Row> {
    use Code::*;
    let mut rows = Vec::new();
    let mut one = |name, fragment: &str, at: u32, code, text| {
        let fragment = format!("matches = [{{ {fragment} }}]");
        rows.push(in_rule(name, &fragment, 13 + at, code, text));
    };
    one(
        "a key of another place",
        "paths = []",
        0,
        UnknownKey,
        "did you mean `path`?",
    );
    one(
        "a path by itself",
        "path = \"/a\"",
        7,
        WrongType,
        "expected a table",
    );
    one(
        "an unknown comparison",
        "path = { type = \"pathPrefix\" }",
        16,
        BadValue,
        "write `\\\"PathPrefix\\\"`",
    );
    one(
        "no slash",
        "path = { value = \"a\" }",
        17,
        BadValue,
        "does not begin with `/`",
    );
    one(
        "a path that is not normalised",
        "path = { type = \"Exact\", value = \"/a//b\" }",
        33,
        BadValue,
        "has an empty segment",
    );
    one(
        "a query in a path",
        "path = { value = \"/a?b=c\" }",
        17,
        BadValue,
        "which `query-params` match",
    );
    one(
        "no pattern",
        "path = { type = \"RegularExpression\", value = \"/(a\" }",
        45,
        BadValue,
        "is no regular expression: unclosed group",
    );
    one(
        "a pattern that outgrows itself",
        "path = { type = \"RegularExpression\", value = \"(\\\\w{500}){500}\" }",
        45,
        BadValue,
        "size limit",
    );
    one(
        "a method in lower case",
        "method = \"get\"",
        9,
        BadValue,
        "write `\\\"GET\\\"`",
    );
    one(
        "a method of two words",
        "method = \"GET IT\"",
        9,
        BadValue,
        "is not a method",
    );
    one(
        "a header's name",
        "headers = [{ name = \"x y\", value = \"1\" }]",
        20,
        BadName,
        "is not the name of a header",
    );
    one(
        "a pseudo-header",
        "headers = [{ name = \":path\", value = \"/\" }]",
        20,
        BadName,
        "match the `path` instead",
    );
    one(
        "no value",
        "headers = [{ name = \"x\" }]",
        11,
        MissingKey,
        "has no `value`",
    );
    one(
        "a line break in a value",
        "headers = [{ name = \"x\", value = \"a\\nb\" }]",
        33,
        BadValue,
        "has a control character",
    );
    one(
        "no pattern of a header",
        "headers = [{ type = \"RegularExpression\", name = \"x\", value = \"*\" }]",
        61,
        BadValue,
        "is no regular expression: repetition operator missing expression",
    );
    one(
        "a header twice",
        "headers = [{ name = \"X\", value = \"1\" }, { name = \"x\", value = \"2\" }]",
        40,
        NoEffect,
        "has `x` twice, and the first counts",
    );
    one(
        "a parameter twice",
        "query-params = [{ name = \"x\", value = \"1\" }, { name = \"X\", value = \"2\" }, { name = \"x\", value = \"2\" }]",
        74,
        NoEffect,
        "has `x` twice",
    );
    one(
        "an unknown comparison of a parameter",
        "query-params = [{ type = \"Regex\", name = \"x\", value = \"1\" }]",
        25,
        BadValue,
        "write `\\\"RegularExpression\\\"`",
    );
    rows
}

fn grpc() -> Vec<Row> {
    use Code::*;
    let one = |name, fragment: &str, at: u32, code, text| {
        let rules = format!("{{ matches = [{{ {fragment} }}], {TO} }}");
        row(
            name,
            route("grpc-route", "r", CART, &rules),
            vec![("b.toml", 5, 25 + at, code, text)],
        )
    };
    vec![
        one(
            "a path",
            "path = {}",
            0,
            UnknownKey,
            "the keys here are `method` and `headers`",
        ),
        one(
            "no method",
            "method = {}",
            9,
            MissingKey,
            "names neither service nor method",
        ),
        one(
            "a service with a slash",
            "method = { service = \"shop/Cart\" }",
            21,
            BadValue,
            "write it with its package",
        ),
        one(
            "a method with its service",
            "method = { method = \"Cart.Add\" }",
            20,
            BadValue,
            "its service in `service`",
        ),
        one(
            "no pattern",
            "method = { type = \"RegularExpression\", service = \"a)|(b\" }",
            49,
            BadValue,
            "is no regular expression: unopened group",
        ),
        row(
            "what calls do not have",
            route(
                "grpc-route",
                "r",
                CART,
                &format!("{{ timeouts = {{}}, {TO} }}"),
            ),
            vec![("b.toml", 5, 12, UnknownKey, "no such key")],
        ),
    ]
}
