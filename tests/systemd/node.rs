//! Control plane and node in one, with its keeper, as services: from an empty host to traffic between
//! two captured workloads, and what becomes of it when either process dies.

use crate::machine::{Machine, said};

const MESH: &str = r#"
default-namespace = "shop"
[[node]]
name = "solo"
addresses = ["10.1.0.1"]
[[namespace]]
name = "shop"
dataplane-mode = "ambient"
[[workload]]
name = "web-1"
service-account = "web"
node = "solo"
addresses = ["10.1.0.11"]
capture = { netns = "web" }
[[workload]]
name = "cart-1"
service-account = "cart"
node = "solo"
addresses = ["10.1.0.12"]
labels = { app = "cart" }
capture = { netns = "cart" }
[[workload]]
name = "ledger-1"
service-account = "ledger"
node = "solo"
addresses = ["10.1.0.1"]
labels = { app = "ledger" }
capture = { unit = "ledger.service" }
[[workload]]
name = "clerk-1"
service-account = "clerk"
node = "solo"
addresses = ["10.1.0.1"]
capture = { unit = "clerk.service" }
[[service]]
name = "ledger"
addresses = ["240.240.1.2"]
ports = [{ port = 80, target-port = 9090 }]
selector = { app = "ledger" }
[[service]]
name = "cart"
addresses = ["240.240.1.1"]
ports = [{ port = 80, target-port = 8080 }]
selector = { app = "cart" }
"#;

const SETTINGS: &str = r#"
node = "solo"
[control]
addresses = ["https://127.0.0.1:15012"]
"#;

/// Networks of two workloads, behind a bridge.
const NETWORKS: &str = "
set -e
ip link add br0 type bridge
ip address add 10.1.0.1/24 dev br0
ip link set br0 up
# Whoever asks for services has to have a way to their addresses.
ip route add 240.240.0.0/16 dev br0
for at in web:11 cart:12; do
  name=${at%:*}
  ip netns add $name
  ip link add v-$name type veth peer name eth0 netns $name
  ip link set v-$name master br0 up
  ip -n $name link set lo up
  ip -n $name address add 10.1.0.${at#*:}/24 dev eth0
  ip -n $name link set eth0 up
  ip -n $name route add default via 10.1.0.1
done
";

/// A program of a workload, as a unit in its network.
const CART: &str = "
[Service]
NetworkNamespacePath=/run/netns/cart
DynamicUser=yes
ExecStart=/usr/bin/lateen sample http-server --listen 0.0.0.0:8080 --name cart-1
";

/// Two of the host's own network.
const LEDGER: &str = "
[Service]
DynamicUser=yes
ExecStart=/usr/bin/lateen sample http-server --listen 0.0.0.0:9090 --name ledger-1
";
const CLERK: &str = "
[Service]
DynamicUser=yes
ExecStart=/usr/bin/lateen sample http-client 240.240.1.1:80
";

const ASK: &str = "ip netns exec web lateen sample http-client 240.240.1.1:80 --count 1";

#[test]
fn a_node_and_its_keeper_run_under_systemd() {
    let Some(machine) = Machine::boot("a_node_and_its_keeper_run_under_systemd") else {
        return;
    };
    machine.ok(&["sh", "-c", NETWORKS]);
    machine.write("/etc/lateen/lateen.toml", SETTINGS);
    machine.write("/etc/lateen/mesh/mesh.toml", MESH);
    for (unit, text) in [("cart", CART), ("ledger", LEDGER), ("clerk", CLERK)] {
        machine.write(&format!("/etc/systemd/system/{unit}.service"), text);
    }
    machine.ok(&["systemctl", "daemon-reload"]);
    joins_and_is_ready_then(&machine);
    carries(&machine);
    units_are_workloads(&machine);
    outlives_its_keeper(&machine);
    comes_back(&machine);
    eprintln!(
        "{}",
        said(&machine.run(&["systemctl", "status", "--no-pager", "lateen*"]))
    );
    machine.ok(&[
        "systemctl",
        "stop",
        "lateen.service",
        "lateen-keeper.service",
    ]);
    assert_eq!(machine.property("lateen.service", "Result"), "success");
    assert_eq!(
        machine.property("lateen-keeper.service", "Result"),
        "success"
    );
    eprintln!("{}", machine.journal());
}

fn joins_and_is_ready_then(machine: &Machine) {
    machine.ok(&["systemctl", "start", "--no-block", "lateen.service"]);
    machine.eventually(
        "it waits for somebody to join it",
        &[
            "systemctl",
            "show",
            "-p",
            "ActiveState,StatusText",
            "lateen.service",
        ],
        |o| {
            let said = said(o);
            said.contains("=activating") && said.contains("waiting for this machine has not joined")
        },
    );
    let join = "lateen token create solo | lateen join https://127.0.0.1:15012 --token-file -";
    machine.ok(&["sh", "-c", join]);
    // Returns when the start is over.
    machine.ok(&["systemctl", "start", "lateen.service"]);
    machine.eventually(
        "the status tells of its workloads",
        &[
            "systemctl",
            "show",
            "--value",
            "-p",
            "StatusText",
            "lateen.service",
        ],
        |o| said(o).contains("4 of 4 workloads captured"),
    );
    let pid = machine.property("lateen.service", "MainPID");
    let status = machine.ok(&["cat", &format!("/proc/{pid}/status")]);
    for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            status.contains(&format!("{set}:\t0000000000000000")),
            "{status}"
        );
    }
    let owners = machine.ok(&["find", "/var/lib/lateen", "!", "-user", "lateen"]);
    assert_eq!(owners, "");
}

