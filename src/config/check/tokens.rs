//! What request authentications come to (`spec/labels-and-policy.md` §5.1).

use std::net::IpAddr;

use http::Uri;

use super::Context;
use super::targets::Targets;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{WrittenAttachment, WrittenRequestAuthentication};
use crate::config::source::At;
use crate::model::authentication::Fetching;
use crate::model::declaration::{JwtRule, KeySource, RemoteAt};

pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let all = context.written.request_authentications.iter();
    for policy in all.filter(|policy| policy.sound) {
        found.extend(unattached(policy));
        for rule in &policy.rules {
            found.extend(out_of_reach(policy, rule, &context.settings.fetching));
        }
    }
}

/// Those that are attached to what waypoints serve.
pub(super) fn targeted(
    context: &Context<'_>,
    targets: &mut Targets<'_>,
    found: &mut Vec<Diagnostic>,
) {
    let all = context.written.request_authentications.iter();
    for policy in all.filter(|policy| policy.sound) {
        if let WrittenAttachment::Targets(refs) = &policy.attachment {
            let what = format!("request-authentication `{}`", policy.name.value);
            targets.check((&what, &policy.namespace.value), &refs.value, found);
        }
    }
}

/// Node proxies know of no tokens, and waypoints of nothing that does not target them (§2.2).
fn unattached(policy: &WrittenRequestAuthentication) -> Option<Diagnostic> {
    let place = match &policy.attachment {
        WrittenAttachment::Targets(_) => return None,
        WrittenAttachment::Selector(labels) => &labels.place,
        WrittenAttachment::Namespace => &policy.name.place,
    };
    let message = format!(
        "request-authentication `{}` is not in force: only waypoints look at tokens, and it targets nothing of theirs",
        policy.name.value
    );
    let finding = Diagnostic::new(Code::NotInForce, place.clone(), message);
    Some(finding.label("never enforced").help(
        "name what it is for, as in `target-refs = [{ kind = \"Gateway\", name = \"waypoint\" }]`",
    ))
}

/// Waypoints do not ask where only their own host or its link is meant.
fn out_of_reach(
    policy: &WrittenRequestAuthentication,
    rule: &At<JwtRule>,
    fetching: &Fetching,
) -> Option<Diagnostic> {
    let KeySource::Remote(remote) = &rule.value.keys else {
        return None;
    };
    let (RemoteAt::Uri(uri) | RemoteAt::Discovery(uri)) = &remote.at;
    let uri: Uri = uri.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let address = match host {
        "localhost" => "127.0.0.1",
        host => host,
    };
    let address: IpAddr = address.parse().ok()?;
    if fetching.may_reach(address) {
        return None;
    }
    let message = format!(
        "request-authentication `{}`: waypoints ask nobody for keys at `{host}`, which is another host to each of them",
        policy.name.value
    );
    Some(
        Diagnostic::new(Code::BadValue, rule.place.clone(), message)
            .label("keys that no waypoint gets")
            .help("write the address that other hosts reach it at; or allow it, as in `jwks-local-ranges = [\"127.0.0.0/8\"]` in `[mesh]`"),
    )
}
