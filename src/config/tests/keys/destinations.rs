//! Rows about destination rules and backend-tls-policies.

use super::super::Code;
use super::{Rows, SELECTED, SERVICE};

pub(super) fn add(rows: &mut Rows) {
    rules(rows);
    balancers(rows);
    localities(rows);
    limits(rows);
    tls(rows);
    backend_tls(rows);
    distributions(rows);
}

/// The lines of a rule that a line is added to; that is the fourth.
const RULE: &str = "[[destination-rule]]\nname = \"r\"\nhost = \"s\"\n";

type Fault = (u32, Code, &'static str);

impl Rows {
    /// One more line, the fourth, in a rule.
    fn rule(&mut self, name: &'static str, line: &str, want: Fault) {
        let text = format!("{RULE}{line}\n{SERVICE}{SELECTED}");
        self.add(name, text, &[(4, want.0, want.1, want.2)]);
    }

    /// What `traffic-policy` is; columns count from where that begins.
    fn traffic(&mut self, name: &'static str, policy: &str, want: Fault) {
        let line = format!("traffic-policy = {policy}");
        self.rule(name, &line, (want.0 + 17, want.1, want.2));
    }

    /// What a group of it is; columns count from where that begins.
    fn group(&mut self, name: &'static str, group: &str, text: &str, want: Fault) {
        let around = u32::try_from(group.len()).unwrap() + 5;
        let want = (want.0 + around, want.1, want.2);
        self.traffic(name, &format!("{{ {group} = {text} }}"), want);
    }
}

fn rules(rows: &mut Rows) {
    use Code::*;
    let subset = "subsets = [{ name = \"v1\", labels = { app = \"a\" } }";
    rows.file(
        "no host",
        "[[destination-rule]]\nname = \"r\"\n",
        &[(1, 1, MissingKey, "has no `host`")],
    );
    rows.file(
        "an address for a host",
        "[[destination-rule]]\nname = \"r\"\nhost = \"10.1.0.1\"\n",
        &[(3, 8, BadName, "is an address")],
    );
    rows.rule(
        "camel case",
        "trafficPolicy = {}",
        (1, UnknownKey, "did you mean `traffic-policy`?"),
    );
    rows.rule(
        "shown to some",
        "export-to = [\"shop\"]",
        (14, Unsupported, "write `\\\"*\\\"`"),
    );
    rows.rule(
        "for some clients",
        "workload-selector = {}",
        (21, Unsupported, "whole waypoints"),
    );
    rows.rule(
        "a subset without a name",
        "subsets = [{}]",
        (12, MissingKey, "has no `name`"),
    );
    rows.rule(
        "a subset twice",
        &format!("{subset}, {{ name = \"v1\", labels = {{ app = \"a\" }} }}]"),
        (62, DuplicateName, "subset `v1` is declared twice"),
    );
    rows.traffic(
        "an unknown group",
        "{ balancing = {} }",
        (3, UnknownKey, "no such key"),
    );
    rows.traffic(
        "a tunnel",
        "{ tunnel = {} }",
        (12, Unsupported, "over HBONE"),
    );
    let port = "{ port-level-settings = [{ port = { number = 80 } }";
    rows.traffic(
        "a port twice",
        &format!("{port}, {{ port = {{ number = 80 }} }}] }}"),
        (54, DuplicateName, "port 80 has settings twice"),
    );
    rows.traffic(
        "a port by itself",
        "{ port-level-settings = [{ port = 80 }] }",
        (35, WrongType, "expected a table"),
    );
}

fn balancers(rows: &mut Rows) {
    use Code::*;
    let group = "load-balancer";
    rows.group(
        "lower case",
        group,
        "{ simple = \"random\" }",
        (12, BadValue, "write `\\\"RANDOM\\\"`"),
    );
    rows.group(
        "both ways",
        group,
        "{ simple = \"RANDOM\", consistent-hash = { use-source-ip = true } }",
        (40, ConflictingKeys, "stands beside `simple`"),
    );
    rows.group(
        "no key",
        group,
        "{ consistent-hash = {} }",
        (21, MissingKey, "what is hashed"),
    );
    rows.group(
        "two keys",
        group,
        "{ consistent-hash = { http-header-name = \"a\", use-source-ip = true } }",
        (63, ConflictingKeys, "one too many"),
    );
    rows.group(
        "no header",
        group,
        "{ consistent-hash = { http-header-name = \"a b\" } }",
        (42, BadValue, "not the name of a header field"),
    );
    rows.group(
        "no cookie",
        group,
        "{ consistent-hash = { http-cookie = { name = \"a;b\" } } }",
        (46, BadValue, "cannot be the name of a cookie"),
    );
    rows.group(
        "a cookie of another's",
        group,
        "{ consistent-hash = { http-cookie = { name = \"a\", path = \"a;b\" } } }",
        (58, BadValue, "cannot be the path"),
    );
    rows.group(
        "not by source",
        group,
        "{ consistent-hash = { use-source-ip = false } }",
        (39, BadValue, "is false"),
    );
    rows.group(
        "two tables",
        group,
        "{ consistent-hash = { use-source-ip = true, ring-hash = {}, maglev = {} } }",
        (70, ConflictingKeys, "stands beside `ring-hash`"),
    );
    rows.group(
        "a table that is no prime",
        group,
        "{ consistent-hash = { use-source-ip = true, maglev = { table-size = 65536 } } }",
        (69, BadValue, "is not a prime"),
    );
    rows.group(
        "warm for nothing",
        group,
        "{ simple = \"RANDOM\", warmup = { duration = \"1s\" } }",
        (31, ConflictingKeys, "needs `ROUND_ROBIN`"),
    );
    rows.group(
        "too many percent",
        group,
        "{ warmup = { duration = \"1s\", minimum-percent = 100.5 } }",
        (49, BadValue, "is not a number from 0 to 100"),
    );
    rows.group(
        "a word for a number",
        group,
        "{ warmup = { duration = \"1s\", aggression = \"x\" } }",
        (44, WrongType, "expected a number"),
    );
    rows.group(
        "warmup of old",
        group,
        "{ warmup-duration-secs = \"1s\" }",
        (26, Unsupported, "warmup"),
    );
}

fn localities(rows: &mut Rows) {
    use Code::*;
    let around = "{ locality-lb-setting = ";
    let mut at = |name, text: &str, want: Fault| {
        let offset = u32::try_from(around.len()).unwrap();
        let want = (want.0 + offset, want.1, want.2);
        rows.group(name, "load-balancer", &format!("{around}{text} }}"), want);
    };
    at(
        "shares and failover",
        "{ distribute = [], failover = [] }",
        (31, ConflictingKeys, "stands beside `distribute`"),
    );
    at(
        "shares of less than all",
        "{ distribute = [{ from = \"eu/*\", to = { \"eu/a/*\" = 99 } }] }",
        (39, BadValue, "adds up to 99 percent"),
    );
    at(
        "a star in the middle",
        "{ distribute = [{ from = \"eu/*/a\", to = { \"eu\" = 100 } }] }",
        (26, BadValue, "is not a locality"),
    );
    at(
        "a region to itself",
        "{ failover = [{ from = \"eu\", to = \"eu\" }] }",
        (15, BadValue, "fails over to itself"),
    );
    at(
        "a zone that fails over",
        "{ failover = [{ from = \"eu/a\", to = \"us\" }] }",
        (24, BadValue, "is not a region"),
    );
    at(
        "a label nobody knows",
        "{ failover-priority = [\"team\"] }",
        (24, Unsupported, "topology.kubernetes.io/zone"),
    );
}

fn limits(rows: &mut Rows) {
    use Code::*;
    let group = "connection-pool";
    rows.group(
        "nothing at all",
        group,
        "{ tcp = { max-connections = 0 } }",
        (29, BadValue, "is not a number from 1"),
    );
    rows.group(
        "no unit",
        group,
        "{ tcp = { connect-timeout = 3 } }",
        (29, WrongType, "`\\\"3s\\\"`"),
    );
    rows.group(
        "an unknown policy",
        group,
        "{ http = { h2-upgrade-policy = \"ALWAYS\" } }",
        (32, BadValue, "expected one of"),
    );
    let group = "outlier-detection";
    rows.group(
        "more than all",
        group,
        "{ max-ejection-percent = 101 }",
        (26, BadValue, "from 0 to 100"),
    );
    rows.group(
        "errors of old",
        group,
        "{ consecutive-errors = 5 }",
        (24, Unsupported, "consecutive-5xx-errors"),
    );
    rows.group(
        "a lot",
        "retry-budget",
        "{ percent = 200 }",
        (13, BadValue, "from 0 to 100"),
    );
}

fn tls(rows: &mut Rows) {
    use Code::*;
    let group = "tls";
    rows.group(
        "no mode",
        group,
        "{ sni = \"a\" }",
        (1, MissingKey, "has no `mode`"),
    );
    rows.group(
        "a secret",
        group,
        "{ mode = \"SIMPLE\", credential-name = \"x\" }",
        (
            38,
            Unsupported,
            "`client-certificate`, `private-key` and `ca-certificates`",
        ),
    );
    rows.group(
        "a certificate for nobody",
        group,
        "{ mode = \"SIMPLE\", client-certificate = \"/a\" }",
        (41, ConflictingKeys, "needs `MUTUAL`"),
    );
    rows.group(
        "without a key",
        group,
        "{ mode = \"MUTUAL\", client-certificate = \"/a\" }",
        (1, MissingKey, "has no `private-key`"),
    );
    rows.group(
        "a path from nowhere",
        group,
        "{ mode = \"SIMPLE\", ca-certificates = \"ca.pem\" }",
        (38, BadValue, "is not an absolute path"),
    );
    rows.group(
        "names for nobody",
        group,
        "{ mode = \"DISABLE\", sni = \"a\" }",
        (27, NoEffect, "means nothing in this mode"),
    );
    rows.group(
        "no name of a certificate",
        group,
        "{ mode = \"SIMPLE\", subject-alt-names = [\"a b\"] }",
        (41, BadValue, "is no name of a certificate"),
    );
    rows.group(
        "an unknown version",
        "proxy-protocol",
        "{ version = \"V3\" }",
        (13, BadValue, "expected one of"),
    );
}

fn backend_tls(rows: &mut Rows) {
    use Code::*;
    let head = "[[backend-tls-policy]]\nname = \"p\"\ntarget-refs = ";
    let target = "[{ kind = \"Service\", name = \"s\" }]";
    let valid = "{ hostname = \"a.example\", well-known-ca-certificates = \"System\" }";
    let mut add = |name, targets: &str, validation: &str, want: (u32, u32, Code, &'static str)| {
        let policy = format!("{head}{targets}\nvalidation = {validation}\n");
        rows.add(name, format!("{policy}{SERVICE}{SELECTED}"), &[want]);
    };
    add(
        "nobody to believe",
        target,
        "{ hostname = \"a.example\" }",
        (4, 14, MissingKey, "does not say whom to believe"),
    );
    add(
        "two to believe",
        target,
        "{ hostname = \"a.example\", well-known-ca-certificates = \"System\", ca-certificate-refs = [{ name = \"/a\" }] }",
        (
            4,
            69,
            ConflictingKeys,
            "stands beside `ca-certificate-refs`",
        ),
    );
    add(
        "an empty list to believe",
        target,
        "{ hostname = \"a.example\", ca-certificate-refs = [] }",
        (4, 62, BadValue, "ca-certificate-refs` is empty"),
    );
    add(
        "a ConfigMap",
        target,
        "{ hostname = \"a.example\", ca-certificate-refs = [{ kind = \"ConfigMap\", name = \"/a\" }] }",
        (4, 72, Unsupported, "roots are a file"),
    );
    add(
        "an entry",
        "[{ kind = \"ServiceEntry\", name = \"s\" }]",
        valid,
        (3, 25, Unsupported, "write a `[[destination-rule]]`"),
    );
    add(
        "an unknown port",
        "[{ kind = \"Service\", name = \"s\", section-name = \"http\" }]",
        valid,
        (3, 63, BadValue, "unknown port of service `s`"),
    );
}

fn distributions(rows: &mut Rows) {
    use Code::*;
    rows.service(
        "an unknown distribution",
        "traffic-distribution = \"PreferSameZones\"",
        (24, BadValue, "write `\\\"PreferSameZone\\\"`"),
    );
    rows.service(
        "two distributions",
        "annotations = { \"networking.istio.io/traffic-distribution\" = \"PreferClose\" }\ntraffic-distribution = \"PreferSameNode\"",
        (62, ConflictingKeys, "disagree"),
    );
}
