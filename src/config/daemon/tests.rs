use super::*;

fn parse(text: &str) -> Result<Config, Report> {
    Config::parse("lateen.toml", text.to_owned(), "edge-1")
}

#[test]
fn an_empty_file_gives_every_default() {
    let config = parse("").unwrap();
    assert_eq!(&**config.node(), "edge-1");
    assert!(config.roles().is_empty());
    assert_eq!(config.state_dir(), Path::new("/var/lib/lateen"));
    assert_eq!(config.runtime_dir(), Path::new("/run/lateen"));
    assert_eq!(config.user(), &ProxyUser::Name(Arc::from("lateen")));
    assert_eq!(config.keeper_user(), None);
    assert_eq!(config.workers(), None);
    assert!(config.busy_poll());
    assert_eq!(config.drain_deadline(), Duration::from_secs(5));
    assert_eq!(config.transport(), Transport::Auto);
    assert!(!config.roaming());
    assert_eq!(
        (config.log_level(), config.log_format()),
        (LogLevel::Info, LogFormat::Text)
    );
    let Listeners {
        metrics,
        readiness,
        dns,
    } = config.listeners();
    let listeners = [*metrics, *readiness, dns.unwrap()].map(|a| a.to_string());
    assert_eq!(listeners, ["[::]:15020", "[::]:15021", "127.0.0.1:15053"]);
    let dns = config.dns();
    assert!(dns.capture() && dns.preferred_namespace().is_none());
    assert_eq!(
        (&**dns.domain(), dns.host()),
        ("cluster.local", HostNames::Off)
    );
    let control = config.control();
    assert!(control.addresses().is_empty() && control.names().is_empty());
    assert_eq!(&**control.name(), "edge-1");
    assert_eq!(control.listen().to_string(), "[::]:15012");
    assert_eq!(control.mesh_dir(), Path::new("/etc/lateen/mesh"));
    assert_eq!(control.join_token_file(), None);
    assert!(control.bearer().is_none() && config.captures().is_empty());
}

#[test]
fn a_control_plane_of_others_needs_a_token_and_roots() {
    let config = parse(
        r#"
        [control]
        addresses = ["https://istiod.example:15012"]
        token-file = "/srv/token"
        root-file = "/srv/root.pem"
        server-name = "istiod.istio-system.svc"
        cluster-id = "east"
        [[capture]]
        namespace = "shop"
        name = "cart-1"
        capture = { netns = "cart" }
        [[capture]]
        namespace = "shop"
        name = "cart-2"
        capture = { netns = "cart" }
        "#,
    )
    .unwrap();
    let bearer = config.control().bearer().unwrap();
    assert_eq!(bearer.token_file(), Path::new("/srv/token"));
    assert_eq!(bearer.root_file(), Path::new("/srv/root.pem"));
    let name = bearer.server_name().map(|name| &**name);
    assert_eq!(name, Some("istiod.istio-system.svc"));
    assert_eq!(&**bearer.cluster_id(), "east");
    let names: Vec<_> = config.captures().iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["cart-1", "cart-2"]);
    let text = "[control]\naddresses = [\"https://c\"]\ntoken-file = \"/t\"\nroot-file = \"/r\"\n";
    let config = parse(text).unwrap();
    let bearer = config.control().bearer().unwrap();
    assert_eq!(
        (bearer.server_name(), &**bearer.cluster_id()),
        (None, "Kubernetes")
    );
}

#[test]
fn capture_is_a_table_of_settings_or_of_workloads_or_both() {
    let guest = "[control]\naddresses = [\"https://c\"]\ntoken-file = \"/t\"\nroot-file = \"/r\"\n";
    let settings = "[capture]\nexclude-ports = [22, 9100]\nexclude-cidrs = [\"10.0.0.0/8\", \"fd00::/8\"]\n\
        exclude-users = [\"backup\", 33]\nprobe-sources = [\"192.0.2.7/32\"]\nstrict = true\n";
    let workload =
        "[[capture.workload]]\nnamespace = \"shop\"\nname = \"a\"\ncapture = { user = 1001 }\n";
    let config = parse(&[guest, settings, workload].concat()).unwrap();
    assert_eq!(config.captures().len(), 1);
    assert_eq!(
        *config.capture(),
        CaptureSettings {
            exclude_ports: Some([22, 9100].into()),
            exclude_cidrs: ["10.0.0.0/8", "fd00::/8"]
                .map(|r| r.parse().unwrap())
                .into(),
            exclude_users: vec![ProxyUser::Name(Arc::from("backup")), ProxyUser::Id(33)],
            probe_sources: ["192.0.2.7/32".parse().unwrap()].into(),
            strict: true,
        }
    );
    let config = parse("[capture]\nexclude-ports = []\n").unwrap();
    assert_eq!(config.capture().exclude_ports, Some([].into()));
    assert_eq!(*parse("").unwrap().capture(), CaptureSettings::default());
}

