use std::time::{Duration, Instant};

use super::*;
use crate::model::testing::{service, view, workload};

const VIP: &str = "10.9.0.1";

fn names(domain: &str) -> Names {
    Names::new(Arc::from(domain), None)
}

/// A service of any host name in a namespace, with an address.
fn host(hostname: &str, namespace: &str) -> Service {
    let mut made = service("x", &[VIP]).in_namespace(namespace, Visibility::Public);
    made.key.hostname = Arc::from(hostname);
    made
}

fn without_address(mut service: Service) -> Service {
    service.vips.clear();
    service
}

fn from(namespace: &str) -> Asker<'_> {
    Asker {
        namespace: Some(namespace).filter(|ns| !ns.is_empty()),
        network: "",
    }
}

/// What is found: the service as `namespace/hostname`, and the name it is told under.
fn found(names: &Names, view: &View, asker: Asker<'_>, name: &str) -> String {
    let Some(named) = names.find(view, asker, name) else {
        return "nobody".to_owned();
    };
    let short = named.short.map(|short| format!(" as {short}"));
    format!("{}{}", named.service.key, short.unwrap_or_default())
}

#[test]
fn a_service_goes_by_all_its_names() {
    let cart = "shop/cart.shop.mesh.internal";
    let view = view(
        vec![],
        vec![
            host("cart.shop.mesh.internal", "shop"),
            host("cart.bank.mesh.internal", "bank"),
            host("www.google.com", "shop"),
            host("intranet", "shop"),
            host("old.shop.svc.mesh.internal", "shop"),
        ],
    );
    for (name, asker, want) in [
        ("cart", "shop", cart),
        ("cart", "bank", "bank/cart.bank.mesh.internal"),
        ("cart", "elsewhere", "nobody"),
        ("cart", "", "nobody"),
        ("cart.shop", "shop", cart),
        ("cart.shop", "bank", cart),
        ("cart.shop", "", cart),
        ("cart.shop.mesh.internal", "bank", cart),
        ("cart.shop.mesh.internal", "", cart),
        ("cart.shop.mesh", "shop", "nobody"),
        ("xcart.shop", "shop", "nobody"),
        ("cart.shop.mesh.internal.org", "shop", "nobody"),
        ("mesh.internal", "shop", "nobody"),
        ("", "shop", "nobody"),
        (".", "shop", "nobody"),
        ("..", "shop", "nobody"),
        ("www.google.com", "bank", "shop/www.google.com"),
        ("google.com", "bank", "nobody"),
        ("intranet", "bank", "shop/intranet"),
        // Names as clusters have them, where hosts have them.
        ("old", "shop", "shop/old.shop.svc.mesh.internal"),
        ("old.shop", "bank", "shop/old.shop.svc.mesh.internal"),
        ("old.shop.svc", "bank", "shop/old.shop.svc.mesh.internal"),
        ("cart.shop.svc", "bank", "nobody"),
    ] {
        let got = found(&names("mesh.internal"), &view, from(asker), name);
        assert_eq!(got, want, "{name:?} from {asker:?}");
    }
}

/// Vectors 60 and 61, and what Istio's tests have besides.
#[test]
fn a_name_is_found_without_what_resolvers_search_in() {
    let view = view(
        vec![],
        vec![
            host("productpage.ns1.svc.cluster.local", "ns1"),
            host("www.google.com", "ns1"),
            host("*.wildcard", "ns1"),
            host("example.com", "ns2"),
        ],
    );
    let page = "ns1/productpage.ns1.svc.cluster.local";
    for (name, want) in [
        ("productpage", page.to_owned()),
        ("productpage.ns1", page.to_owned()),
        ("productpage.ns1.svc", page.to_owned()),
        ("productpage.ns1.svc.cluster.local", page.to_owned()),
        (
            "productpage.ns1.svc.cluster.local.ns1.svc.cluster.local",
            format!("{page} as productpage.ns1.svc.cluster.local"),
        ),
        (
            "productpage.ns1.ns1.svc.cluster.local",
            format!("{page} as productpage.ns1"),
        ),
        (
            "www.google.com.ns1.svc.cluster.local",
            "ns1/www.google.com as www.google.com".to_owned(),
        ),
        (
            "www.google.com.svc.cluster.local",
            "ns1/www.google.com as www.google.com".to_owned(),
        ),
        (
            "www.google.com.cluster.local",
            "ns1/www.google.com as www.google.com".to_owned(),
        ),
        ("www.google.com.ns2.svc.cluster.local", "nobody".to_owned()),
        ("foo.wildcard", "ns1/*.wildcard".to_owned()),
        (
            "foo.wildcard.ns1.svc.cluster.local",
            "ns1/*.wildcard".to_owned(),
        ),
        ("www.example.com", "nobody".to_owned()),
    ] {
        let got = found(&names("cluster.local"), &view, from("ns1"), name);
        assert_eq!(got, want, "{name}");
    }
    let got = found(
        &names("mesh.internal"),
        &view,
        from("ns1"),
        "www.google.com.ns1.mesh.internal",
    );
    assert_eq!(got, "ns1/www.google.com as www.google.com");
}

