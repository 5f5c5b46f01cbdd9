//! Rows about request authentications.

use super::super::Code;
use super::Rows;

/// Attached to all waypoints; the fifth line is `jwt-rules`.
const POLICY: &str = "[[request-authentication]]\nname = \"p\"\nnamespace = \"istio-system\"\ntarget-refs = [{ kind = \"GatewayClass\", name = \"istio-waypoint\" }]\n";
const BEFORE: &str = "jwt-rules = [{ ";

/// The column in the fragment, from 1, or 0 for the braces around it; the code, a text.
type Fault = (u32, Code, &'static str);

impl Rows {
    /// What stands in a rule.
    fn jwt_rule(&mut self, name: &'static str, fragment: &str, want: &[Fault]) {
        let begin = u32::try_from(BEFORE.len()).unwrap();
        let column = |at: u32| if at == 0 { begin - 1 } else { begin + at };
        let want: Vec<_> = want.iter().map(|w| (5, column(w.0), w.1, w.2)).collect();
        self.add(name, format!("{POLICY}{BEFORE}{fragment} }}]\n"), &want);
    }
}

pub(super) fn add(rows: &mut Rows) {
    whole(rows);
    keys(rows);
    places(rows);
    told(rows);
    mesh(rows);
}

fn whole(rows: &mut Rows) {
    use Code::*;
    rows.add(
        "no rules",
        POLICY.to_owned(),
        &[(1, 1, MissingKey, "has no `jwt-rules`")],
    );
    rows.add(
        "an empty list of rules",
        format!("{POLICY}jwt-rules = []\n"),
        &[(5, 13, NoEffect, "believes no tokens and refuses none")],
    );
    rows.add(
        "for all of a namespace",
        "[[request-authentication]]\nname = \"p\"\njwt-rules = [{ issuer = \"https://i\" }]\n"
            .to_owned(),
        &[(2, 8, NotInForce, "only waypoints look at tokens")],
    );
    rows.add(
        "by a selector",
        "[[request-authentication]]\nname = \"p\"\nselector = {}\njwt-rules = [{ issuer = \"https://i\" }]\n".to_owned(),
        &[(3, 12, NotInForce, "`target-refs = [{ kind = \\\"Gateway\\\"")],
    );
    rows.jwt_rule(
        "a rule about nobody",
        "audiences = [\"a\"]",
        &[(0, MissingKey, "has neither `issuer` nor `jwks-uri`")],
    );
    rows.jwt_rule(
        "camel case",
        "issuer = \"https://i\", jwksUri = \"https://i/keys\"",
        &[(23, UnknownKey, "did you mean `jwks-uri`?")],
    );
    rows.jwt_rule(
        "no audience at all",
        "issuer = \"https://i\", audiences = []",
        &[(35, BadValue, "leave the key out")],
    );
}

fn keys(rows: &mut Rows) {
    use Code::*;
    let issuer = "issuer = \"https://i\", ";
    for (name, rest, want) in [
        (
            "two places of keys",
            "jwks = '{\"keys\": [{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"x\": \"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIuaKvVLlA\"}]}', jwks-uri = \"https://i\"",
            (141, ConflictingKeys, "has both `jwks` and `jwks-uri`"),
        ),
        (
            "no key set",
            "jwks = \"keys\"",
            (30, BadValue, "is no JSON Web Key Set: it is no JSON object"),
        ),
        (
            "no keys",
            "jwks = '{\"keys\": []}'",
            (30, BadValue, "has no key that could sign a token"),
        ),
        (
            "a secret",
            "jwks = '{\"keys\": [{\"kty\": \"oct\", \"k\": \"AAAA\"}]}'",
            (30, BadValue, "public keys are RSA of 2048"),
        ),
        (
            "another scheme",
            "jwks-uri = \"ftp://i/keys\"",
            (34, BadValue, "is no URL of http, https or file"),
        ),
        (
            "no scheme",
            "jwks-uri = \"i/keys\"",
            (34, BadValue, "is no URL"),
        ),
        (
            "a password",
            "jwks-uri = \"https://u:p@i/keys\"",
            (34, BadValue, "this file is no place for secrets"),
        ),
        (
            "a file nearby",
            "jwks-uri = \"file://keys.json\"",
            (34, BadValue, "with three slashes"),
        ),
        (
            "no patience",
            "timeout = \"1ms\"",
            (33, BadValue, "is not between 100ms and 1m"),
        ),
        (
            "patience without a unit",
            "timeout = 5",
            (33, WrongType, "give its unit"),
        ),
        (
            "keys of the waypoint's own host",
            "jwks-uri = \"http://127.0.0.1/keys\"",
            (0, BadValue, "`jwks-local-ranges = [\\\"127.0.0.0/8\\\"]`"),
        ),
        (
            "keys of a metadata service",
            "jwks-uri = \"http://[::ffff:169.254.169.254]/keys\"",
            (0, BadValue, "which is another host to each of them"),
        ),
    ] {
        rows.jwt_rule(name, &format!("{issuer}{rest}"), &[want]);
    }
    rows.jwt_rule(
        "an issuer that is no URL",
        "issuer = \"issuer-1\"",
        &[(10, MissingKey, "add `jwks-uri = \\\"https://…\\\"`")],
    );
}

fn places(rows: &mut Rows) {
    use Code::*;
    let issuer = "issuer = \"https://i\", ";
    for (name, rest, want) in [
        (
            "a header without a name",
            "from-headers = [{ prefix = \"Bearer \" }]",
            (39, MissingKey, "has no `name`"),
        ),
        (
            "a header that is none",
            "from-headers = [{ name = \"x jwt\" }]",
            (48, BadName, "is not the name of a header"),
        ),
        (
            "a prefix that no field has",
            "from-headers = [{ name = \"x\", prefix = \"a\\n\" }]",
            (62, BadValue, "has a character that fields do not have"),
        ),
        (
            "a parameter without a name",
            "from-params = [\"\"]",
            (38, BadValue, "is empty"),
        ),
        (
            "a cookie with its value",
            "from-cookies = [\"a=b\"]",
            (39, BadValue, "write the cookie's name alone"),
        ),
        (
            "a single place",
            "from-params = \"token\"",
            (37, WrongType, "write a list"),
        ),
    ] {
        rows.jwt_rule(name, &format!("{issuer}{rest}"), &[want]);
    }
    let many = vec!["\"p\""; 17].join(", ");
    rows.jwt_rule(
        "places beyond counting",
        &format!("{issuer}from-params = [{many}]"),
        &[(37, TooLarge, "names 17 places, at most 16")],
    );
}

fn told(rows: &mut Rows) {
    use Code::*;
    let issuer = "issuer = \"https://i\", ";
    for (name, rest, want) in [
        (
            "the payload in the length",
            "output-payload-to-header = \"Content-Length\"",
            (50, BadValue, "which is about the message itself"),
        ),
        (
            "a claim without a header",
            "output-claim-to-headers = [{ claim = \"sub\" }]",
            (50, MissingKey, "has no `header`"),
        ),
        (
            "a claim that leads nowhere",
            "output-claim-to-headers = [{ header = \"x\", claim = \"a..b\" }]",
            (74, BadValue, "leads to no claim"),
        ),
        (
            "one header for two claims",
            "output-claim-to-headers = [{ header = \"x\", claim = \"a\" }, { header = \"X\", claim = \"b\" }]",
            (92, ConflictingKeys, "is to tell two things"),
        ),
        (
            "forwarding in quotes",
            "forward-original-token = \"true\"",
            (48, WrongType, "write it unquoted"),
        ),
    ] {
        rows.jwt_rule(name, &format!("{issuer}{rest}"), &[want]);
    }
}

fn mesh(rows: &mut Rows) {
    use Code::*;
    rows.mesh(
        "keys that are stale at once",
        "jwks-stale-limit = \"1m\"",
        (20, BadValue, "is not between 1h and 30d"),
    );
    rows.mesh(
        "an address where ranges belong",
        "jwks-local-ranges = [\"127.0.0.1\"]",
        (22, BadValue, "give its length"),
    );
}