#[test]
fn every_key_is_taken() {
    let config = parse(
        r#"
        node = "n"
        roles = ["control", "node"]
        state-dir = "/srv/state"
        runtime-dir = "/srv/run"
        user = 990
        keeper-user = "keeper"
        workers = 3
        busy-poll = false
        session-key-file = "/srv/key"
        drain-deadline = "1m"
        transport = "tcp"
        roaming = true
        [log]
        level = "debug"
        format = "json"
        [listen]
        metrics = "0.0.0.0:2"
        readiness = "127.0.0.1:3"
        dns = "[::1]:53"
        [dns]
        capture = false
        preferred-namespace = "shop"
        host = "resolved"
        [control]
        addresses = ["https://control.example", "https://[2001:db8::1]:1512/"]
        name = "c"
        names = ["control.example", "2001:DB8::1"]
        listen = "192.0.2.1:15012"
        mesh-dir = "/srv/mesh"
        join-token-file = "/srv/token"
        "#,
    )
    .unwrap();
    assert_eq!(&**config.node(), "n");
    assert_eq!(config.roles(), &BTreeSet::from([Role::Control, Role::Node]));
    assert_eq!(config.user(), &ProxyUser::Id(990));
    let keeper = ProxyUser::Name(Arc::from("keeper"));
    assert_eq!(config.keeper_user(), Some(&keeper));
    assert_eq!(config.workers(), Some(3));
    assert!(!config.busy_poll());
    assert_eq!(config.session_key_file(), Some(Path::new("/srv/key")));
    assert_eq!(config.drain_deadline(), Duration::from_secs(60));
    assert_eq!(config.transport(), Transport::Tcp);
    assert!(config.roaming());
    assert_eq!(
        (config.log_level(), config.log_format()),
        (LogLevel::Debug, LogFormat::Json)
    );
    assert_eq!(config.listeners().dns, "[::1]:53".parse().ok());
    let dns = config.dns();
    assert_eq!(dns.preferred_namespace().map(|ns| &**ns), Some("shop"));
    assert_eq!((dns.capture(), dns.host()), (false, HostNames::Resolved));
    let control = config.control();
    let addresses: Vec<_> = control
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        addresses,
        [
            "https://control.example:15012",
            "https://[2001:db8::1]:1512"
        ]
    );
    let names: Vec<_> = control.names().iter().map(|name| &**name).collect();
    assert_eq!(names, ["control.example", "2001:db8::1"]);
    assert_eq!(&**control.name(), "c");
    assert_eq!(control.join_token_file(), Some(Path::new("/srv/token")));
}

