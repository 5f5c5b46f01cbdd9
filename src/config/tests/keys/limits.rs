//! Rows about rate limits.

use super::super::Code;
use super::Rows;

const LIMIT: &str =
    "[[rate-limit]]\nname = \"l\"\ntarget-refs = [{ kind = \"Gateway\", name = \"wp\" }]\n";
const REST: &str = "\n[[node]]\nname = \"n\"\naddresses = [\"192.0.2.1\"]\n\
                    [[gateway]]\nname = \"wp\"\nclass = \"waypoint\"\nnode = \"n\"\n";

impl Rows {
    /// The fourth line of a limit.
    fn limit(&mut self, name: &'static str, line: &str, want: (u32, Code, &'static str)) {
        let text = format!("{LIMIT}{line}\n{REST}");
        self.add(name, text, &[(4, want.0, want.1, want.2)]);
    }
}

pub(super) fn add(rows: &mut Rows) {
    use Code::*;
    rows.limit(
        "an unknown key",
        "rulse = []\nrules = [{ requests = 1, per = \"1s\" }]",
        (1, UnknownKey, "did you mean `rules`?"),
    );
    rows.limit("empty rules", "rules = []", (9, NoEffect, "add a rule"));
    rows.limit(
        "no rate",
        "rules = [{ per = \"1s\" }]",
        (10, MissingKey, "add it, as in `requests = 100`"),
    );
    rows.limit(
        "no time",
        "rules = [{ requests = 1 }]",
        (10, MissingKey, "per = "),
    );
    rows.limit(
        "none at all",
        "rules = [{ requests = 0, per = \"1s\" }]",
        (23, BadValue, "1"),
    );
    rows.limit(
        "too many",
        "rules = [{ requests = 1000001, per = \"1s\" }]",
        (23, BadValue, "1000000"),
    );
    rows.limit(
        "too short",
        "rules = [{ requests = 1, per = \"10ms\" }]",
        (32, BadValue, "from `\\\"1s\\\"` to `\\\"1d\\\"`"),
    );
    rows.limit(
        "too long",
        "rules = [{ requests = 1, per = \"25h\" }]",
        (32, BadValue, "is not between 1s and 1d"),
    );
    rows.limit(
        "no burst",
        "rules = [{ requests = 1, per = \"1s\", burst = 0 }]",
        (46, BadValue, "1"),
    );
    rows.limit(
        "an unknown word",
        "rules = [{ requests = 1, per = \"1s\", key = \"identiy\" }]",
        (44, BadValue, "write `\\\"identity\\\"`"),
    );
    rows.limit(
        "a header without name",
        "rules = [{ requests = 1, per = \"1s\", key = {} }]",
        (44, MissingKey, "header = "),
    );
    rows.limit(
        "no header",
        "rules = [{ requests = 1, per = \"1s\", key = { header = \"x user\" } }]",
        (55, BadName, "is not the name of a header"),
    );
    rows.limit(
        "for no request",
        "rules = [{ requests = 1, per = \"1s\", match = [] }]",
        (46, BadValue, "leave it out to count every request"),
    );
    rows.limit(
        "a method in lower case",
        "rules = [{ requests = 1, per = \"1s\", match = [{ method = \"get\" }] }]",
        (58, BadValue, "write `\\\"GET\\\"`"),
    );
    rows.limit(
        "a selector",
        "selector = {}\nrules = [{ requests = 1, per = \"1s\" }]",
        (12, BadValue, "whose nodes do not look at requests"),
    );
    rows.file(
        "no rules",
        &format!("{LIMIT}{REST}"),
        &[(1, 1, MissingKey, "rules = [{ requests = 100")],
    );
    let nobody = "[[rate-limit]]\nname = \"l\"\nrules = [{ requests = 1, per = \"1s\" }]\n";
    rows.file(
        "for nobody",
        nobody,
        &[(1, 1, MissingKey, "has no `target-refs`")],
    );
}