#[test]
fn the_exact_name_comes_before_the_nearest_wildcard() {
    let view = view(
        vec![],
        vec![
            host("*.example.com", "a"),
            host("*.api.example.com", "b"),
            host("www.example.com", "c"),
            host("*.secret.com", "d"),
            host("cart.shop.mesh.internal", "shop"),
            without_address(host("*.nowhere.com", "e")),
        ],
    );
    for (name, want) in [
        ("www.example.com", "c/www.example.com"),
        ("x.example.com", "a/*.example.com"),
        ("x.y.example.com", "a/*.example.com"),
        ("x.api.example.com", "b/*.api.example.com"),
        ("api.example.com", "a/*.example.com"),
        ("example.com", "nobody"),
        ("com", "nobody"),
        ("x.nowhere.com", "nobody"),
        ("*.example.com", "a/*.example.com"),
    ] {
        let got = found(&names("mesh.internal"), &view, from("shop"), name);
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn of_several_services_the_askers_own_is_meant() {
    let of = |ns: &str| host("api.example", ns);
    let hidden = |ns: &str| service("x", &[VIP]).in_namespace(ns, Visibility::Namespace);
    let hidden = |ns: &str| {
        let mut made = hidden(ns);
        made.key.hostname = Arc::from("api.example");
        made
    };
    let preferring = |ns: &str| Names::new(Arc::from("mesh.internal"), Some(Arc::from(ns)));
    for (name, services, names, asker, want) in [
        ("nobody's", vec![], preferring("p"), "a", "nobody"),
        (
            "own before canonical",
            vec![of("b").canonical(), of("z")],
            preferring("p"),
            "z",
            "z/api.example",
        ),
        (
            "canonical before preferred",
            vec![of("a"), of("p"), of("z").canonical()],
            preferring("p"),
            "x",
            "z/api.example",
        ),
        (
            "preferred before the first",
            vec![of("a"), of("p")],
            preferring("p"),
            "x",
            "p/api.example",
        ),
        (
            "the first",
            vec![of("b"), of("a")],
            preferring("p"),
            "x",
            "a/api.example",
        ),
        ("hidden", vec![hidden("a")], preferring("a"), "x", "nobody"),
        (
            "hidden, from nowhere",
            vec![hidden("a")],
            preferring("a"),
            "",
            "nobody",
        ),
        (
            "hidden, from within",
            vec![hidden("a")],
            preferring("p"),
            "a",
            "a/api.example",
        ),
        (
            "past what is hidden",
            vec![hidden("a").canonical(), of("z")],
            preferring("p"),
            "x",
            "z/api.example",
        ),
        (
            "past what has no address",
            vec![without_address(of("x")), of("z")],
            preferring("p"),
            "x",
            "z/api.example",
        ),
        (
            "a host outside without an address",
            vec![without_address(of("x"))],
            preferring("p"),
            "x",
            "nobody",
        ),
    ] {
        for services in [services.clone(), services.into_iter().rev().collect()] {
            let view = view(vec![], services);
            let got = found(&names, &view, from(asker), "api.example");
            assert_eq!(got, want, "{name}");
        }
    }
}

/// Vectors 63, 64 and 65.
#[test]
fn addresses_are_of_the_family_and_the_network() {
    let of = |name: &str, addresses: &[&str]| workload(name, addresses).of("cart");
    let dual = || {
        vec![
            of("a", &["10.0.0.2", "fd00::2"]),
            of("b", &["fd00::3", "10.0.0.3", "10.0.0.4"]),
        ]
    };
    let vips = ["10.9.0.1", "fd09::1", "10.9.0.2"];
    let headless = || service("cart", &[]);
    for (name, workloads, service, v4, v6) in [
        (
            "its own",
            dual(),
            service("cart", &vips),
            &["10.9.0.1", "10.9.0.2"][..],
            &["fd09::1"][..],
        ),
        (
            "IPv4 alone",
            vec![],
            service("cart", &["10.9.0.1"]),
            &["10.9.0.1"],
            &[],
        ),
        (
            "IPv4 alone, by its own word",
            vec![],
            service("cart", &vips).families(IpFamilies::Ipv4Only),
            &["10.9.0.1", "10.9.0.2"],
            &[],
        ),
        (
            "IPv6 alone, by its own word",
            dual(),
            headless().families(IpFamilies::Ipv6Only),
            &[],
            &["fd00::2", "fd00::3"],
        ),
        (
            "both, by its own word",
            vec![],
            service("cart", &vips).families(IpFamilies::Dual),
            &["10.9.0.1", "10.9.0.2"],
            &["fd09::1"],
        ),
        (
            "another network's",
            vec![],
            service("cart", &vips).vips_on("remote"),
            &[],
            &[],
        ),
        (
            "one of each workload",
            dual(),
            headless(),
            &["10.0.0.2", "10.0.0.3"],
            &["fd00::2", "fd00::3"],
        ),
        (
            "of the healthy ones",
            vec![of("a", &["10.0.0.2"]).unhealthy(), of("b", &["10.0.0.3"])],
            headless(),
            &["10.0.0.3"],
            &[],
        ),
        (
            "of all, where none is",
            vec![of("a", &["10.0.0.2"]).unhealthy()],
            headless(),
            &["10.0.0.2"],
            &[],
        ),
        (
            "of none on another network",
            vec![of("a", &["10.0.0.2"]).on_network("remote")],
            headless(),
            &[],
            &[],
        ),
        ("no workloads", vec![], headless(), &[], &[]),
    ] {
        let view = view(workloads, vec![service]);
        let named = names("mesh.internal").find(&view, from("shop"), "cart");
        let service = named.expect(name).service;
        for (family, want) in [(Family::V4, v4), (Family::V6, v6)] {
            let want: Vec<IpAddr> = want.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(addresses(&view, service, "", family), want, "{name}");
        }
    }
}

#[test]
fn the_domain_is_told_from_what_ends_like_it() {
    for (name, want) in [
        ("mesh.internal", true),
        ("shop.mesh.internal", true),
        ("cart.shop.mesh.internal", true),
        ("xmesh.internal", false),
        ("internal", false),
        ("mesh.internal.org", false),
        ("", false),
    ] {
        assert_eq!(names("mesh.internal").owns(name), want, "{name}");
    }
    for (name, want) in [
        ("mesh.internal", true),
        ("shop.mesh.internal", true),
        ("svc.mesh.internal", true),
        ("shop.svc.mesh.internal", true),
        ("cart.shop.mesh.internal", false),
        ("cart.shop.svc.mesh.internal", false),
        ("internal", false),
        ("shop.example", false),
    ] {
        assert_eq!(names("mesh.internal").is_above(name), want, "{name}");
    }
}

#[test]
fn a_name_costs_the_same_among_ten_thousand_services() {
    let of = |number: usize| host(&format!("s{number}.shop.mesh.internal"), "shop");
    let mut services: Vec<Service> = (0..10_000).map(of).collect();
    services.push(host("*.example.com", "shop"));
    let view = view(vec![], services);
    let names = names("mesh.internal");
    let begun = Instant::now();
    for number in 0..1000 {
        let asked = format!("s{}", number * 10);
        assert!(names.find(&view, from("shop"), &asked).is_some(), "{asked}");
        let outside = format!("www{number}.a.b.c.d.example.org");
        assert!(names.find(&view, from("shop"), &outside).is_none());
    }
    // A walk through all of them would take seconds in a debug build.
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
}
