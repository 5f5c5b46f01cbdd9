//! Other tables than ours: what they do to the ports that peers need, and whose they are.
//!
//! A firewall is not understood here, only asked: one that drops what it does not name must name a
//! port somewhere to let it in, and one that drops a port must name it too.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Finding;
use super::codes::Code;
use super::program::run;
use super::settings::Roles;
use crate::config::daemon::Config;

/// Where peers' tunnels come in.
const TUNNELS: u64 = 15008;
/// Our own table.
const OURS: &str = "lateen";

/// What a chain does with what nothing in it decides.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    table: String,
    name: String,
    /// Of a base chain: which packets it is for.
    hook: Option<String>,
    /// Whether what is left at its end is dropped.
    drops: bool,
    /// Ports that it drops by name.
    dropped: BTreeSet<u64>,
}

/// What is known of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Where nodes reach the control plane here.
    control: u64,
    chains: Vec<Chain>,
    /// Ports that are named anywhere in a table, by table.
    named: Vec<(String, BTreeSet<u64>)>,
    /// Names in the legacy tables.
    legacy: Vec<String>,
}

impl Facts {
    pub(super) fn read(config: Option<&Config>) -> Self {
        let listed = run("nft", &["-j", "list", "ruleset"]).said();
        let listed = listed.and_then(|text| serde_json::from_str(&text).ok());
        let control = config.map(|config| u64::from(config.control().listen().port()));
        let listed = listed.zip(control);
        Self {
            legacy: legacy(),
            ..listed.map_or_else(Self::default, |(listed, control)| {
                Self::of(&listed, control)
            })
        }
    }

    /// By what `nft -j list ruleset` prints (libnftables-json(5)).
    fn of(listed: &Value, control: u64) -> Self {
        let mut facts = Self {
            control,
            ..Self::default()
        };
        let objects = listed["nftables"].as_array();
        for object in objects.into_iter().flatten() {
            if let Some(chain) = object.get("chain") {
                facts.chain(chain);
            }
            if let Some(rule) = object.get("rule") {
                facts.rule(rule);
            }
            // Rules may ask sets and maps, which have the ports.
            for kind in ["set", "map"] {
                if let Some(set) = object.get(kind) {
                    facts.name(&table_of(set), set.get("elem"));
                }
            }
        }
        facts
    }

    fn chain(&mut self, chain: &Value) {
        self.chains.push(Chain {
            table: table_of(chain),
            name: text(chain, "name"),
            hook: chain["hook"].as_str().map(str::to_owned),
            drops: chain["policy"] == "drop",
            dropped: BTreeSet::new(),
        });
    }

    fn rule(&mut self, rule: &Value) {
        let (table, name) = (table_of(rule), text(rule, "chain"));
        let Some(expressions) = rule["expr"].as_array() else {
            return;
        };
        // What has been counted is no port.
        let said = expressions.iter().filter(|e| e.get("counter").is_none());
        self.name(&table, said);
        let refuses = |e: &Value| e.get("drop").is_some() || e.get("reject").is_some();
        let chains = &mut self.chains;
        let chain = chains
            .iter_mut()
            .find(|c| c.table == table && c.name == name);
        let Some(chain) = chain.filter(|_| expressions.iter().any(refuses)) else {
            return;
        };
        let passes = |e: &Value| e.get("counter").is_some() || e.get("log").is_some();
        let conditions = expressions.iter().filter(|e| !refuses(e) && !passes(e));
        let conditions: Vec<&Value> = conditions.collect();
        // Of one that drops all there is, as firewalld's last is, nothing gets past.
        chain.drops |= conditions.is_empty();
        // One that drops a port for some alone is somebody's will.
        if conditions.iter().all(|e| is_port(e) || is_protocol(e)) {
            let ports = conditions.iter().filter(|e| is_port(e));
            let ports = ports.flat_map(|e| known_ports(e, [TUNNELS, self.control]));
            chain.dropped.extend(ports);
        }
    }

