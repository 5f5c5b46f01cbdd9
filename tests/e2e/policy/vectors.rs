//! Policies on the ledger, and what becomes of six connections to it under each: from web, from
//! cart-1 and from outside the mesh, to port 7000 and to port 9090. Web and cart-1 reach the first
//! through a service, by its port 70.

/// One row of §7, or kin of it.
pub(super) struct Vector {
    /// Its number there, and what it shows.
    pub(super) name: &'static str,
    /// The policies, in TOML.
    pub(super) policies: &'static str,
    /// `+` let in, `-` kept out.
    pub(super) want: &'static str,
    /// Words of the explanation.
    pub(super) said: &'static [&'static str],
    /// Words of lines in the log of the ledger's node.
    pub(super) logged: &'static [&'static [&'static str]],
}

macro_rules! vectors {
    ($($name:literal: $policies:literal => $want:literal
        $(, says $($said:literal)+)? $(, logs $([$($logged:literal)+])+)?;)+) => {
        pub(super) const ALL: &[Vector] = &[$(Vector {
            name: $name,
            policies: $policies,
            want: $want,
            said: &[$($($said),+)?],
            logged: &[$($(&[$($logged),+]),+)?],
        }),+];
    };
}

vectors! {
    "17, ALLOW without rules": r#"
[[authorization-policy]]
name = "p17"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
"# => "--- ---", says "not allowed by policy shop/p17 (policy.toml:", logs ["inbound" "not allowed by policy shop/p17 (policy.toml:" "/sa/web"];

    "17, ALLOW with an empty rule": r#"
[[authorization-policy]]
name = "p17b"
namespace = "shop"
rules = [{}]
"# => "+++ +++", says "allowed by policy shop/p17b";

    "18, DENY whoever has a principal": r#"
[[authorization-policy]]
name = "p18"
namespace = "shop"
action = "DENY"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { principals = ["*"] } }] }]
"# => "--+ --+", says "denied by policy shop/p18";

    "18, DENY whoever has none": r#"
[[authorization-policy]]
name = "p18b"
namespace = "shop"
action = "DENY"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { not-principals = ["*"] } }] }]
"# => "++- ++-", logs ["inbound" "denied by policy shop/p18b" "src.addr=10.77.0.99"];

    "19, ALLOW not-namespaces": r#"
[[authorization-policy]]
name = "p19"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { not-namespaces = ["evil"] } }] }]
"# => "+++ +++";

    "19, ALLOW any namespace": r#"
[[authorization-policy]]
name = "p19b"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { namespaces = ["*"] } }] }]
"# => "++- ++-";

    "21, a principal's end": r#"
[[authorization-policy]]
name = "p21"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { principals = ["*/sa/web"] } }] }]
"# => "+-- +--";

    "21, a principal's beginning": r#"
[[authorization-policy]]
name = "p21b"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { principals = ["cluster.local/ns/shop/*"] } }] }]
"# => "++- ++-";

    "21, half a principal": r#"
[[authorization-policy]]
name = "p21c"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { principals = ["cluster.local/ns/shop/sa/we"] } }] }]
"# => "--- ---";

    "22, service accounts of the policy's namespace": r#"
[[authorization-policy]]
name = "p22"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { service-accounts = ["web"] } }] }]
"# => "+-- +--";

    "22, service accounts of the root namespace": r#"
[[authorization-policy]]
name = "p22b"
namespace = "istio-system"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { service-accounts = ["web"] } }] }]
"# => "--- ---";

    "22, service accounts of another namespace by name": r#"
[[authorization-policy]]
name = "p22c"
namespace = "istio-system"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { service-accounts = ["shop/web"] } }] }]
"# => "+-- +--";

    "22, DENY before ALLOW": r#"
