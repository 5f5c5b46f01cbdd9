//! `[[gateway]]`: a waypoint (`spec/labels-and-policy.md` §1.4).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::annotations::Annotations;
use super::labels::{self, Labels, WAYPOINT_FOR};
use super::{either, name_of, namespace_of};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::{AllowedRoutes, WaypointFor};

/// A `[[gateway]]` table.
pub(in crate::config) struct WrittenGateway {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// Its namespace, by whatever way it has it.
    pub namespace: At<Arc<str>>,
    /// `service-account`, or its own name.
    pub service_account: At<Arc<str>>,
    /// `node`, or `nodes`.
    pub machines: WrittenMachines,
    /// `addresses`.
    pub addresses: Vec<At<IpAddr>>,
    /// `waypoint-for`, or the label that means the same.
    pub waypoint_for: WaypointFor,
    /// `allowed-routes` of the listener that takes HBONE.
    pub allowed_routes: AllowedRoutes,
    /// The port of that listener, where it is another than Istio's.
    pub hbone_port: Option<u16>,
    /// `xfcc-include-client-identity`, or the annotation that means the same.
    pub tells_identities: bool,
    /// `labels`, the meaningful ones taken out.
    pub labels: BTreeMap<String, String>,
}

/// Where a waypoint runs.
pub(in crate::config) enum WrittenMachines {
    /// `node`.
    One(At<Arc<str>>),
    /// `nodes`.
    Each(Vec<At<Arc<str>>>),
}

impl WrittenMachines {
    /// Their names, in the order they were written.
    pub(in crate::config) fn names(&self) -> &[At<Arc<str>>] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Each(names) => names,
        }
    }
}

/// The one class there is, by its two names.
const CLASSES: [&str; 2] = ["waypoint", "istio-waypoint"];

/// Whether programs are told who the client is (`spec/waypoint-l7.md` §1.3), and Istio's way to ask.
const XFCC: &str = "xfcc-include-client-identity";
const XFCC_ANNOTATION: &str = "ambient.istio.io/xfcc-include-client-identity";

/// Where HBONE is taken in all files that Istio knows: they leave the port to us.
const USUAL_PORT: u16 = 15008;
/// Where it is taken beside a node proxy.
const OTHER_PORT: u16 = 15009;

pub(super) fn read(value: &Value<'_>, home: Option<&At<Arc<str>>>) -> Option<WrittenGateway> {
    let table = value.resource("gateway")?;
    let mut labels = Labels::read(&table);
    let name = name_of(&table, "gateway", name);
    let namespace = namespace_of(&table, home);
    table.required("class", "class = \"waypoint\"", class);
    let service_account = table.optional("service-account", scalar::name);
    let machines = machines(&table);
    let addresses = table.optional("addresses", |value| value.list(scalar::address));
    let waypoint_for = either(
        &table,
        "waypoint-for",
        &mut labels,
        WAYPOINT_FOR,
        waypoint_for,
    );
    let listener = listener(&table);
    let mut annotations = Annotations::read(&table);
    if let Some(binding) = annotations.take("ambient.istio.io/waypoint-inbound-binding") {
        binding.unsupported("take it out: waypoints take HBONE and nothing else");
    }
    let tells_identities = tells_identities(&table, &mut annotations);
    annotations.finish();
    let labels = labels.finish(&table);
    table.finish();
    let name = name?;
    Some(WrittenGateway {
        place: table.place().clone(),
        service_account: service_account.unwrap_or_else(|| name.clone()),
        name,
        namespace,
        machines: machines?,
        addresses: addresses.unwrap_or_default(),
        waypoint_for: waypoint_for.map(|takes| takes.value).unwrap_or_default(),
        allowed_routes: listener.allowed_routes,
        hbone_port: (listener.port == Some(OTHER_PORT)).then_some(OTHER_PORT),
        tells_identities,
        labels,
    })
}

/// Off unless either says otherwise; two that disagree are an error.
fn tells_identities<'a>(table: &Table<'a>, annotations: &mut Annotations<'a>) -> bool {
    let key = table.value(XFCC);
    let said = key.as_ref().and_then(Value::boolean);
    let Some(annotation) = annotations.take(XFCC_ANNOTATION) else {
        return said.unwrap_or_default();
    };
    let words = [("true", true), ("false", false)];
    let annotated = scalar::choice(&annotation, &words);
    if let (Some(key), Some(said), Some(annotated)) = (key, said, annotated)
        && said != annotated
    {
        let message = format!("{}: key `{XFCC}` and its annotation disagree", table.what());
        table.report(
            Diagnostic::new(Code::ConflictingKeys, annotation.place().clone(), message)
                .label("the annotation says this")
                .related(key.place().clone(), "the key says this")
                .help(format!(
                    "they mean the same; keep `{XFCC}` and drop the annotation"
                )),
        );
    }
    said.or(annotated).unwrap_or_default()
}