    fn name<'a>(&mut self, table: &str, values: impl IntoIterator<Item = &'a Value>) {
        let values = values.into_iter();
        let ports = values.flat_map(|value| known_ports(value, [TUNNELS, self.control]));
        match self.named.iter_mut().find(|(name, _)| name == table) {
            Some((_, named)) => named.extend(ports),
            None => self.named.push((table.to_owned(), ports.collect())),
        }
    }

    pub(super) fn check(&self, roles: Roles) -> Vec<Finding> {
        let mut found = Vec::new();
        let tunnels = roles.captures() || roles.waypoint;
        for (port, needed) in [(TUNNELS, tunnels), (self.control, roles.control)] {
            let closed = self.foreign().find_map(|chain| self.closes(chain, port));
            found.extend(closed.filter(|_| needed));
        }
        if roles.captures() {
            let drops = |c: &&Chain| c.hook.as_deref() == Some("forward") && c.drops;
            found.extend(self.foreign().find(drops).map(forward));
        }
        if !self.legacy.is_empty() {
            let seen = format!(
                "there are rules in the legacy tables ({}), which nft does not show and this cannot judge",
                self.legacy.join(", ")
            );
            let remedy = "iptables-legacy-save; move them: update-alternatives --set iptables /usr/sbin/iptables-nft";
            found.push(Finding::new(Code::LegacyTables, seen, remedy));
        }
        found.extend(self.mesh());
        found
    }

    fn foreign(&self) -> impl Iterator<Item = &Chain> {
        self.chains.iter().filter(|c| !c.table.ends_with(OURS))
    }

    fn closes(&self, chain: &Chain, port: u64) -> Option<Finding> {
        let (table, name) = (&chain.table, &chain.name);
        let named = self
            .named
            .iter()
            .any(|(t, ports)| t == table && ports.contains(&port));
        let input = matches!(chain.hook.as_deref(), Some("input" | "prerouting"));
        let seen = match (
            chain.dropped.contains(&port),
            chain.drops && input && !named,
        ) {
            (true, _) => format!("chain {name} of table {table} drops {port}/tcp"),
            (_, true) => format!(
                "table {table} drops what it does not name (chain {name}), and {port}/tcp is not named"
            ),
            _ => return None,
        };
        let remedy = match table {
            t if t.ends_with("firewalld") => {
                format!("firewall-cmd --permanent --add-port={port}/tcp && firewall-cmd --reload")
            }
            _ if self.chains.iter().any(|c| c.name.starts_with("ufw")) => {
                format!("ufw allow {port}/tcp")
            }
            table => format!(
                "nft insert rule {table} {name} tcp dport {port} accept, and in the file it comes from"
            ),
        };
        Some(Finding::new(Code::FirewallDrops, seen, remedy))
    }

    /// Rules of Istio, whose own redirection would get every connection first.
    fn mesh(&self) -> Option<Finding> {
        let istio = |c: &&Chain| c.name.starts_with("ISTIO_") || c.table.contains("istio");
        let chain = self.chains.iter().find(istio)?;
        let seen = format!(
            "chain {} of table {} is another mesh's: connections go to its proxy and not to lateen",
            chain.name, chain.table
        );
        let remedy = match chain.table.contains("istio") {
            true => format!("nft delete table {}", chain.table),
            false => {
                "istio-iptables --cleanup, or iptables-save | grep -v ISTIO_ | iptables-restore"
                    .to_owned()
            }
        };
        Some(Finding::new(Code::ForeignMesh, seen, remedy))
    }
}

