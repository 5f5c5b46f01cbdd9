use super::*;

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().copied().map(Arc::from).collect()
}

fn expression(text: &str) -> Expression {
    Expression::parse(text).unwrap()
}

/// A level of access logging: providers, whether disabled, the filter.
fn logging(rules: &[(&[&str], bool, &str)]) -> Sections {
    let rule = |(providers, disabled, filter): &(&[&str], bool, &str)| Logging {
        providers: names(providers),
        disabled: *disabled,
        filter: (!filter.is_empty()).then(|| expression(filter)),
    };
    Sections {
        logging: rules.iter().map(rule).collect(),
        ..Sections::default()
    }
}

#[test]
fn the_last_level_with_providers_writes_the_logs() {
    const NONE: &[&str] = &[];
    let errors = "response.code >= 500";
    let denied = "response.code == 403";
    let on = |provider, filter| (provider, Some(filter));
    let all = |provider| (provider, None);
    let plain = Defaults::default();
    let file = Defaults {
        file: true,
        ..Defaults::default()
    };
    let named = Defaults {
        access_logging: names(&["a"]),
        file: true,
        ..Defaults::default()
    };
    for (name, defaults, levels, want) in [
        ("nothing said", &plain, vec![], vec![]),
        ("the mesh's file", &file, vec![], vec![all("envoy")]),
        (
            "the mesh's provider before its file",
            &named,
            vec![],
            vec![all("a")],
        ),
        (
            "a provider",
            &plain,
            vec![logging(&[(&["a"], false, "")])],
            vec![all("a")],
        ),
        (
            "a filter for the mesh's file",
            &file,
            vec![logging(&[(NONE, false, errors)])],
            vec![on("envoy", errors)],
        ),
        (
            "the mesh's file switched off",
            &file,
            vec![logging(&[(NONE, true, "")])],
            vec![],
        ),
        (
            "a filter for nobody's log",
            &plain,
            vec![logging(&[(NONE, false, errors)])],
            vec![],
        ),
        (
            "other providers take the place of the wider ones",
            &file,
            vec![
                logging(&[(&["a"], false, errors)]),
                logging(&[(&["b"], false, "")]),
            ],
            vec![all("b")],
        ),
        (
            "a filter for those named before",
            &plain,
            vec![
                logging(&[(&["a", "b"], false, "")]),
                logging(&[(NONE, false, errors)]),
            ],
            vec![on("a", errors), on("b", errors)],
        ),
        (
            "one of two switched off",
            &plain,
            vec![
                logging(&[(&["a"], false, errors), (&["b"], false, "")]),
                logging(&[(&["a"], false, denied), (&["b"], true, "")]),
            ],
            vec![on("a", denied)],
        ),
        (
            "switched off, and on again below",
            &plain,
            vec![
                logging(&[(&["a"], true, "")]),
                logging(&[(&["a"], false, "")]),
            ],
            vec![all("a")],
        ),
    ] {
        let merged = Merged::new(defaults, &levels);
        let want: Vec<Log> = want
            .into_iter()
            .map(|(provider, filter)| Log {
                provider: Arc::from(provider),
                filter: filter.map(expression),
            })
            .collect();
        assert_eq!(merged.logs, want, "{name}");
    }
}

