//! Vectors 17 to 39 and 52 of `spec/labels-and-policy.md` §7, and their kin of §3.1 to §3.9. Of
//! those behind a waypoint this is what the node sees: the waypoint's identity.

use super::shorthand::{Asked, Judge, mesh};
use crate::model::compile::policies::survey;
use crate::model::compile::sample;
use crate::model::declaration::{CanaryWeight, Mesh, WaypointFor};
use crate::model::waypoint::Resolution;

/// `REQUEST => VERDICT; REQUEST => VERDICT` of a mesh.
fn check(name: &str, mesh: Mesh, expected: &str) {
    let judge = Judge::new(mesh);
    for case in expected.split(';') {
        let (asked, want) = case.split_once("=>").unwrap();
        let verdict = judge.verdict(&Asked::read(asked));
        assert_eq!(verdict, want.trim(), "{name}: {asked}");
    }
}

fn table(rows: &[(&str, &[&str], &str)]) {
    for (name, policies, expected) in rows {
        check(name, mesh(policies), expected);
    }
}

#[test]
#[rustfmt::skip]
fn vectors() {
    table(&[
        ("17 no rules", &["ALLOW"], "X => unallowed; - => unallowed"),
        ("17 empty rule", &["ALLOW; *"], "X => in; - => in"),
        ("18 anybody", &["DENY; from principal=*"], "X => shop/p; - => in"),
        ("18 nobody", &["DENY; from !principal=*"], "X => in; - => shop/p"),
        ("19 not evil", &["ALLOW; from !ns=evil"], "- => in; evil/a => unallowed"),
        ("19 any namespace", &["ALLOW; from ns=*"], "- => unallowed; X => in"),
        ("20", &["ALLOW; from principal=spiffe://cluster.local/ns/shop/sa/web"], "X => unallowed"),
        ("21 suffix", &["ALLOW; from principal=*/sa/web"], "X => in; shop/web2 => unallowed"),
        ("21 prefix", &["ALLOW; from principal=cluster.local/ns/shop/*"], "X => in; shop2/web => unallowed"),
        ("21 exact", &["ALLOW; from principal=cluster.local/ns/shop/sa/we"], "X => unallowed"),
        ("22 account", &["ALLOW; from sa=web"], "X => in; infra/web => unallowed"),
        ("22 account of root", &["ALLOW ns=istio-system; from sa=web"],
            "X => unallowed; istio-system/web => in"),
        ("22 deny first", &["DENY name=d; from sa=web", "ALLOW name=a; from sa=web"],
            "X => shop/d; WP => unallowed"),
        ("23", &["ALLOW; from ns=a from ns=b to port=8080"],
            "b/x port 8080 => in; a/x port 8080 => in; b/x port 9090 => unallowed; c/x port 8080 => unallowed"),
        ("24", &["ALLOW; to port=80"], "X port 8080 => unallowed"),
        ("25 http only", &["ALLOW; to method=GET"], "X => unallowed"),
        ("25 a rule without http", &["ALLOW; to method=GET; from sa=web"], "X => in; shop/other => unallowed"),
        ("26", &["DENY; to method=GET"], "X => in"),
        ("27", &["DENY; from sa=web !jwt=j"], "X => shop/p; WP => in"),
        ("28 to", &["DENY; from sa=web to method=GET"], "X => in"),
        ("28 header", &["DENY; from sa=web when request.headers[a]=b"], "X => in"),
        ("28 sni", &["DENY; when source.namespace=shop when connection.sni=a"], "X => in"),
        ("29", &["DENY; to method=GET to port=8080"], "X port 8080 => shop/p; X port 9090 => in"),
        ("30 audit", &["AUDIT app=cart; *"], "X => in"),
        ("30 custom", &["CUSTOM app=cart; *"], "X => in"),
        ("31", &["DENY dry name=d; from sa=web", "ALLOW dry name=a; from sa=other"], "X => in"),
        ("32", &["ALLOW ns=istio-system app=cart"],
            "X => unallowed; X on web-1 => in; - => unallowed; X on cart-2 => unallowed"),
        ("33", &["ALLOW app=cart; from principal=cluster.local/ns/shop/sa/wp"],
            "WP => in; X => unallowed; - => unallowed"),
        ("34", &["ALLOW app=cart; from sa=web"], "WP => unallowed; X => in"),
        ("35 workload over namespace", &["STRICT", "PERMISSIVE app=cart name=w"],
            "- => in; - on web-1 => istio-system/istio_converted_static_strict"),
        ("35 selector in root", &["STRICT ns=istio-system app=cart"], "- => in; - on root-1 => in"),
        ("36", &["STRICT ns=istio-system", "UNSET app=cart 9090=PERMISSIVE"],
            "- port 9090 => in; - port 8080 => shop/converted_peer_authentication_p; X port 8080 => in"),
        ("37 oldest", &["PERMISSIVE app=cart name=b", "STRICT app=cart name=a"], "- => in"),
        ("37 no allow overrides", &["STRICT app=cart", "ALLOW; *"],
            "- => istio-system/istio_converted_static_strict; X => in"),
        ("39 before", &[], "X => in; shop/y => in; - => in"),
        ("39 denied since", &["DENY; from sa=web"], "X => shop/p; shop/y => in"),
        ("39 strict since", &["STRICT"], "- => istio-system/istio_converted_static_strict; X => in"),
    ]);
}