#[test]
fn each_mistake_is_found_where_it_is() {
    use Code::*;
    for (name, text, want) in [
        (
            "unknown key",
            "stat-dir = \"/x\"",
            vec![(1, 1, UnknownKey, "write `state-dir` instead")],
        ),
        (
            "a kind of the mesh",
            "[[workload]]",
            vec![(1, 3, UnknownKey, "the keys here are")],
        ),
        (
            "node name",
            "node = \"Edge\"",
            vec![(1, 8, BadName, "write `\"edge\"`")],
        ),
        (
            "role",
            "roles = [\"nodes\"]",
            vec![(1, 10, BadValue, "write `\"node\"`")],
        ),
        (
            "later role",
            "roles = [\"waypoint\"]",
            vec![(1, 10, Unsupported, "lateen run --waypoint")],
        ),
        (
            "everybody's directory",
            "runtime-dir = \"/run/\"",
            vec![(1, 15, BadValue, "as in `\"/run/lateen\"`")],
        ),
        (
            "a deeper one",
            "state-dir = \"/var/lib\"",
            vec![(1, 13, BadValue, "as in `\"/var/lib/lateen\"`")],
        ),
        (
            "a way around",
            "state-dir = \"/var/lib/lateen/..\"",
            vec![(1, 13, BadValue, "nothing else uses")],
        ),
        (
            "relative path",
            "state-dir = \"state\"",
            vec![(1, 13, BadValue, "write the whole path")],
        ),
        (
            "later transport",
            "transport = \"quic\"",
            vec![(1, 13, Unsupported, "`\"tcp\"`")],
        ),
        (
            "user in quotes",
            "user = \"990\"",
            vec![(1, 8, BadValue, "write it unquoted: `990`")],
        ),
        (
            "user",
            "user = \"a b\"",
            vec![(1, 8, BadName, "such as `lateen`")],
        ),
        (
            "deadline",
            "drain-deadline = 5",
            vec![(1, 18, WrongType, "`\"5s\"`")],
        ),
        (
            "level",
            "log.level = \"warning\"",
            vec![(1, 13, BadValue, "write `\"warn\"`")],
        ),
        (
            "no port",
            "listen.metrics = \"0.0.0.0\"",
            vec![(1, 18, BadValue, "an address with a port")],
        ),
        (
            "a scheme",
            "control.addresses = [\"http://c\"]",
            vec![(1, 22, BadValue, "https://control.example:15012")],
        ),
        (
            "a control plane twice",
            "control.addresses = [\"https://c\", \"https://c:15012\"]",
            vec![(1, 21, BadValue, "name each once")],
        ),
        (
            "a primary without an authority",
            "control.primary = \"https://c\"",
            vec![(1, 19, MissingKey, "add `ca-dir =")],
        ),
        (
            "a token and no roots",
            "[control]\naddresses = [\"https://c\"]\ntoken-file = \"/t\"",
            vec![(3, 14, MissingKey, "add `root-file =")],
        ),
        (
            "roots and a name, and no token",
            "[control]\nroot-file = \"/r\"\nserver-name = \"c\"",
            vec![
                (2, 13, MissingKey, "add `token-file ="),
                (
                    3,
                    15,
                    MissingKey,
                    "`server-name` is of no use without `token-file`",
                ),
            ],
        ),
        (
            "a token misspelt",
            "[control]\naddresses = [\"https://c\"]\ntokenfile = \"/t\"\nroot-file = \"/r\"",
            vec![(3, 1, UnknownKey, "write `token-file` instead")],
        ),
        (
            "both ways",
            "[control]\naddresses = [\"https://c\"]\ntoken-file = \"/t\"\nroot-file = \"/r\"\njoin-token-file = \"/j\"",
            vec![(
                5,
                19,
                ConflictingKeys,
                "keep `join-token-file` for a control plane of Lateen",
            )],
        ),
        (
            "nobody to send it to",
            "[control]\ntoken-file = \"/t\"\nroot-file = \"/r\"",
            vec![(2, 14, MissingKey, "add `addresses =")],
        ),
        (
            "captures beside the mesh files",
            "[[capture]]\nnamespace = \"shop\"\nname = \"a\"\ncapture = { netns = \"a\" }",
            vec![(1, 1, ConflictingKeys, "of the mesh files")],
        ),
        (
            "captures that say too little or too much",
            "[control]\naddresses = [\"https://c\"]\ntoken-file = \"/t\"\nroot-file = \"/r\"\n\
             [[capture]]\nname = \"a\"\nnamespace = \"b\"\ncapture = { unit = \"a\" }\n\
             [[capture]]\nname = \"a\"\nnamespace = \"b\"\ncapture = { netns = \"a\" }\n\
             [[capture]]\nname = \"c\"\ncapture = { netns = \"a\" }",
            vec![
                (8, 20, BadValue, "write `a.service`"),
                (9, 1, DuplicateName, "names `b/a` a second time"),
                (13, 1, MissingKey, "has no `namespace`"),
            ],
        ),
        (
            "names that nobody could ask for",
            "[listen]\ndns = \"off\"\n[dns]\nhost = \"auto\"",
            vec![(
                4,
                8,
                ConflictingKeys,
                "take `dns = \"off\"` out of `[listen]`",
            )],
        ),
        (
            "names for everybody",
            "listen.dns = \"0.0.0.0:53\"",
            vec![(1, 14, BadValue, "write an address of loopback")],
        ),
        (
            "a domain that the mesh files have",
            "[dns]\ndomain = \"x.internal\"\nhost = \"yes\"\ncapture = \"no\"",
            vec![
                (2, 10, ConflictingKeys, "in the `[mesh]` table"),
                (3, 8, BadValue, ""),
                (4, 11, WrongType, ""),
            ],
        ),
        (
            "all at once",
            "roles = [\"x\"]\nlog = 1\n[control]\nlisten = 5\nmesh = \"/x\"\n",
            vec![
                (1, 10, BadValue, ""),
                (2, 7, WrongType, ""),
                (4, 10, WrongType, ""),
                (5, 1, UnknownKey, "`mesh-dir`"),
            ],
        ),
    ] {
        let report = parse(text).unwrap_err();
        let got = report.diagnostics().iter();
        let got: Vec<_> = got
            .map(|d| (d.place().start().line, d.place().start().column, d.code()))
            .collect();
        let wanted: Vec<_> = want
            .iter()
            .map(|(line, column, code, _)| (*line, *column, *code))
            .collect();
        assert_eq!(got, wanted, "{name}: {report}");
        let said = report.to_string();
        assert!(
            want.iter().all(|(.., text)| said.contains(text)),
            "{name}: {said}"
        );
    }
}