#[test]
fn tracing_is_overridden_field_by_field() {
    let tags = |of: &[&str]| -> BTreeMap<Arc<str>, CustomTag> {
        let tag = |name: &&str| (Arc::from(*name), CustomTag::Literal(Arc::from("x")));
        of.iter().map(tag).collect()
    };
    let level = |tracing| Sections {
        tracing: vec![tracing],
        ..Sections::default()
    };
    let wide = level(Tracing {
        providers: names(&["otlp", "zipkin"]),
        sampling: Some(Sampling(5_000)),
        custom_tags: Some(tags(&["a", "b"])),
        enable_istio_tags: Some(false),
        ..Tracing::default()
    });
    let narrow = level(Tracing {
        sampling: Some(Sampling(0)),
        custom_tags: Some(tags(&["c"])),
        disable_context_propagation: Some(true),
        ..Tracing::default()
    });
    let none = |sampling| {
        level(Tracing {
            sampling,
            ..Tracing::default()
        })
    };
    let usual = Traces {
        provider: Arc::from("otlp"),
        sampling: Sampling::USUAL,
        reports: true,
        custom_tags: BTreeMap::new(),
        istio_tags: true,
        propagates: true,
    };
    let wider = Traces {
        sampling: Sampling(5_000),
        custom_tags: tags(&["a", "b"]),
        istio_tags: false,
        ..usual.clone()
    };
    let both = Traces {
        sampling: Sampling(0),
        custom_tags: tags(&["c"]),
        propagates: false,
        ..wider.clone()
    };
    for (name, defaults, levels, want) in [
        ("nothing said", vec![], vec![], None),
        ("nobody to tell", vec![], vec![narrow.clone()], None),
        ("the mesh's", names(&["otlp"]), vec![], Some(usual.clone())),
        ("one level", vec![], vec![wide.clone()], Some(wider)),
        ("two levels", vec![], vec![wide, narrow], Some(both)),
        (
            "nothing is a word too",
            names(&["otlp"]),
            vec![none(Some(Sampling(0))), none(None)],
            Some(Traces {
                sampling: Sampling(0),
                ..usual
            }),
        ),
    ] {
        let defaults = Defaults {
            tracing: defaults,
            ..Defaults::default()
        };
        assert_eq!(Merged::new(&defaults, &levels).traces, want, "{name}");
    }
}

#[test]
fn changes_of_metrics_add_up_in_order() {
    let tag = |label: &str, value: Option<&str>| {
        let change = match value {
            Some(value) => TagChange::Upsert(expression(value)),
            None => TagChange::Remove,
        };
        (Arc::<str>::from(label), change)
    };
    let change = |metric, disabled, tags: &[(Arc<str>, TagChange)]| Override {
        metric,
        disabled,
        tags: tags.iter().cloned().collect(),
    };
    let level = |providers: &[&str], overrides| Sections {
        metrics: vec![Metrics {
            providers: names(providers),
            overrides,
            reporting_interval: None,
        }],
        ..Sections::default()
    };
    let levels = [
        level(
            &["prometheus", "other"],
            vec![
                change(None, Some(true), &[tag("source_app", None)]),
                change(Some(Metric::RequestCount), Some(false), &[]),
            ],
        ),
        level(
            &[],
            vec![change(
                Some(Metric::RequestCount),
                None,
                &[
                    tag("source_app", Some("request.host")),
                    tag("host", Some("request.host")),
                ],
            )],
        ),
    ];
    let metering = Merged::new(&Defaults::default(), &levels).metering;
    assert_eq!(metering.providers, names(&["prometheus", "other"]));
    assert_eq!(metering.interval, INTERVAL);
    let all = Metric::ALL.len();
    assert_eq!(metering.changes.len(), all);
    for (metric, change) in &metering.changes {
        let counted = *metric == Metric::RequestCount;
        assert_eq!(change.disabled, !counted, "{metric:?}");
        let host = match counted {
            true => vec![
                tag("host", Some("request.host")),
                tag("source_app", Some("request.host")),
            ],
            false => vec![tag("source_app", None)],
        };
        let got: Vec<_> = change.tags.clone().into_iter().collect();
        assert_eq!(got, host, "{metric:?}");
    }
}

#[test]
fn metrics_are_shown_to_prometheus_unless_somebody_says_otherwise() {
    let shown = |defaults: &[&str], levels: &[&[&str]]| {
        let defaults = Defaults {
            metrics: names(defaults),
            ..Defaults::default()
        };
        let level = |providers: &&[&str]| Sections {
            metrics: vec![Metrics {
                providers: names(providers),
                ..Metrics::default()
            }],
            ..Sections::default()
        };
        let levels: Vec<Sections> = levels.iter().map(level).collect();
        Merged::new(&defaults, &levels).metering
    };
    for (name, defaults, levels, want) in [
        ("nobody says", &[][..], &[][..], &["prometheus"][..]),
        ("the mesh says", &["a"], &[], &["a"]),
        ("a resource says", &["a"], &[&["b"][..], &[]], &["b"]),
        (
            "the last says",
            &[],
            &[&["b"][..], &["c", "d"]],
            &["c", "d"],
        ),
    ] {
        let metering = shown(defaults, levels);
        assert_eq!(metering.providers, names(want), "{name}");
        assert!(metering.changes.is_empty(), "{name}");
    }
}