/// §3.9, vector 52.
#[test]
#[rustfmt::skip]
fn trust_domains() {
    let of = |aliases: &[&str], policies: &[&str]| {
        let mut mesh = mesh(policies);
        mesh.settings.trust_domain = "td1".parse().unwrap();
        mesh.settings.trust_domain_aliases = aliases.iter().map(|a| a.parse().unwrap()).collect();
        mesh
    };
    let one = "td1/a/b => in; td2/a/b => unallowed";
    let whole = "td1/a/b => in; td2/a/b => in; - => unallowed";
    let none = "td1/a/b => unallowed; td2/a/b => unallowed";
    for (name, aliases, policy, expected) in [
        ("52 alias", &["td2"][..], "ALLOW; from principal=td2/ns/a/sa/b", whole),
        ("52 default", &["td2"], "ALLOW; from principal=cluster.local/ns/a/sa/b", whole),
        ("52 unknown", &["td2"], "ALLOW; from principal=td9/ns/a/sa/b", none),
        ("own name", &["td2"], "ALLOW; from principal=td1/ns/a/sa/b", whole),
        ("default without alias", &[], "ALLOW; from principal=cluster.local/ns/a/sa/b", one),
        ("four parts stay", &["td2"], "ALLOW; from principal=td1/ns/a/*", one),
        ("four parts of the default stay", &["td2"], "ALLOW; from principal=cluster.local/ns/a/*", none),
        ("five with a star at the end", &["td2"], "ALLOW; from principal=td1/ns/a/sa/*", whole),
        ("any trust domain", &["td2"], "ALLOW; from principal=*/ns/a/sa/b", whole),
        ("suffix that fits one", &["td2"], "ALLOW; from principal=*d1/ns/a/sa/b", whole),
        ("suffix that fits all", &["td-1"], "ALLOW; from principal=*1/ns/a/sa/b",
            "td1/a/b => in; td-1/a/b => in"),
        ("suffix that fits none", &["td2"], "ALLOW; from principal=*9/ns/a/sa/b", none),
        ("condition", &["td2"], "ALLOW; when source.principal=cluster.local/ns/a/sa/b", whole),
        ("not a principal", &["td2"], "DENY; from ns=a !principal=td1/ns/a/sa/b",
            "td2/a/b => in; td2/a/c => shop/p"),
        ("trust domain", &["td2"], "ALLOW; from td=td2", whole),
        ("trust domain of nobody", &["td2"], "ALLOW; from td=td9", none),
        ("the default is none", &["td2"], "ALLOW; from td=cluster.local", none),
        ("trust domain by prefix", &["td2"], "ALLOW; from td=td*", whole),
        ("by suffix, as written", &["td2"], "ALLOW; from td=*1", one),
        ("any", &["td2"], "ALLOW; from td=*", whole),
        ("not any", &["td2"], "ALLOW; from !td=*", "td1/a/b => unallowed; - => in"),
        ("not one is not all", &["td2"], "ALLOW; from !td=td1",
            "td1/a/b => unallowed; td2/a/b => unallowed; - => in"),
        ("not by suffix", &["td2"], "ALLOW; from !td=*1", "td1/a/b => unallowed; td2/a/b => in; - => in"),
        ("with a principal", &["td2"], "ALLOW; from td=*1 principal=*/sa/b",
            "td1/a/b => in; td1/a/c => unallowed; td2/a/b => unallowed; - => unallowed"),
        ("with several of both", &["td2"], "ALLOW; from td=*1,*2 principal=*/sa/b,td1/ns/a/*",
            "td1/a/b => in; td2/a/b => in; td1/a/c => in; td2/a/c => unallowed"),
        ("with a principal of another", &["td2"], "ALLOW; from td=*1 principal=td9/ns/a/sa/b", none),
        ("and not a principal", &["td2"], "ALLOW; from td=*1 !principal=*/sa/b",
            "td1/a/c => in; td1/a/b => unallowed; td2/a/c => unallowed"),
        ("not, and a principal", &["td2"], "ALLOW; from !td=*1 principal=*/sa/b",
            "td2/a/b => in; td1/a/b => unallowed; td2/a/c => unallowed; - => unallowed"),
        ("yes and no", &["td2"], "ALLOW; from td=td* !td=*2", one),
        ("with a namespace", &["td2"], "ALLOW; from td=*1 ns=a",
            "td1/a/b => in; td1/c/b => unallowed; td2/a/b => unallowed"),
        ("condition on trust domain", &["td2"], "ALLOW; when source.trustDomain=td2", whole),
        ("condition, not", &["td2"], "ALLOW; when !source.trustDomain=*2",
            "td1/a/b => in; td2/a/b => unallowed; - => in"),
    ] {
        check(name, of(aliases, &[policy]), expected);
    }
}

