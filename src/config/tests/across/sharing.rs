//! Workloads that share the addresses of their machine.

use super::{Code, Row};

const NODES: &str = "[[node]]\nname = \"edge-1\"\naddresses = [\"192.0.2.1\", \"2001:db8::1\"]\n[[node]]\nname = \"edge-2\"\naddresses = [\"192.0.2.2\"]\n[[node]]\nname = \"bare\"\n";

fn unit(name: &str, node: &str, more: &str) -> String {
    format!(
        "[[workload]]\nname = \"{name}\"\nnode = \"{node}\"\ndataplane-mode = \"ambient\"\ncapture = {{ unit = \"{name}.service\" }}\nlabels = {{ app = \"{name}\" }}\n{more}\n"
    )
}

fn service(name: &str, app: &str, port: u16) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nselector = {{ app = \"{app}\" }}\nports = [{{ port = 80, target-port = {port} }}]\n"
    )
}

pub(super) fn rows() -> Vec<Row> {
    use Code::*;
    let user = |name: &str, more: &str| {
        unit(name, "edge-1", more).replace("unit = \"b.service\"", "user = \"b\"")
    };
    let mesh = |parts: &[String]| vec![("a.toml", NODES.to_owned()), ("b.toml", parts.concat())];
    let a = || unit("a", "edge-1", "");
    let services = || service("a", "a", 8080) + &service("b", "b", 8080);
    let waypoint = || {
        "[[gateway]]\nname = \"wp\"\nclass = \"waypoint\"\nnode = \"edge-1\"\nlisteners = [{ port = 15008 }]\n".to_owned()
    };
    let udp =
        |services: String| services.replace("{ port = 80,", "{ port = 80, protocol = \"udp\",");
    let probed = "health = { tcp = 8080 }";
    vec![
        (
            "the addresses are the node's",
            mesh(&[
                a(),
                user("b", ""),
                service("a", "a", 8080),
                service("b", "b", 8081),
            ]),
            vec![],
        ),
        (
            "one port for two",
            mesh(&[a(), user("b", ""), services()]),
            vec![(
                "b.toml",
                9,
                8,
                DuplicatePort,
                "workload `default/b` declares port 8080 of 192.0.2.1, which is workload `default/a`'s: service `default/b` leads there",
            )],
        ),
        (
            "one number for two, of TCP and of UDP",
            mesh(&[
                a(),
                user("b", ""),
                service("a", "a", 8080),
                udp(service("b", "b", 8080)),
            ]),
            vec![],
        ),
        (
            "one UDP port for two",
            mesh(&[a(), user("b", ""), udp(services())]),
            vec![(
                "b.toml",
                9,
                8,
                DuplicatePort,
                "workload `default/b` declares UDP port 8080 of 192.0.2.1, which is workload `default/a`'s: service `default/b` leads there",
            )],
        ),
        (
            "the UDP port of the proxy's",
            mesh(&[a(), udp(service("a", "a", 15008))]),
            vec![(
                "b.toml",
                2,
                8,
                DuplicatePort,
                "declares UDP port 15008, where the node's proxy listens on node `edge-1`",
            )],
        ),
        (
            "another's of the proxy's",
            mesh(&[a(), udp(service("a", "a", 15001))]),
            vec![],
        ),
        (
            "a port of the proxy's",
            mesh(&[a(), service("a", "a", 15008)]),
            vec![(
                "b.toml",
                2,
                8,
                DuplicatePort,
                "declares port 15008, where the node's proxy listens on node `edge-1`: service `default/a` leads there",
            )],
        ),
        (
            "a port of a waypoint's that has said it takes the proxy's",
            mesh(&[a(), service("a", "a", 15009), waypoint()]),
            vec![(
                "b.toml",
                2,
                8,
                DuplicatePort,
                "declares port 15009, where waypoint `default/wp` listens on node `edge-1`",
            )],
        ),
        (
            "a waypoint beside a unit",
            mesh(&[a(), service("a", "a", 8080), waypoint()]),
            vec![],
        ),
        (
            "at addresses of one family each",
            mesh(&[
                unit("a", "edge-1", "addresses = [\"192.0.2.1\"]"),
                user("b", "addresses = [\"2001:db8::1\"]"),
                services(),
            ]),
            vec![],
        ),
        (
            "on two machines",
            mesh(&[a(), unit("b", "edge-2", ""), services()]),
            vec![],
        ),
        (
            "one port by two services of one workload",
            mesh(&[
                a(),
                user("b", ""),
                service("a", "a", 8080),
                service("again", "a", 8080),
            ]),
            vec![],
        ),
        (
            "a probe on another's port",
            mesh(&[
                a(),
                user("b", probed),
                services().replace("app = \"b\"", "app = \"a\""),
            ]),
            vec![("b.toml", 9, 8, DuplicatePort, "its health check asks there")],
        ),
        (
            "a workload in a network of its own",
            mesh(&[
                a(),
                user("b", "addresses = [\"10.1.0.2\"]").replace("user =", "netns ="),
                services(),
            ]),
            vec![],
        ),
        (
            "an address that is not the node's",
            mesh(&[unit(
                "a",
                "edge-1",
                "addresses = [\"192.0.2.1\", \"192.0.2.9\"]",
            )]),
            vec![("b.toml", 7, 27, NotOfNode, "leave `addresses` out")],
        ),
        (
            "another node's",
            mesh(&[unit("a", "edge-1", "addresses = [\"192.0.2.2\"]")]),
            vec![("b.toml", 7, 14, NotOfNode, "no address 192.0.2.2")],
        ),
        (
            "a node without addresses",
            mesh(&[unit("a", "bare", "")]),
            vec![("b.toml", 2, 8, NotOfNode, "give the node its `addresses`")],
        ),
        (
            "no addresses where they are its own",
            mesh(&[unit("a", "edge-1", "").replace("unit = \"a.service\"", "netns = \"a\"")]),
            vec![("b.toml", 1, 1, MissingKey, "`addresses` is missing")],
        ),
        (
            "on no node",
            mesh(&[unit("a", "edge-1", "").replace("node = \"edge-1\"\n", "")]),
            vec![("b.toml", 4, 11, WithoutNode, "captured by whom?")],
        ),
    ]
}
