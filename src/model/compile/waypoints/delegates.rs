//! Virtual services that delegate to others (`spec/waypoint-l7.md` §3.1): one level, and who is not there
//! leaves requests that are answered 500, not to the rules that follow.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::model::declaration::{Delegate, Route};
use crate::model::route::{BackendRef, Filter, Kind, Rule};

/// Virtual services that are for no host themselves, by namespace and name.
pub(super) struct Delegates<'a>(HashMap<(&'a str, &'a str), &'a Route>);

impl<'a> Delegates<'a> {
    pub(super) fn new(routes: &'a [Route]) -> Self {
        let of_others = routes.iter().filter(|r| is_for_others(r));
        let by_name = of_others.map(|r| ((&*r.key.namespace, &*r.key.name), r));
        Self(by_name.collect())
    }

    /// Whom a rule delegates to.
    ///
    /// # Errors
    /// Why it is nobody.
    pub(super) fn of(&self, delegate: &Delegate) -> Result<&'a Route, String> {
        let (namespace, name) = (&delegate.namespace, &delegate.name);
        match self.0.get(&(&**namespace, &**name)) {
            None => Err(format!(
                "there is no virtual-service {namespace}/{name} without hosts"
            )),
            Some(to) if !to.delegates.is_empty() => Err(format!(
                "virtual-service {namespace}/{name} delegates itself"
            )),
            Some(to) => Ok(to),
        }
    }
}

/// Whether it is a virtual service that others delegate to.
pub(super) fn is_for_others(route: &Route) -> bool {
    route.key.kind == Kind::VirtualService && route.hosts.is_empty()
}

/// The routes with the rules of delegates in the place of those that delegate to them.
pub(super) fn resolved(routes: &[Route]) -> Cow<'_, [Route]> {
    if routes.iter().all(|route| route.delegates.is_empty()) {
        return Cow::Borrowed(routes);
    }
    let delegates = Delegates::new(routes);
    let resolved = routes.iter().map(|route| match route.delegates.is_empty() {
        true => route.clone(),
        false => Route {
            rules: rules(route, &delegates),
            delegates: Vec::new(),
            ..route.clone()
        },
    });
    Cow::Owned(resolved.collect())
}

fn rules(route: &Route, delegates: &Delegates<'_>) -> Vec<Rule<BackendRef>> {
    let mut rules = Vec::new();
    for (at, rule) in route.rules.iter().enumerate() {
        let mut all = route.delegates.iter();
        let Some(delegate) = all.find(|delegate| delegate.rule == at) else {
            rules.push(rule.clone());
            continue;
        };
        match delegates.of(delegate) {
            Err(why) => rules.push(Rule {
                filters: vec![Filter::Unresolved(Arc::from(why))],
                ..rule.clone()
            }),
            Ok(to) => {
                let theirs = to.rules.iter().map(|theirs| Rule {
                    // A line is one of the file that the route is in.
                    line: match to.origin.file == route.origin.file {
                        true => theirs.line,
                        false => rule.line,
                    },
                    ..theirs.under(rule)
                });
                rules.extend(theirs);
            }
        }
    }
    rules
}