/// §3.1 and §3.2: what each field is compared with, and how.
#[test]
#[rustfmt::skip]
fn fields() {
    table(&[
        ("principals match case", &["ALLOW; from principal=cluster.local/ns/shop/sa/WEB"], "X => unallowed"),
        ("principals one of", &["ALLOW; from principal=*/sa/a,*/sa/web"], "X => in; shop/b => unallowed"),
        ("principals any", &["ALLOW; from principal=*"], "X => in; - => unallowed; node => unallowed"),
        ("not-principals", &["ALLOW; from !principal=*/sa/web"],
            "X => unallowed; WP => in; - => in; node => in"),
        ("namespaces exact", &["ALLOW; from ns=shop"], "X => in; shop2/web => unallowed; sho/web => unallowed"),
        ("namespaces prefix", &["ALLOW; from ns=sh*"],
            "X => in; sh/web => in; s/web => unallowed; - => unallowed"),
        ("namespaces suffix", &["ALLOW; from ns=*op"], "X => in; op/web => in; p/web => unallowed"),
        ("of the identity, not the address", &["ALLOW; from ns=infra"],
            "X from 10.1.0.21 => unallowed; infra/a from 10.1.0.12 => in"),
        ("not-namespaces any", &["ALLOW; from !ns=*"], "X => unallowed; - => in"),
        ("accounts", &["ALLOW; from sa=infra/db,web"],
            "X => in; infra/db => in; shop/db => unallowed; infra/web => unallowed; - => unallowed"),
        ("accounts of any trust domain", &["ALLOW; from sa=web"], "other/shop/web => in"),
        ("accounts are exact", &["ALLOW; from sa=we"], "X => unallowed"),
        ("not-service-accounts", &["ALLOW; from !sa=web"], "X => unallowed; infra/web => in; - => in"),
        ("an address", &["ALLOW; from ip=10.1.0.12"], "- from 10.1.0.12 => in; - from 10.1.0.13 => unallowed"),
        ("a network", &["ALLOW; from ip=10.1.0.0/24"], "- from 10.1.0.255 => in; - from 10.1.1.0 => unallowed"),
        ("a network with host bits", &["ALLOW; from ip=10.1.0.77/24"],
            "- from 10.1.0.1 => in; - from 10.1.1.77 => unallowed"),
        ("all of one family", &["ALLOW; from ip=0.0.0.0/0"],
            "- from 10.1.0.1 => in; - from 2001:db8::1 => unallowed"),
        ("all of the other", &["ALLOW; from ip=::/0"],
            "- from 2001:db8::1 => in; - from 10.1.0.1 => unallowed"),
        ("a network of IPv6", &["ALLOW; from ip=2001:db8::/33"],
            "- from 2001:db8:7fff::1 => in; - from 2001:db8:8000::1 => unallowed"),
        ("IPv4 in IPv6", &["ALLOW; from ip=10.1.0.0/24"],
            "- from ::ffff:10.1.0.12 => in; - from ::ffff:10.2.0.12 => unallowed"),
        ("not-ip-blocks", &["ALLOW; from !ip=10.1.0.0/24,10.2.0.1"],
            "- from 10.1.0.9 => unallowed; - from 10.2.0.1 => unallowed; - from 10.2.0.2 => in"),
        ("a network but one", &["ALLOW; from ip=10.0.0.0/8 !ip=10.1.0.0/16"],
            "- from 10.2.0.1 => in; - from 10.1.0.1 => unallowed; - from 11.0.0.1 => unallowed"),
        ("ports", &["ALLOW; to port=8080,9090"], "X port 9090 => in; X port 80 => unallowed"),
        ("the ends of ports", &["ALLOW; to port=0,65535"], "X port 65535 => in; X port 1 => unallowed"),
        ("not-ports", &["DENY; to !port=8080,9090"], "X port 8080 => in; X port 80 => shop/p"),
        ("source.ip", &["ALLOW; when source.ip=10.0.0.0/8 !source.ip=10.1.0.12"],
            "- from 10.1.0.13 => in; - from 10.1.0.12 => unallowed; - from 192.0.2.1 => unallowed"),
        ("source.namespace", &["ALLOW; when source.namespace=shop"],
            "X => in; infra/web => unallowed; - => unallowed"),
        ("not source.namespace", &["ALLOW; when !source.namespace=shop"],
            "X => unallowed; infra/web => in; - => in"),
        ("source.principal", &["ALLOW; when source.principal=*/sa/web"],
            "X => in; WP => unallowed; - => unallowed"),
        ("not source.principal", &["ALLOW; when !source.principal=*"], "X => unallowed; - => in"),
        ("source.serviceAccount", &["ALLOW; when source.serviceAccount=web"],
            "X => in; infra/web => unallowed"),
        ("not source.serviceAccount", &["ALLOW; when !source.serviceAccount=web"], "X => unallowed; - => in"),
        ("destination.ip", &["ALLOW; when destination.ip=10.1.0.11"], "X => in; X on web-1 => unallowed"),
        ("not destination.ip", &["ALLOW; when !destination.ip=10.1.0.8/30"],
            "X => unallowed; X on web-1 => in"),
        ("destination.port", &["ALLOW; when destination.port=8080,9090 !destination.port=9090"],
            "X port 8080 => in; X port 9090 => unallowed; X port 80 => unallowed"),
    ]);
}