[[authorization-policy]]
name = "p22-allow"
namespace = "shop"
rules = [{ from = [{ source = { service-accounts = ["web", "cart"] } }] }]
[[authorization-policy]]
name = "p22-deny"
namespace = "shop"
action = "DENY"
rules = [{ from = [{ source = { service-accounts = ["web"] } }] }]
"# => "-+- -+-", says "denied by policy shop/p22-deny", logs ["denied by policy shop/p22-deny"];

    "23, two sources and a port": r#"
[[authorization-policy]]
name = "p23"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { namespaces = ["other"] } }, { source = { service-accounts = ["web"] } }],
           to = [{ operation = { ports = ["7000"] } }] }]
"# => "+-- ---";

    "24, the service's port is not the workload's": r#"
[[authorization-policy]]
name = "p24"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ to = [{ operation = { ports = ["70"] } }] }]
"# => "--- ---";

    "25, an ALLOW that needs HTTP is left out": r#"
[[authorization-policy]]
name = "p25"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ to = [{ operation = { methods = ["GET"] } }] }]
"# => "--- ---";

    "25, and another rule is not": r#"
[[authorization-policy]]
name = "p25b"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ to = [{ operation = { methods = ["GET"] } }] },
         { from = [{ source = { service-accounts = ["web"] } }] }]
"# => "+-- +--";

    "26, a DENY that needs HTTP has no effect": r#"
[[authorization-policy]]
name = "p26"
namespace = "shop"
action = "DENY"
selector = { match-labels = { app = "ledger" } }
rules = [{ to = [{ operation = { methods = ["GET"] } }] }]
"# => "+++ +++";

    "27, a DENY without its HTTP part": r#"
[[authorization-policy]]
name = "p27"
namespace = "shop"
action = "DENY"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { principals = ["cluster.local/ns/shop/sa/web"], not-request-principals = ["j/x"] } }] }]
"# => "-++ -++";

    "28, a DENY from somebody to a method": r#"
[[authorization-policy]]
name = "p28"
namespace = "shop"
action = "DENY"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { service-accounts = ["web"] } }], to = [{ operation = { methods = ["GET"] } }] }]
"# => "+++ +++";

    "28, a DENY from somebody with a header": r#"
[[authorization-policy]]
name = "p28b"
namespace = "shop"
action = "DENY"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { service-accounts = ["web"] } }], when = [{ key = "request.headers[a]", values = ["b"] }] }]
"# => "+++ +++";

    "28, a DENY by namespace and server name": r#"
[[authorization-policy]]
name = "p28c"
namespace = "shop"
action = "DENY"
selector = { match-labels = { app = "ledger" } }
rules = [{ when = [{ key = "source.namespace", values = ["shop"] }, { key = "connection.sni", values = ["x"] }] }]
"# => "+++ +++";

    "29, a DENY to a method or a port": r#"
[[authorization-policy]]
name = "p29"
namespace = "shop"
action = "DENY"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { service-accounts = ["web"] } }],
           to = [{ operation = { methods = ["GET"] } }, { operation = { ports = ["7000"] } }] }]
"# => "-++ +++";

    "30, AUDIT is not for node proxies": r#"
[[authorization-policy]]
name = "p30"
namespace = "shop"
action = "AUDIT"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { service-accounts = ["web"] } }] }]
"# => "+++ +++";

    "30, nor is CUSTOM": r#"
[[authorization-policy]]
name = "p30b"
namespace = "shop"
action = "CUSTOM"
provider = { name = "asker" }
selector = { match-labels = { app = "ledger" } }
rules = [{ to = [{ operation = { ports = ["7000"] } }] }]
"# => "+++ +++";

    "31, dry run": r#"
[[authorization-policy]]
name = "p31-deny"
namespace = "shop"
action = "DENY"
annotations = { "istio.io/dry-run" = "true" }
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { service-accounts = ["web"] } }] }]
[[authorization-policy]]
name = "p31-allow"
namespace = "shop"
dry-run = true
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { namespaces = ["other"] } }] }]
"# => "+++ +++", says "would be denied by policy shop/p31-deny" "no policy would allow it",
        logs ["dry run" "would be denied by policy shop/p31-deny" "policy.more=1" "/sa/web"] ["dry run" "no policy would allow it" "policy.more=0"];

    "32, the root namespace selects everywhere": r#"
