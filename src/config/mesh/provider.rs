//! `extension-providers` of the `[mesh]` table: what policies and telemetry name (`spec/waypoint-l7.md`
//! §4.4, §6.1). Istio's fields, camelCase turned kebab-case.

mod ext_authz;
mod logs;
mod traces;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::name_of;
use super::route::{field_value, header_fault, is_token};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::{Provider, ProviderKind, ProviderService};

/// Reads what there is to say of one kind.
type Read = fn(&Value<'_>) -> Option<ProviderKind>;

const KINDS: [(&str, Read); 7] = [
    ("envoy-ext-authz-http", ext_authz::http),
    ("envoy-ext-authz-grpc", ext_authz::grpc),
    ("prometheus", prometheus),
    ("envoy-file-access-log", logs::file),
    ("envoy-otel-als", logs::otel),
    ("opentelemetry", traces::opentelemetry),
    ("zipkin", traces::zipkin),
];

/// Istio's kinds that there are better ones for, and which.
const UNSUPPORTED: [(&str, &str); 4] = [
    (
        "envoy-http-als",
        "use `envoy-otel-als`, which most collectors take, or `envoy-file-access-log`",
    ),
    (
        "envoy-tcp-als",
        "use `envoy-otel-als`, which most collectors take, or `envoy-file-access-log`",
    ),
    (
        "datadog",
        "use `opentelemetry`: Datadog's agent takes OTLP on port 4317",
    ),
    (
        "skywalking",
        "use `opentelemetry` or `zipkin`: SkyWalking takes both",
    ),
];

/// Those that could be read, and whether that is all of them.
pub(super) fn read(value: &Value<'_>) -> Option<(Vec<At<Provider>>, bool)> {
    let mut seen: BTreeMap<Arc<str>, Place> = BTreeMap::new();
    let mut whole = true;
    let providers = value.list(|item| {
        let read = provider(item).filter(|provider| is_new(item, provider, &mut seen));
        whole &= read.is_some();
        read
    });
    providers.map(|providers| (providers, whole))
}

/// Whether its name is nobody else's.
fn is_new(item: &Value<'_>, provider: &At<Provider>, seen: &mut BTreeMap<Arc<str>, Place>) -> bool {
    let (name, place) = (&provider.value.name, &provider.place);
    let Some(first) = seen.get(name) else {
        seen.insert(Arc::clone(name), place.clone());
        return true;
    };
    let message = format!("extension provider `{name}` is declared twice");
    item.report(
        Diagnostic::new(Code::DuplicateName, place.clone(), message)
            .label("again")
            .related(first.clone(), "first here")
            .help("rename one of the two, or take it out"),
    );
    false
}

fn provider(value: &Value<'_>) -> Option<At<Provider>> {
    let table = value.resource("extension-provider")?;
    let errors_before = table.errors();
    let name = name_of(&table, "provider", scalar::label);
    let kind = kind(&table);
    table.finish();
    let (name, kind) = (name?, kind?);
    if table.errors() > errors_before {
        return None;
    }
    let provider = Provider {
        origin: table.place().origin(),
        name: name.value,
        kind,
    };
    Some(At::new(provider, name.place))
}

/// What the one key says that is not `name`.
fn kind(table: &Table<'_>) -> Option<ProviderKind> {
    let mut refused = false;
    for (key, instead) in UNSUPPORTED {
        if let Some(value) = table.value_unlisted(key) {
            refused = true;
            value.unsupported(instead);
        }
    }
    let written = KINDS.map(|(key, read)| table.value(key).map(|value| (value, read)));
    let mut written = written.into_iter().flatten();
    let Some((value, read)) = written.next() else {
        if !refused {
            report_no_kind(table);
        }
        return None;
    };
    for (again, _) in written {
        let message = format!("{} is of more than one kind", table.what());
        table.report(
            Diagnostic::new(Code::ConflictingKeys, again.place().clone(), message)
                .label("another kind")
                .related(value.place().clone(), "one kind")
                .help("make two of it, each with a name of its own"),
        );
    }
    read(&value)
}

fn report_no_kind(table: &Table<'_>) {
    let message = format!("{} does not say what it is", table.what());
    let example =
        "add its kind, as in `envoy-ext-authz-http = { service = \"shop/authz\", port = 8000 }`";
    let finding = Diagnostic::new(Code::MissingKey, table.place().clone(), message);
    let finding = finding.label("of no kind").help(example);
    table.missing(KINDS.map(|(key, _)| key).to_vec(), finding);
}

/// `prometheus = {}`.
fn prometheus(value: &Value<'_>) -> Option<ProviderKind> {
    value.nested()?.finish();
    Some(ProviderKind::Prometheus)
}

/// `service` and `port`.
fn service(table: &Table<'_>) -> Option<ProviderService> {
    let service = table.required("service", "service = \"shop/authz\"", host);
    let port = table.required("port", "port = 8000", scalar::port);
    let (namespace, host) = service?;
    Some(ProviderService {
        namespace,
        host,
        port: port?,
    })
}

/// `[NAMESPACE/]HOST`. Settings are of no namespace, so a service's name alone says too little.
fn host(value: &Value<'_>) -> Option<(Option<Arc<str>>, Arc<str>)> {
    let text = value.text()?;
    let (namespace, host) = match text.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, text),
    };
    let parts = namespace.into_iter().chain([host]);
    let fault = parts.into_iter().find_map(scalar::name_fault);
    let alone = namespace.is_none() && !host.contains('.');
    let dotted = namespace.is_some_and(|namespace| namespace.contains('.'));
    let fault = fault.or_else(|| alone.then_some("is of no namespace"));
    let fault = fault.or_else(|| dotted.then_some("is in a namespace with a dot in it"));
    let Some(fault) = fault else {
        return Some((namespace.map(Arc::from), Arc::from(host)));
    };
    value.reject(
        Code::BadName,
        &format!("{fault}: {text:?}"),
        "not a service",
        "write `\"NAMESPACE/NAME\"`, as in `\"shop/authz\"`, or a host name in full",
    );
    None
}

/// A path that is posted to, or put before another.
fn path(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    let legal = |b: u8| b.is_ascii_graphic() && !b"?#".contains(&b);
    if text.starts_with('/') && text.bytes().all(legal) {
        return Some(Arc::from(text));
    }
    value.bad(
        &format!("is not a path: {text:?}"),
        "not a path",
        "begin it with `/` and leave out spaces, query and fragment",
    );
    None
}

/// A field that is sent as it is written, of a name that may be said.
fn header(name: &str, text: &Value<'_>) -> Option<(HeaderName, HeaderValue)> {
    let lower = name.to_ascii_lowercase();
    let illegal = (!is_token(name)).then_some("is of a header whose name cannot be one");
    if let Some(fault) = illegal.or_else(|| header_fault(&lower)) {
        let message = format!("{fault}: {name:?}");
        let help = "take it out, or name a header, as in `x-tenant`";
        text.reject(Code::BadName, &message, "not to be set", help);
        return None;
    }
    let field = field_value(text)?;
    let name = HeaderName::from_bytes(lower.as_bytes()).ok()?;
    Some((name, HeaderValue::from_bytes(field.as_bytes()).ok()?))
}