/// §2.3 and §3.1: which policies hold, and how rules, sources, operations and conditions combine.
#[test]
#[rustfmt::skip]
fn combinations() {
    table(&[
        ("rules are alternatives", &["ALLOW; from sa=web; to port=9090"],
            "X => in; WP port 9090 => in; WP => unallowed"),
        ("from, to and when all hold", &["ALLOW; from sa=web to port=8080 when source.ip=10.1.0.12"],
            "X => in; WP => unallowed; X port 9090 => unallowed; X from 10.1.0.13 => unallowed"),
        ("sources are alternatives", &["DENY; from sa=web from ip=10.2.0.1"],
            "X => shop/p; - from 10.2.0.1 => shop/p; WP => in"),
        ("fields of a source all hold", &["DENY; from sa=web ip=10.2.0.1"],
            "X => in; WP from 10.2.0.1 => in; X from 10.2.0.1 => shop/p"),
        ("operations are alternatives", &["DENY; to port=8080 to port=9090"],
            "X => shop/p; X port 9090 => shop/p; X port 80 => in"),
        ("conditions all hold", &["DENY; when source.namespace=shop when destination.port=8080"],
            "X => shop/p; X port 9090 => in; infra/a => in"),
        ("two conditions on one key", &["DENY; when source.namespace=s* when source.namespace=*p"],
            "X => shop/p; shops/a => in; nap/a => in"),
        ("empty rule denies all", &["DENY; *"], "X => shop/p; - => shop/p"),
        ("deny without rules never", &["DENY"], "X => in; - => in"),
        ("allows are alternatives", &["ALLOW name=a; from sa=web", "ALLOW name=b; to port=9090"],
            "X => in; WP port 9090 => in; WP => unallowed"),
        ("denies too; the smallest key is named", &["DENY name=c; *", "DENY name=b; *", "DENY name=d; *"],
            "X => shop/b"),
        ("namespace-wide", &["ALLOW"],
            "X => unallowed; X on web-1 => unallowed; X on cart-2 => in; X on root-1 => in"),
        ("mesh-wide", &["DENY ns=istio-system; *"],
            "X => istio-system/p; X on web-1 => istio-system/p; X on cart-2 => istio-system/p; X on root-1 => istio-system/p"),
        ("selector", &["DENY app=cart; *"], "X => shop/p; X on web-1 => in; X on cart-2 => in"),
        ("selector in root", &["DENY ns=istio-system app=cart; *"],
            "X on cart-2 => istio-system/p; X on root-1 => istio-system/p; X on web-1 => in"),
        ("all pairs", &["DENY app=cart version=v1; *"], "X => in"),
        ("waypoint's", &["DENY target=cart; *", "ALLOW target=cart name=a"], "X => in"),
        ("http only counts as an allow", &["ALLOW app=cart; to host=a", "ALLOW name=b; to port=9090"],
            "X => unallowed; X port 9090 => in; X on web-1 => unallowed"),
        ("rehearsed allow does not count", &["ALLOW dry", "ALLOW name=b app=web"],
            "X => in; X on web-1 => unallowed"),
        ("rehearsed deny neither", &["DENY dry; *"], "X => in"),
    ]);
}

