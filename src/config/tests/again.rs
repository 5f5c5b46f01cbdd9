//! A directory that is read again after an edit says what it would say to who never saw it before.

use proptest::prelude::*;

use std::path::Path;

use super::*;
use crate::config::Loader;

const NODES: [&str; 3] = [
    "[[node]]\nname = \"edge-1\"\naddresses = [\"192.0.2.1\"]\n",
    "[[node]]\nname = \"edge-1\"\nlocality = \"eu/rack-1\"\nnetwork = \"far\"\n",
    "[mesh]\nnetwork = \"near\"\n[[node]]\nname = \"edge-1\"\nproxy = \"ztunnel\"\n",
];
const SHOP: [&str; 3] = [
    "[[namespace]]\nname = \"shop\"\ndataplane-mode = \"ambient\"\n",
    "[[namespace]]\nname = \"shop\"\nservice-accounts = [\"web\"]\n",
    "[[namespace]]\nname = \"store\"\n",
];
const CART: [&str; 5] = [
    "default-namespace = \"shop\"\n[[workload]]\nname = \"cart-1\"\nnode = \"edge-1\"\n\
     addresses = [\"10.1.0.1\"]\ncapture = { netns = \"cart\" }\nlabels = { app = \"cart\" }\n",
    "default-namespace = \"shop\"\n\n[[workload]]\nname = \"cart-1\"\nnode = \"edge-1\"\n\
     addresses = [\"192.0.2.1\"]\nlocality = \"us\"\ncapacity = 3\n",
    "[[workload]]\nname = \"cart-1\"\naddresses = []\n",
    "[[workload]\nname = \"cart-1\"\n",
    "default-namespace = \"shop\"\n[[service]]\nname = \"cart\"\nports = [{ port = 80 }]\n\
     selector = { app = \"cart\" }\n[[workload]]\nname = \"web-1\"\nnode = \"edge-2\"\n\
     addresses = [\"10.1.0.1\"]\nnonsense = 1\n",
];

/// What is said of workloads elsewhere, and of waypoints.
const AROUND: [&str; 4] = [
    "[[authorization-policy]]\nname = \"p\"\nnamespace = \"shop\"\nrules = []\n\
     selector = { match-labels = { app = \"cart\" } }\n",
    "[[authorization-policy]]\nname = \"p\"\nnamespace = \"shop\"\nrules = []\n\
     [[peer-authentication]]\nname = \"q\"\nnamespace = \"shop\"\nmtls.mode = \"STRICT\"\n\
     selector = { match-labels = { app = \"cart\" } }\n\
     [[peer-authentication]]\nname = \"r\"\nnamespace = \"shop\"\nmtls.mode = \"DISABLE\"\n\
     selector = { match-labels = { app = \"cart\" } }\n",
    "[[namespace]]\nname = \"shop\"\nuse-waypoint = \"wp\"\n",
    "[[gateway]]\nname = \"wp\"\nnamespace = \"shop\"\nclass = \"waypoint\"\nnode = \"edge-1\"\n\
     [[namespace]]\nname = \"shop\"\nuse-waypoint = \"wp\"\n",
];

/// Which file gets which text; none takes it away.
#[derive(Clone, Debug)]
struct Edit(&'static str, Option<&'static str>);

fn edit() -> impl Strategy<Value = Edit> {
    let texts: Vec<_> = [&NODES[..], &SHOP, &CART, &AROUND].concat();
    let own = [
        ("a.toml", &NODES[..]),
        ("b.toml", &SHOP),
        ("c.toml", &CART),
        ("sub/d.toml", &CART),
        ("sub/e.toml", &AROUND),
    ];
    let own = own.map(|(name, texts)| texts.iter().map(move |text| (name, *text)));
    let own: Vec<_> = own.into_iter().flatten().collect();
    let names = ["a.toml", "b.toml", "c.toml", "sub/d.toml", "sub/e.toml"];
    prop_oneof![
        6 => prop::sample::select(own).prop_map(|(name, text)| Edit(name, Some(text))),
        1 => (prop::sample::select(names.to_vec()), prop::sample::select(texts))
            .prop_map(|(name, text)| Edit(name, Some(text))),
        1 => prop::sample::select(names.to_vec()).prop_map(|name| Edit(name, None)),
    ]
}

fn carry_out(dir: &Path, Edit(name, text): &Edit) {
    let path = dir.join(name);
    match text {
        Some(text) => {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        None => drop(fs::remove_file(path)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_remembered_that_no_longer_holds(edits in prop::collection::vec(edit(), 1..12)) {
        let dir = tempfile::tempdir().unwrap();
        let mut loader = Loader::new(dir.path());
        for edit in &edits {
            carry_out(dir.path(), edit);
            let (again, fresh) = (loader.load(), load(dir.path()));
            prop_assert_eq!(again.report.to_json(), fresh.report.to_json(), "{:?}", edit);
            prop_assert_eq!(again.mesh, fresh.mesh, "{:?}", edit);
            prop_assert_eq!(again.files, fresh.files);
        }
    }
}

#[test]
fn only_what_was_edited_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let other = CART[0]
        .replace("cart", "web")
        .replace("10.1.0.1", "10.1.0.2");
    for (name, text) in [
        ("a.toml", NODES[0]),
        ("b.toml", SHOP[0]),
        ("c.toml", CART[0]),
        ("d.toml", &other),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let mut loader = Loader::new(dir.path());
    let mut ids = || {
        let loaded = loader.load();
        let mesh = loaded.mesh.unwrap_or_else(|| panic!("{}", loaded.report));
        let ids: Vec<_> = mesh.workloads.iter().map(|w| w.id()).collect();
        // Held, or another could get the same place.
        (loaded.parsed, <[usize; 2]>::try_from(ids).unwrap(), mesh)
    };
    let (all, first, _held) = ids();
    let (none, same, _held) = ids();
    assert_eq!((none, same), (0, first));
    let edited = other.clone() + "capacity = 2\n";
    fs::write(dir.path().join("d.toml"), &edited).unwrap();
    let (parsed, [cart, web], _held) = ids();
    assert!(all > parsed && parsed == edited.len());
    assert_eq!(cart, first[0]);
    assert_ne!(web, first[1]);
    // What a workload has from its node is its own.
    fs::write(dir.path().join("a.toml"), NODES[1]).unwrap();
    let (_, moved, mesh) = ids();
    assert_ne!(moved[0], cart);
    assert_eq!(&*mesh.workloads[0].network, "far");
}