fn carries(machine: &Machine) {
    machine.ok(&["systemctl", "start", "cart.service"]);
    asks(machine, "web asks cart");
    machine.logged("spiffe://cluster.local/ns/shop/sa/web");
}

/// Served by a unit, and asked for by another one, each as itself; and again when systemd has started it
/// anew, in another cgroup of the same name.
fn units_are_workloads(machine: &Machine) {
    machine.ok(&["systemctl", "start", "ledger.service", "clerk.service"]);
    let ask = ASK.replace("240.240.1.1", "240.240.1.2");
    machine.eventually("web asks ledger", &["sh", "-c", &ask], |o| {
        said(o).contains("ledger-1")
    });
    machine.logged("dst.identity=\"spiffe://cluster.local/ns/shop/sa/ledger\"");
    machine.eventually(
        "cart answers clerk",
        &["journalctl", "--no-pager", "-u", "clerk.service"],
        |o| said(o).contains("cart-1"),
    );
    machine.ok(&["systemctl", "restart", "ledger.service", "clerk.service"]);
    // It keeps its connection, which is logged at its end.
    machine.logged("src.identity=\"spiffe://cluster.local/ns/shop/sa/clerk\"");
    machine.eventually("web asks ledger again", &["sh", "-c", &ask], |o| {
        said(o).contains("ledger-1")
    });
}

fn asks(machine: &Machine, what: &str) {
    machine.eventually(what, &["sh", "-c", ASK], |o| said(o).contains("cart-1"));
}

fn outlives_its_keeper(machine: &Machine) {
    let pid = machine.property("lateen.service", "MainPID");
    let keeper = machine.property("lateen-keeper.service", "MainPID");
    machine.ok(&["kill", "-KILL", &keeper]);
    machine.eventually(
        "another keeper is there",
        &["systemctl", "is-active", "lateen-keeper.service"],
        |o| said(o).trim() == "active",
    );
    asks(machine, "web asks cart with another keeper");
    assert_ne!(machine.property("lateen-keeper.service", "MainPID"), keeper);
    assert_eq!(
        machine.property("lateen.service", "MainPID"),
        pid,
        "the proxy stays"
    );
}

fn comes_back(machine: &Machine) {
    let pid = machine.property("lateen.service", "MainPID");
    machine.ok(&["kill", "-KILL", &pid]);
    machine.eventually(
        "another proxy is there",
        &["systemctl", "is-active", "lateen.service"],
        |o| said(o).trim() == "active",
    );
    asks(machine, "web asks cart through another proxy");
}