#[test]
#[rustfmt::skip]
fn rehearsals() {
    let web = "DENY dry name=d; from sa=web";
    for (name, policies, asked, want) in [
        ("31", &[web, "ALLOW dry name=a; from sa=other"][..], "X", &["deny shop/d", "unallowed shop/a"][..]),
        ("no match", &[web], "WP", &[]),
        ("would allow", &["ALLOW dry name=a; from sa=web"], "X", &["allow shop/a"]),
        ("a real allow is there", &["ALLOW dry name=a", "ALLOW name=b; *"], "X", &[]),
        ("and it does not match either", &["ALLOW dry name=a", "ALLOW name=b"], "X", &[]),
        ("one of two", &["ALLOW dry name=a", "ALLOW dry name=b; *"], "X", &["allow shop/b"]),
        ("first of two", &["ALLOW dry name=b", "ALLOW dry name=a"], "X", &["unallowed shop/a"]),
        ("enforced is not rehearsed", &["DENY; *"], "X", &[]),
        ("of a selector", &["DENY dry app=web; *"], "X", &[]),
        ("of the mesh", &["DENY dry ns=istio-system; *"], "X", &["deny istio-system/p"]),
    ] {
        let judge = Judge::new(mesh(policies));
        assert_eq!(judge.rehearsal(&Asked::read(asked)), want, "{name}");
    }
}