#[test]
fn host_names_become_node_names() {
    for (host, want) in [
        ("edge-1", Some("edge-1")),
        ("Edge_1.example.", Some("edge-1.example")),
        ("(none)", None),
        ("", None),
    ] {
        let config = Config::parse("lateen.toml", String::new(), host);
        assert_eq!(
            config.ok().map(|c| c.node().to_string()).as_deref(),
            want,
            "{host}"
        );
        assert!(Config::parse("lateen.toml", "node = \"n\"".to_owned(), host).is_ok());
    }
}

#[test]
fn a_missing_file_is_an_error_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lateen.toml");
    let report = Config::load(Some(&path)).unwrap_err();
    assert_eq!(report.diagnostics()[0].code(), Code::Unreadable);
    // Not every machine's own name is one a node can have, so the file is there.
    let missing = Config::load_from(&path, false);
    assert!(
        missing.is_ok_and(|c| c.state_dir() == Path::new("/var/lib/lateen")) || !host_is_usable()
    );
    std::fs::write(&path, "node = \"n\"\n").unwrap();
    assert_eq!(&**Config::load(Some(&path)).unwrap().node(), "n");
}

fn host_is_usable() -> bool {
    let name = rustix::system::uname();
    parse("").is_ok()
        && Config::parse("x", String::new(), &name.nodename().to_string_lossy()).is_ok()
}

#[test]
fn control_urls_are_read() {
    for (text, want) in [
        ("https://c", Some("https://c:15012")),
        ("https://c:1/", Some("https://c:1")),
        ("https://192.0.2.1", Some("https://192.0.2.1:15012")),
        ("https://[::1]:9", Some("https://[::1]:9")),
        ("https://::1", None),
        ("https://[::1", None),
        ("https://[c]:9", None),
        ("https://c:0", None),
        ("https://c:", None),
        ("https://c:x", None),
        ("https://c/path", None),
        ("https://", None),
        ("c:15012", None),
    ] {
        let got = text.parse::<ControlUrl>().ok().map(|url| url.to_string());
        assert_eq!(got.as_deref(), want, "{text}");
    }
}

#[test]
fn what_differs_between_two_settings_is_named() {
    let before = parse("").unwrap();
    for (text, want) in [
        ("", vec![]),
        ("[log]\nlevel = \"debug\"\n", vec![]),
        ("[log]\nformat = \"json\"\n", vec!["[log] format"]),
        (
            "workers = 3\nbusy-poll = false\n",
            vec!["workers", "busy-poll"],
        ),
        ("[listen]\nmetrics = \"[::1]:9\"\n", vec!["[listen]"]),
        ("[control]\nnames = [\"c\"]\n", vec!["[control]"]),
    ] {
        assert_eq!(parse(text).unwrap().changes(&before), want, "{text}");
    }
}

#[test]
fn what_systemd_has_loaded_is_used_where_the_file_names_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let loaded = |name: &str| directory.path().join(name);
    let with = |text: &str| parse(text).unwrap().with_credentials(directory.path());
    assert_eq!(with(""), parse("").unwrap(), "nothing is loaded");
    for name in ["join-token", "session-key", "ca-key.pem"] {
        std::fs::write(loaded(name), "").unwrap();
    }
    let config = with("");
    assert_eq!(config.session_key_file(), Some(&*loaded("session-key")));
    let control = config.control();
    assert_eq!(control.join_token_file(), Some(&*loaded("join-token")));
    assert_eq!(control.authority(), Some(directory.path()));

    let named = "session-key-file = \"/a\"\n[control]\njoin-token-file = \"/b\"\nca-dir = \"/c\"\n";
    assert_eq!(with(named), parse(named).unwrap(), "the file goes before");
    let guest = "[control]\naddresses = [\"https://istiod:15012\"]\ntoken-file = \"/t\"\nroot-file = \"/r\"\n";
    let token = with(guest);
    assert_eq!(token.control().join_token_file(), None, "it does not join");
}