fn machines(table: &Table<'_>) -> Option<WrittenMachines> {
    let Some(several) = table.value("nodes") else {
        let one = table.required("node", "node = \"edge-1\"", scalar::name);
        return one.map(WrittenMachines::One);
    };
    if let Some(one) = table.value("node") {
        let message = format!("{} has both `node` and `nodes`", table.what());
        table.report(
            Diagnostic::new(Code::ConflictingKeys, one.place().clone(), message)
                .label("one of the two")
                .related(several.place().clone(), "the other")
                .help("keep `nodes`, with all of them"),
        );
    }
    let names = several.list(scalar::name)?;
    if several.is_empty_list() {
        several.bad(
            "is empty",
            "no machine",
            "name at least one, as in `nodes = [\"edge-1\", \"edge-2\"]`",
        );
    }
    (!names.is_empty()).then_some(WrittenMachines::Each(names))
}

/// A part of a host name; `none` is how resources opt out of waypoints.
fn name(value: &Value<'_>) -> Option<At<Arc<str>>> {
    let name = scalar::label(value)?;
    if &*name.value == "none" {
        value.reject(
            Code::BadName,
            "is `none`, which means no waypoint wherever a waypoint is named",
            "reserved",
            "give it another name",
        );
        return None;
    }
    Some(name)
}

fn class(value: &Value<'_>) -> Option<()> {
    let text = value.text()?;
    if !CLASSES.contains(&text) {
        value.unsupported("write `\"waypoint\"`, the one class of gateways this version knows");
    }
    Some(())
}

/// Istio takes any other word for `none`; here it is a mistake.
fn waypoint_for(value: &Value<'_>) -> Option<WaypointFor> {
    let words = [
        ("service", WaypointFor::Service),
        ("workload", WaypointFor::Workload),
        ("all", WaypointFor::All),
        ("none", WaypointFor::None),
    ];
    scalar::choice(value, &words)
}

/// The listener that takes HBONE.
#[derive(Default)]
struct Listener {
    port: Option<u16>,
    allowed_routes: AllowedRoutes,
}

fn listener(table: &Table<'_>) -> Listener {
    let listeners = table.optional("listeners", |value| {
        value.list(|value| {
            let table = value.nested()?;
            let listener = one_listener(&table);
            table.finish();
            Some(At::new(listener, table.place().clone()))
        })
    });
    let mut listeners = listeners.unwrap_or_default().into_iter();
    let Some(first) = listeners.next() else {
        return Listener::default();
    };
    for again in listeners {
        let message = format!("{} has more than one listener", table.what());
        table.report(
            Diagnostic::new(Code::ConflictingKeys, again.place, message)
                .label("again")
                .related(first.place.clone(), "first here")
                .help("keep one: a waypoint takes HBONE, on one port"),
        );
    }
    first.value
}

fn one_listener(table: &Table<'_>) -> Listener {
    table.optional("name", scalar::label);
    table.optional("protocol", |value| {
        if value.text()? != "HBONE" {
            value.unsupported("write `\"HBONE\"`: waypoints take nothing else");
        }
        Some(())
    });
    let port = table.optional("port", |value| {
        let port = scalar::port(value)?;
        if port != USUAL_PORT && port != OTHER_PORT {
            value.bad(
                &format!("is {port}, which is no port of HBONE"),
                "not 15008",
                "write 15008, or leave it out; 15009 keeps clear of a node proxy that has no workloads yet",
            );
        }
        Some(port)
    });
    Listener {
        port,
        allowed_routes: table
            .optional("allowed-routes", allowed_routes)
            .unwrap_or_default(),
    }
}

fn allowed_routes(value: &Value<'_>) -> Option<AllowedRoutes> {
    let table = value.nested()?;
    let allowed = table.optional("namespaces", |value| {
        let table = value.nested()?;
        let from = table.optional("from", from);
        let selector = table.optional("selector", |value| {
            Some(At::new(selector(value), value.place().clone()))
        });
        table.finish();
        Some(admitted(&table, from.unwrap_or(From::Same), selector))
    });
    table.finish();
    allowed
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Same,
    All,
    Selector,
}

fn from(value: &Value<'_>) -> Option<From> {
    let words = [
        ("Same", From::Same),
        ("All", From::All),
        ("Selector", From::Selector),
    ];
    scalar::choice(value, &words)
}

/// Without a selector nobody is selected; an empty one selects everybody.
fn admitted(
    table: &Table<'_>,
    from: From,
    selector: Option<At<Option<BTreeMap<String, String>>>>,
) -> AllowedRoutes {
    if let (Some(selector), true) = (&selector, from != From::Selector) {
        let message = format!("{}: `selector` is not looked at", table.what());
        super::no_effect(
            table,
            selector.place.clone(),
            message,
            "write `from = \"Selector\"`, or take it out",
        );
    }
    match (from, selector.map(|selector| selector.value)) {
        (From::Same, _) => AllowedRoutes::Same,
        (From::All, _) => AllowedRoutes::All,
        (From::Selector, Some(Some(labels))) => AllowedRoutes::Labels(labels),
        (From::Selector, Some(None) | None) => AllowedRoutes::Nobody,
    }
}

/// None if it could not be read.
fn selector(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let table = value.nested()?;
    let labels = table.optional("match-labels", labels::selector);
    table.unsupported("match-expressions", "select by `match-labels`");
    table.finish();
    let labels = labels.unwrap_or_default().into_iter();
    Some(labels.map(|(key, text)| (key, text.value)).collect())
}