fn forward(chain: &Chain) -> Finding {
    let Chain { table, name, .. } = chain;
    let seen = format!(
        "chain {name} of table {table} drops what is passed on unless it is named: guests behind an interface of \
         this host, and workloads routed through it, may be cut off"
    );
    let remedy = match name.as_str() {
        "FORWARD" => "iptables -I DOCKER-USER -i INTERFACE -j ACCEPT, or without Docker: iptables -P FORWARD ACCEPT".to_owned(),
        _ => format!("nft insert rule {table} {name} iifname INTERFACE accept"),
    };
    Finding::new(Code::ForwardDrops, seen, remedy)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// `inet filter`, as nft takes it.
fn table_of(value: &Value) -> String {
    format!("{} {}", text(value, "family"), text(value, "table"))
}

/// Whether an expression takes ports that it names, of a connection.
fn is_port(expression: &Value) -> bool {
    let matched = &expression["match"];
    let payload = &matched["left"]["payload"];
    payload["field"] == "dport" && payload["protocol"] != "udp" && matched["op"] != "!="
}

/// Whether it only says that it is about connections.
fn is_protocol(expression: &Value) -> bool {
    let matched = &expression["match"];
    matched["left"]["meta"]["key"] == "l4proto" && matched["right"] == "tcp"
}

/// Which of `ports` are named anywhere in a value, by themselves or within a range.
fn known_ports(value: &Value, ports: [u64; 2]) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let of_interest = |low: u64, high: u64| {
        let of = move |port: &u64| (low..=high).contains(port);
        ports.into_iter().filter(of)
    };
    match value {
        Value::Number(number) => {
            let number = number.as_u64();
            found.extend(number.into_iter().flat_map(|n| of_interest(n, n)));
        }
        Value::Array(values) => found.extend(values.iter().flat_map(|v| known_ports(v, ports))),
        Value::Object(fields) => {
            let ends = fields.get("range").and_then(Value::as_array);
            if let Some([low, high]) = ends.map(Vec::as_slice)
                && let (Some(low), Some(high)) = (low.as_u64(), high.as_u64())
            {
                found.extend(of_interest(low, high));
            }
            found.extend(fields.values().flat_map(|v| known_ports(v, ports)));
        }
        _ => {}
    }
    found
}