[[authorization-policy]]
name = "p32"
namespace = "istio-system"
selector = { match-labels = { app = "ledger" } }
"# => "--- ---", says "istio-system/p32";

    "32, and no others": r#"
[[authorization-policy]]
name = "p32b"
namespace = "istio-system"
selector = { match-labels = { app = "cart" } }
"# => "+++ +++";

    "32, the root namespace without a selector": r#"
[[authorization-policy]]
name = "p32c"
namespace = "istio-system"
rules = [{ from = [{ source = { principals = ["*"] } }] }]
"# => "++- ++-", logs ["not allowed by policy istio-system/p32c" "src.addr=10.77.0.99"];

    "another namespace's policies": r#"
[[authorization-policy]]
name = "elsewhere"
namespace = "other"
"# => "+++ +++";

    "35, a lax workload in a strict namespace": r#"
[[peer-authentication]]
name = "p35"
namespace = "shop"
mtls = { mode = "STRICT" }
[[peer-authentication]]
name = "p35-ledger"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
mtls = { mode = "PERMISSIVE" }
"# => "+++ +++";

    "35, a selector in the root namespace": r#"
[[peer-authentication]]
name = "p35b"
namespace = "istio-system"
selector = { match-labels = { app = "ledger" } }
mtls = { mode = "STRICT" }
"# => "+++ +++";

    "36, a lax port in a strict mesh": r#"
[[peer-authentication]]
name = "p36"
namespace = "istio-system"
mtls = { mode = "STRICT" }
[[peer-authentication]]
name = "p36-ledger"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
mtls = { mode = "UNSET" }
port-level-mtls = { 9090 = { mode = "PERMISSIVE" } }
"# => "++- +++", says "shop/converted_peer_authentication_p36-ledger", logs ["denied by policy shop/converted_peer_authentication_p36-ledger"];

    "36, a strict port in a lax mesh": r#"
[[peer-authentication]]
name = "p36b"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
port-level-mtls = { 9090 = { mode = "STRICT" } }
"# => "+++ ++-";

    "37, the older of two": r#"
[[peer-authentication]]
name = "p37"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
mtls = { mode = "PERMISSIVE" }
[[peer-authentication]]
name = "p37-later"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
mtls = { mode = "STRICT" }
"# => "+++ +++";

    "37, strict whatever is allowed": r#"
[[peer-authentication]]
name = "p37b"
namespace = "shop"
mtls = { mode = "STRICT" }
[[authorization-policy]]
name = "p37-all"
namespace = "shop"
rules = [{}]
"# => "++- ++-", says "istio-system/istio_converted_static_strict";

    "addresses of clients": r#"
[[authorization-policy]]
name = "by-address"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { ip-blocks = ["10.77.1.0/24"], not-ip-blocks = ["10.77.1.12"] } }] }]
"# => "+-- +--";

    "conditions": r#"
[[authorization-policy]]
name = "when"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ when = [{ key = "source.principal", values = ["*"], not-values = ["*/sa/cart"] },
                   { key = "destination.port", values = ["7000"] },
                   { key = "destination.ip", values = ["10.77.2.13"] },
                   { key = "source.ip", not-values = ["10.77.0.99"] }] }]
"# => "+-- ---";

    "trust domains": r#"
[[authorization-policy]]
name = "domains"
namespace = "shop"
selector = { match-labels = { app = "ledger" } }
rules = [{ from = [{ source = { trust-domains = ["cluster.local"], principals = ["*/sa/cart"] } }] },
         { from = [{ source = { trust-domains = ["elsewhere.example"] } }] }]
"# => "-+- -+-";
}