/// Vector 38 and its kin: who may come where only waypoints may (§3.8).
#[test]
fn waypoints_alone_where_the_mesh_says_so() {
    let through = |policies: &[&str], labels: &[&str]| {
        let mut mesh = mesh(policies);
        mesh.settings.auto_allow_waypoint = true;
        mesh.gateways = ["wp", "all"]
            .map(|name| sample::gateway(name, WaypointFor::All))
            .to_vec();
        for label in labels {
            let (whose, waypoint) = label.split_once('=').unwrap();
            let shop = mesh.namespaces.get_mut("shop").unwrap();
            match whose {
                "shop" => shop.use_waypoint = sample::using(waypoint),
                "canary" => mesh.services[0].canary.waypoint = sample::using(waypoint),
                _ => mesh.services[0].use_waypoint = sample::using(waypoint),
            }
        }
        mesh.services[0].canary.weight = Some(CanaryWeight::Percent(20));
        mesh
    };
    let by_entry = |selector: &str, waypoint: &str| {
        let mut mesh = through(&[], &[]);
        let hosts = ["a.example", "b.example"];
        let mut entry = sample::outside::entry("ext", &hosts, Resolution::Static);
        entry.selector = sample::labels(&[("app", selector)]);
        entry.use_waypoint = sample::using(waypoint);
        mesh.service_entries = vec![entry];
        mesh
    };
    let only_x = "ALLOW app=cart; from sa=web";
    for (name, policies, labels, expected) in [
        (
            "38",
            &[][..],
            &["cart=wp"][..],
            "WP => in; X => unallowed; - => unallowed; X on web-1 => in",
        ),
        (
            "38 and X",
            &[only_x],
            &["cart=wp"],
            "WP => in; X => in; shop/other => unallowed",
        ),
        (
            "another waypoint",
            &[],
            &["cart=wp"],
            "shop/all => unallowed",
        ),
        (
            "a canary",
            &[],
            &["cart=wp", "canary=all"],
            "WP => in; shop/all => in; X => unallowed",
        ),
        (
            "of all workloads",
            &[],
            &["shop=wp"],
            "WP on web-1 => in; X on web-1 => unallowed",
        ),
        ("not bound", &[], &["cart=none"], "X => in; - => in"),
        (
            "denied all the same",
            &["DENY name=d; from sa=wp"],
            &["cart=wp"],
            "WP => shop/d",
        ),
    ] {
        check(name, through(policies, labels), expected);
    }
    let selected = by_entry("cart", "wp");
    let surveyed = survey(&selected);
    let counted: Vec<_> = surveyed.iter().map(|s| s.workloads).collect();
    assert_eq!(counted, [0, 1], "of a service entry");
    let in_wp = "WP => in; X => unallowed; - => unallowed; X on web-1 => in";
    check("of a service entry", selected, in_wp);
    check("of none's", by_entry("cart", "none"), "X => in");
    check("of another's", by_entry("web", "wp"), "X => in");
    let mesh = through(&[], &["shop=wp", "canary=all"]);
    let judge = Judge::new(mesh.clone());
    let listed = &judge.workload("cart-1").authorization_policies;
    let keys = [
        "shop/istio_allow_waypoint_shop_all",
        "shop/istio_allow_waypoint_shop_wp",
    ];
    assert_eq!(
        listed.iter().map(|k| &**k).collect::<Vec<_>>(),
        keys,
        "each once, in order"
    );
    let surveyed = survey(&mesh);
    let counted: Vec<_> = surveyed.iter().map(|s| (&*s.key, s.workloads)).collect();
    assert_eq!(counted, [(keys[0], 1), (keys[1], 2)]);
    let mut off = mesh;
    off.settings.auto_allow_waypoint = false;
    check("off", off, "X => in");
}
