//! What a rule and its backend change of a request and of its answer (`spec/waypoint-l7.md` §2.3). It is
//! done as the backend's request is made, so whatever is decided before sees the client's own.

use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::reply::Reply;
use super::route::set_target;
use crate::model::route::{Backend, Filter, Match, Rule, Target};

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");

/// The rule that takes a request, and the backend drawn.
#[derive(Clone, Copy)]
pub(super) struct Ruled<'a> {
    pub(super) rule: &'a Rule<Target>,
    pub(super) matched: &'a Match,
    pub(super) backend: &'a Backend<Target>,
}

impl<'a> Ruled<'a> {
    /// The rule's filters, then the backend's: where both say something, the backend has the last word.
    fn filters(&self) -> impl Iterator<Item = &'a Filter<Target>> + use<'a> {
        self.rule.filters.iter().chain(&self.backend.filters)
    }

    /// Makes the backend's request out of the client's. Returns whom it is for.
    ///
    /// # Errors
    /// What to answer where that cannot be said in HTTP.
    pub(super) fn change(&self, parts: &mut Parts, host: Authority) -> Result<Authority, Reply> {
        let (mut new_path, mut new_host) = (None, None);
        for filter in self.filters() {
            match filter {
                Filter::RequestHeaders(change) => {
                    change.apply(&mut parts.headers);
                    new_host = change.host().or(new_host);
                }
                Filter::Rewrite(rewrite) => {
                    new_path = rewrite.path.as_ref().or(new_path);
                    new_host = rewrite.host.as_deref().or(new_host);
                }
                _ => {}
            }
        }
        if let Some(change) = new_path {
            let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
            let changed = change.apply(target, self.matched);
            if changed != target {
                note(&mut parts.headers, ORIGINAL_PATH, target);
                let set = set_target(parts, &changed);
                set.ok_or_else(|| unfit("path", &changed))?;
            }
        }
        let Some(new_host) = new_host.filter(|new| *new != host.as_str()) else {
            return Ok(host);
        };
        note(&mut parts.headers, ORIGINAL_HOST, host.as_str());
        Authority::try_from(new_host).map_err(|_odd| unfit("host", new_host))
    }

    /// Changes an answer of the backend's.
    pub(super) fn change_answer(&self, headers: &mut HeaderMap) {
        for filter in self.filters() {
            if let Filter::ResponseHeaders(change) = filter {
                change.apply(headers);
            }
        }
    }
}

fn note(headers: &mut HeaderMap, name: HeaderName, was: &str) {
    // What came in a request fits into one.
    if let Ok(was) = HeaderValue::from_str(was) {
        headers.insert(name, was);
    }
}

fn unfit(what: &str, text: &str) -> Reply {
    Reply::no_backend(format!(
        "the rule makes a {what} of it that is none: {text:?}"
    ))
}
