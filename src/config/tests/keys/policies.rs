//! Rows about policies and whom they are for.

use super::super::Code;
use super::{Rows, WORKLOAD};

pub(super) fn add(rows: &mut Rows) {
    policies(rows);
    attachments(rows);
    targets(rows);
    authentications(rows);
}

/// The lines of a policy that a fragment is added to; it begins at line 3.
pub(super) const POLICY: &str = "[[authorization-policy]]\nname = \"p\"\n";
const AUTHENTICATION: &str = "[[peer-authentication]]\nname = \"p\"\n";

/// What is wrong with a fragment: the column in it, below 1 for what is around it; the code, a text.
pub(super) type Fault = (i32, Code, &'static str);

impl Rows {
    /// One more line, the third, in a policy.
    fn policy(&mut self, name: &'static str, line: &str, want: Fault) {
        self.add(
            name,
            format!("{POLICY}{line}\n"),
            &[(3, u32::try_from(want.0).unwrap(), want.1, want.2)],
        );
    }

    /// A fragment inside the third line of a policy; the columns count from where it begins.
    pub(super) fn inside(
        &mut self,
        name: &'static str,
        around: (&str, &str),
        fragment: &str,
        want: &[Fault],
    ) {
        let (before, after) = around;
        let offset = i32::try_from(before.len()).unwrap();
        let column = |at: i32| u32::try_from(at + offset).unwrap();
        let want: Vec<_> = want.iter().map(|w| (3, column(w.0), w.1, w.2)).collect();
        self.add(name, format!("{POLICY}{before}{fragment}{after}\n"), &want);
    }

    /// The third line of a peer-authentication.
    fn authentication(&mut self, name: &'static str, line: &str, want: Fault) {
        let text = format!("{AUTHENTICATION}{line}\n");
        self.add(
            name,
            text,
            &[(3, u32::try_from(want.0).unwrap(), want.1, want.2)],
        );
    }
}

fn policies(rows: &mut Rows) {
    use Code::*;
    rows.policy(
        "camel case",
        "targetRefs = []\nrules = []",
        (1, UnknownKey, "did you mean `target-refs`?"),
    );
    rows.policy(
        "lower case",
        "action = \"deny\"\nrules = [{}]",
        (10, BadValue, "write `\\\"DENY\\\"`"),
    );
    rows.policy(
        "an unknown action",
        "action = \"LOG\"\nrules = [{}]",
        (10, BadValue, "write one of `ALLOW`"),
    );
    rows.policy(
        "nothing to deny",
        "action = \"DENY\"",
        (10, MissingKey, "is `DENY` without rules"),
    );
    rows.policy(
        "nothing to deny, in so many words",
        "rules = []\naction = \"DENY\"",
        (9, MissingKey, "`rules = [{}]` matches everything"),
    );
    rows.policy(
        "misspelt rules, said once",
        "rule = [{}]\naction = \"DENY\"",
        (1, UnknownKey, "did you mean `rules`?"),
    );
    rows.policy(
        "nothing to ask about",
        "action = \"CUSTOM\"\nprovider = { name = \"opa\" }",
        (10, MissingKey, "is `CUSTOM` without rules"),
    );
    rows.policy(
        "nobody to ask",
        "action = \"CUSTOM\"\nrules = [{}]",
        (10, MissingKey, "`provider = { name = \\\"opa\\\" }`"),
    );
    rows.policy(
        "a provider without a name",
        "provider = {}\naction = \"CUSTOM\"\nrules = [{}]",
        (12, MissingKey, "has no `name`"),
    );
    rows.policy(
        "a provider of nothing",
        "provider = { name = \"opa\" }\nrules = [{}]",
        (12, ConflictingKeys, "only `CUSTOM` asks one"),
    );
    rows.policy(
        "too many rules",
        &format!("rules = [{}]", "{},".repeat(513)),
        (9, TooLarge, "has 513 rules, at most 512"),
    );
    rows.policy("one rule", "rules = {}", (9, WrongType, "expected a list"));
    rows.policy(
        "no source",
        "rules = [{ from = [] }]",
        (19, BadValue, "is empty"),
    );
    rows.policy(
        "no operation",
        "rules = [{ to = [] }]",
        (17, BadValue, "is empty"),
    );
    rows.add(
        "a source without its key",
        format!("{POLICY}rules = [{{ from = [{{ principals = [\"*\"] }}] }}]\n"),
        &[
            (3, 20, MissingKey, "as in `source = { principals"),
            (3, 22, UnknownKey, "the keys here are `source`"),
        ],
    );
    rows.policy(
        "a rule's key",
        "rules = [{ form = [] }]",
        (12, UnknownKey, "did you mean `from`?"),
    );
    rows.policy(
        "dry run in quotes",
        "dry-run = \"true\"\nrules = []",
        (11, WrongType, "write it unquoted"),
    );
    rows.policy(
        "dry run in other words",
        "annotations = { \"istio.io/dry-run\" = \"yes\" }\nrules = []",
        (38, BadValue, "write `\\\"true\\\"`"),
    );
    rows.policy(
        "an annotation without quotes",
        "annotations = { \"istio.io/dry-run\" = true }\nrules = []",
        (38, WrongType, "write it in quotes"),
    );
    rows.policy(
        "another annotation",
        "annotations = { \"istio.io/dryrun\" = \"true\" }\nrules = []",
        (17, UnknownKey, "write `istio.io/dry-run` instead"),
    );
    rows.add(
        "dry run twice",
        format!("{POLICY}rules = []\ndry-run = false\nannotations = {{ \"istio.io/dry-run\" = \"T\" }}\n"),
        &[(5, 38, ConflictingKeys, "the key says this")],
    );
    rows.file(
        "no name",
        "[[authorization-policy]]\nrules = []\n",
        &[(1, 1, MissingKey, "`name = \\\"authorization-policy-1\\\"`")],
    );
    rows.mesh(
        "an alias",
        "trust-domain-aliases = [\"old\", \"a/b\"]",
        (32, BadValue, "is not a trust domain"),
    );
}

fn attachments(rows: &mut Rows) {
    use Code::*;
    rows.policy(
        "an empty selector",
        "selector = {}\nrules = []",
        (12, BadValue, "selects nothing in particular"),
    );
    rows.policy(
        "no labels",
        "selector = { match-labels = {} }\nrules = []",
        (12, BadValue, "leave it out for every workload"),
    );
    rows.policy(
        "labels without their key",
        "selector = { app = \"cart\" }\nrules = []",
        (14, UnknownKey, "the keys here are `match-labels`"),
    );
    rows.policy(
        "a star in a label",
        "selector = { match-labels = { app = \"c*\" } }\nrules = []",
        (37, BadValue, "cannot be the value of a label"),
    );
    rows.policy(
        "a selector and targets",
        "selector = { match-labels = { app = \"a\" } }\ntarget-refs = [{ kind = \"Service\", name = \"s\" }]\nrules = []",
        (12, ConflictingKeys, "both take two policies"),
    );
}

fn targets(rows: &mut Rows) {
    use Code::*;
    let mut row = |name, target: &str, want: Fault| {
        let around = ("target-refs = [{ ", " }]\nrules = []");
        rows.inside(name, around, target, &[want]);
    };
    row(
        "an unknown kind",
        "kind = \"Pod\", name = \"s\"",
        (8, BadValue, "write one of `Service`"),
    );
    row(
        "a kind in lower case",
        "kind = \"service\", name = \"s\"",
        (8, BadValue, "write `\\\"Service\\\"`"),
    );
    row("no kind", "name = \"s\"", (-1, MissingKey, "has no `kind`"));
    row(
        "no name",
        "kind = \"Gateway\"",
        (-1, MissingKey, "has no `name`"),
    );
    row(
        "a name that is none",
        "kind = \"Service\", name = \"*\"",
        (26, BadName, "a character that names do not have"),
    );
    row(
        "another group",
        "kind = \"Service\", name = \"s\", group = \"apps\"",
        (39, BadValue, "is not the group of Service"),
    );
    row(
        "no group",
        "kind = \"Gateway\", name = \"s\", group = \"\"",
        (39, BadValue, "write `\\\"gateway.networking.k8s.io\\\"`"),
    );
    row(
        "another namespace",
        "kind = \"Gateway\", name = \"s\", namespace = \"x\"",
        (43, BadValue, "in the policy's own namespace"),
    );
    rows.policy(
        "too many targets",
        &format!(
            "target-refs = [{}]\nrules = []",
            "{ kind = \"Gateway\", name = \"s\" },".repeat(17)
        ),
        (15, TooLarge, "names 17 targets, at most 16"),
    );
    let gateway = "{ kind = \"Gateway\", name = \"s\" }";
    rows.add(
        "the older key beside the new one",
        format!("{POLICY}target-refs = [{gateway}]\ntarget-ref = {gateway}\nrules = []\n"),
        &[
            (3, 16, TargetNotFound, "no such target"),
            (4, 14, NoEffect, "keep `target-refs` alone"),
        ],
    );
}

fn authentications(rows: &mut Rows) {
    use Code::*;
    rows.authentication(
        "an unknown mode",
        "mtls = { mode = \"MUTUAL\" }",
        (17, BadValue, "write one of `UNSET`"),
    );
    rows.authentication(
        "a misspelt mode",
        "mtls = { mode = \"PERMISIVE\" }",
        (17, BadValue, "write `\\\"PERMISSIVE\\\"`"),
    );
    rows.authentication(
        "a mode in lower case",
        "mtls = { mode = \"strict\" }",
        (17, BadValue, "write `\\\"STRICT\\\"`"),
    );
    rows.authentication(
        "a mode without its key",
        "mtls = \"STRICT\"",
        (8, WrongType, "expected a table"),
    );
    rows.authentication(
        "no such field",
        "target-refs = []",
        (1, UnknownKey, "the keys here are"),
    );
    rows.authentication(
        "ports of nobody",
        "port-level-mtls = { 8080 = { mode = \"STRICT\" } }",
        (19, ConflictingKeys, "ports of whom?"),
    );
    rows.authentication(
        "ports of everybody",
        "port-level-mtls = { 8080 = { mode = \"STRICT\" } }\nselector = { match-labels = {} }",
        (19, ConflictingKeys, "is given without a selector"),
    );
    let mut row = |name, entry: &str, want: Fault| {
        let selector = "selector = { match-labels = { app = \"a\" } }";
        let labelled = WORKLOAD.to_owned() + "labels = { app = \"a\" }\n";
        let text = format!(
            "{AUTHENTICATION}{selector}\n[peer-authentication.port-level-mtls]\n{entry}\n{labelled}"
        );
        rows.add(
            name,
            text,
            &[(5, u32::try_from(want.0).unwrap(), want.1, want.2)],
        );
    };
    row(
        "port zero",
        "0 = { mode = \"STRICT\" }",
        (1, BadValue, "from 1 to 65535"),
    );
    row(
        "a named port",
        "http = { mode = \"STRICT\" }",
        (1, BadValue, "not a port"),
    );
    row(
        "a port's mode without its key",
        "8080 = \"STRICT\"",
        (8, WrongType, "expected a table"),
    );
    row(
        "a port without a mode",
        "8080 = {}",
        (8, MissingKey, "`mode`"),
    );
    row(
        "a port's unknown mode",
        "8080 = { mode = \"ON\" }",
        (17, BadValue, "expected one of"),
    );
}