/// Tables that programs older than nft have filled.
fn legacy() -> Vec<String> {
    let lists = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
    let texts = lists
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok());
    let names: BTreeSet<String> = texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CONTROL: u64 = 15012;
    const NODE: Roles = Roles {
        control: false,
        node: true,
        waypoint: false,
        known: true,
    };

    fn chain(table: &str, name: &str, hook: &str, policy: &str) -> Value {
        json!({ "chain": { "family": "inet", "table": table, "name": name, "hook": hook, "policy": policy } })
    }

    fn rule(table: &str, name: &str, expr: Value) -> Value {
        json!({ "rule": { "family": "inet", "table": table, "chain": name, "expr": expr } })
    }

    fn dport(right: Value) -> Value {
        json!({ "match": { "op": "==", "right": right, "left": { "payload": { "protocol": "tcp", "field": "dport" } } } })
    }

    fn codes(objects: Vec<Value>, roles: Roles) -> Vec<Code> {
        let facts = Facts::of(&json!({ "nftables": objects }), CONTROL);
        facts.check(roles).iter().map(|f| f.code).collect()
    }

    #[test]
    fn each_fault_is_named() {
        let closed = || chain("filter", "input", "input", "drop");
        let open = || chain("filter", "input", "input", "accept");
        let accept = |right| rule("filter", "input", json!([dport(right), { "accept": null }]));
        for (name, objects, want) in [
            ("no firewall", vec![], vec![]),
            ("one that lets everything in", vec![open()], vec![]),
            ("closed", vec![closed()], vec![Code::FirewallDrops]),
            (
                "closed but for tunnels",
                vec![closed(), accept(json!(15008))],
                vec![],
            ),
            (
                "closed but for a range",
                vec![closed(), accept(json!({ "range": [15000, 15100] }))],
                vec![],
            ),
            (
                "closed but for a set",
                vec![
                    closed(),
                    accept(json!("@open")),
                    json!({ "set": { "family": "inet", "table": "filter", "name": "open", "elem": [22, 15008] } }),
                ],
                vec![],
            ),
            (
                "named in another table",
                vec![
                    closed(),
                    chain("other", "input", "input", "accept"),
                    rule(
                        "other",
                        "input",
                        json!([dport(json!(15008)), { "accept": null }]),
                    ),
                ],
                vec![Code::FirewallDrops],
            ),
            (
                "dropped by name",
                vec![
                    open(),
                    rule(
                        "filter",
                        "input",
                        json!([dport(json!(15008)), { "drop": null }]),
                    ),
                ],
                vec![Code::FirewallDrops],
            ),
            (
                "another port dropped",
                vec![
                    open(),
                    rule(
                        "filter",
                        "input",
                        json!([dport(json!(25)), { "drop": null }]),
                    ),
                ],
                vec![],
            ),
            (
                "rejected at the end",
                vec![open(), rule("filter", "input", json!([{ "reject": null }]))],
                vec![Code::FirewallDrops],
            ),
            (
                "dropped for some",
                vec![
                    open(),
                    rule(
                        "filter",
                        "input",
                        json!([{ "match": { "op": "!=", "right": "10.0.0.0", "left": { "payload": { "protocol": "ip", "field": "saddr" } } } },
                               dport(json!(15008)), { "drop": null }]),
                    ),
                ],
                vec![],
            ),
            (
                "all but it dropped",
                vec![
                    open(),
                    rule(
                        "filter",
                        "input",
                        json!([{ "match": { "op": "!=", "right": 15008, "left": { "payload": { "protocol": "tcp", "field": "dport" } } } },
                               { "drop": null }]),
                    ),
                ],
                vec![],
            ),
            (
                "a match of iptables, which nft does not show",
                vec![
                    open(),
                    rule(
                        "filter",
                        "input",
                        json!([{ "xt": null }, { "counter": { "packets": 0, "bytes": 0 } }, { "drop": null }]),
                    ),
                ],
                vec![],
            ),
            (
                "too much dropped",
                vec![
                    open(),
                    rule(
                        "filter",
                        "input",
                        json!([{ "limit": { "rate": 5, "per": "second", "inv": true } }, { "drop": null }]),
                    ),
                ],
                vec![],
            ),
            (
                "a number that is no port",
                vec![
                    closed(),
                    rule(
                        "filter",
                        "input",
                        json!([{ "counter": { "packets": 15008, "bytes": 15008 } }, { "accept": null }]),
                    ),
                ],
                vec![Code::FirewallDrops],
            ),
            (
                "our own table",
                vec![chain(OURS, "input", "input", "drop")],
                vec![],
            ),
            (
                "nothing is passed on",
                vec![chain("filter", "FORWARD", "forward", "drop")],
                vec![Code::ForwardDrops],
            ),
            (
                "another mesh",
                vec![chain("nat", "ISTIO_OUTPUT", "", "accept")],
                vec![Code::ForeignMesh],
            ),
        ] {
            assert_eq!(codes(objects, NODE), want, "{name}");
        }
    }

    #[test]
    fn a_control_plane_needs_its_own_port() {
        let control = Roles {
            control: true,
            node: false,
            ..NODE
        };
        let closed = chain("filter", "input", "input", "drop");
        let accept = |port: u64| {
            rule(
                "filter",
                "input",
                json!([dport(json!(port)), { "accept": null }]),
            )
        };
        assert_eq!(
            codes(vec![closed.clone(), accept(TUNNELS)], control),
            [Code::FirewallDrops]
        );
        assert_eq!(codes(vec![closed, accept(CONTROL)], control), []);
    }

    #[test]
    fn the_remedy_is_of_whoever_made_the_table() {
        for (objects, want) in [
            (
                vec![chain("firewalld", "filter_INPUT", "input", "drop")],
                "firewall-cmd ",
            ),
            (
                vec![
                    chain("filter", "INPUT", "input", "drop"),
                    chain("filter", "ufw-user-input", "", ""),
                ],
                "ufw allow 15008/tcp",
            ),
            (
                vec![chain("filter", "input", "input", "drop")],
                "nft insert rule inet filter input tcp dport 15008 accept",
            ),
        ] {
            let facts = Facts::of(&json!({ "nftables": objects }), CONTROL);
            let remedy = facts.check(NODE).remove(0).remedy;
            assert!(remedy.starts_with(want), "{remedy}");
        }
    }

    #[test]
    fn legacy_tables_are_told_of() {
        let facts = Facts {
            legacy: vec!["nat".to_owned()],
            ..Facts::default()
        };
        assert_eq!(facts.check(NODE).len(), 1);
    }
}
