//! Rows about what the rules of policies name, and what node proxies make of them.

use super::super::{Code, Row};
use super::policies::{closed, ruled};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = mentioned();
    rows.extend(at_node_proxies());
    rows
}

fn mentioned() -> Vec<Row> {
    use Code::*;
    let shop = "[[namespace]]\nname = \"shop\"\nservice-accounts = [\"cart\", \"web\"]\n";
    let rule = |source: &str| {
        ruled(
            "ALLOW",
            &format!("{{ from = [{{ source = {{ {source} }} }}] }}"),
        )
    };
    let with_shop = |source: &str| vec![("a.toml", shop.to_owned()), ("b.toml", rule(source))];
    let aliases = "[mesh]\ntrust-domain = \"td1\"\ntrust-domain-aliases = [\"td2\"]\n";
    vec![
        (
            "all that is declared, and patterns",
            with_shop("namespaces = [\"shop\", \"default\", \"x*\"], trust-domains = [\"cluster.local\", \"*x\"]"),
            vec![],
        ),
        (
            "identities that another mesh may have",
            with_shop("principals = [\"cluster.local/ns/x/sa/y\", \"cluster.local/ns/x*\", \"*/sa/y\", \"*\"]"),
            vec![],
        ),
        (
            "a misspelt namespace",
            with_shop("not-namespaces = [\"shpo\"]"),
            vec![("b.toml", 4, 51, NeverMatches, "did you mean `shop`?")],
        ),
        (
            "accounts, one of an unknown namespace, one unknown",
            with_shop("service-accounts = [\"own\", \"shop/web\", \"shpo/web\", \"shop/wbe\"]"),
            vec![
                ("b.toml", 4, 72, NeverMatches, "did you mean `shop`?"),
                ("b.toml", 4, 84, NeverMatches, "did you mean `web`?"),
            ],
        ),
        (
            "trust domains",
            vec![
                ("a.toml", aliases.to_owned()),
                ("b.toml", rule("principals = [\"td2/ns/a/sa/b\", \"cluster.local/ns/a/sa/b\", \"td9/ns/a/sa/b\", \"cluster.local/ns/a/*\"]")),
                ("c.toml", "[[authorization-policy]]\nname = \"q\"\nrules = [{ when = [{ key = \"source.trustDomain\", values = [\"td3\"] }] }]\n".to_owned()),
            ],
            vec![
                ("b.toml", 4, 91, NeverMatches, "nobody of trust domain `td9`"),
                ("b.toml", 4, 108, NeverMatches, "nobody of trust domain `cluster.local`"),
                ("c.toml", 3, 60, NeverMatches, "`trust-domain-aliases` in `[mesh]`"),
            ],
        ),
    ]
}

/// `spec/labels-and-policy.md` §3.5, row by row.
fn at_node_proxies() -> Vec<Row> {
    use Code::*;
    let both = "{ from = [{ source = { principals = [\"*\"], request-principals = [\"*\"] } }] }";
    let ports = "{ to = [{ operation = { ports = [\"80\"], methods = [\"GET\"] } }] }";
    let apart = "{ from = [{ source = { principals = [\"*\"] } }], to = [{ operation = { methods = [\"GET\"] } }] }";
    let header = "{ from = [{ source = { principals = [\"*\"] } }], when = [{ key = \"request.headers[a]\", values = [\"b\"] }] }";
    let either =
        "{ to = [{ operation = { methods = [\"GET\"] } }, { operation = { ports = [\"80\"] } }] }";
    let token = "{ from = [{ source = { request-principals = [\"*\"] } }] }";
    let sni = "{ when = [{ key = \"source.namespace\", values = [\"default\"] }, { key = \"connection.sni\", values = [\"a\"] }] }";
    let layer4 = "{ from = [{ source = { ip-blocks = [\"10.1.0.0/16\"] } }], to = [{ operation = { ports = [80] } }] }";
    let mut rows: Vec<Row> = vec![
        (
            "everything, and what node proxies know",
            vec![
                ("a.toml", ruled("ALLOW", &format!("{{}}, {layer4}"))),
                (
                    "b.toml",
                    ruled("DENY", &format!("{{}}, {layer4}")).replace("\"p\"", "\"q\""),
                ),
            ],
            vec![],
        ),
        (
            "nothing allowed, and nothing said",
            vec![(
                "a.toml",
                "[[authorization-policy]]\nname = \"p\"\n".to_owned(),
            )],
            vec![("a.toml", 2, 8, AllowsNothing, "write `rules = []`")],
        ),
        (
            "nothing allowed, only tried",
            vec![(
                "a.toml",
                "[[authorization-policy]]\nname = \"p\"\ndry-run = true\n".to_owned(),
            )],
            vec![],
        ),
        (
            "a rule left out, only tried",
            vec![("a.toml", ruled("ALLOW", ports) + "dry-run = true\n")],
            vec![("a.toml", 4, 10, AllowsLess, "needs `methods`")],
        ),
        (
            "nothing allowed, on purpose",
            vec![("a.toml", closed(""))],
            vec![],
        ),
        (
            "one rule of two",
            vec![("a.toml", ruled("ALLOW", &format!("{layer4}, {ports}")))],
            vec![(
                "a.toml",
                4,
                10 + u32::try_from(layer4.len()).unwrap() + 2,
                AllowsLess,
                "needs `methods`",
            )],
        ),
    ];
    for (name, rule, code, text) in [
        (
            "a source of both",
            both,
            DeniesMore,
            "without `request-principals`",
        ),
        (
            "an operation of both",
            ports,
            DeniesMore,
            "without `methods`",
        ),
        (
            "operations beside sources",
            apart,
            DeniesNothing,
            "never match this rule, which needs `methods`",
        ),
        (
            "a header",
            header,
            DeniesNothing,
            "needs `request.headers[a]`",
        ),
        (
            "two operations",
            either,
            DeniesNothing,
            "the part of this rule that has nothing but `methods`",
        ),
        (
            "a token",
            token,
            DeniesNothing,
            "needs `request-principals`",
        ),
        (
            "a server name",
            sni,
            DeniesNothing,
            "needs `connection.sni`",
        ),
    ] {
        let allowed = vec![("a.toml", ruled("ALLOW", rule))];
        rows.push((
            name,
            allowed,
            vec![("a.toml", 2, 8, AllowsNothing, "leave out all its rules")],
        ));
        let denied = vec![("a.toml", ruled("DENY", rule))];
        rows.push((name, denied, vec![("a.toml", 4, 10, code, text)]));
    }
    rows
}
