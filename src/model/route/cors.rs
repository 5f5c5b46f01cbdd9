//! Whether a browser may ask, and may read what it is answered (`spec/waypoint-l7.md` §2.5).

use std::sync::Arc;

use http::Method;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};

use super::origin::canonical;
use super::{Cors, UnmatchedPreflights};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsVerdict {
    /// It is of no other origin: it goes on.
    NotCors,
    /// A question whether it may be asked, answered 200 with these fields and nothing else.
    Preflight(HeaderMap),
    /// Such a question from an origin that may not: answered 200 without a word of permission.
    RefusedPreflight,
    /// It goes on, and its answer stays as it is.
    Forward,
    /// It goes on, and its answer gets these fields, in place of those the program has set.
    Expose(HeaderMap),
}

/// Whether a browser asks whether it may ask.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    let has = |name: HeaderName| headers.contains_key(name);
    method == Method::OPTIONS && has(ORIGIN) && has(ACCESS_CONTROL_REQUEST_METHOD)
}

impl Cors {
    /// What becomes of a request.
    pub fn judge(&self, method: &Method, headers: &HeaderMap) -> CorsVerdict {
        let Some(origin) = headers.get(ORIGIN) else {
            return CorsVerdict::NotCors;
        };
        let requested = headers.get(ACCESS_CONTROL_REQUEST_METHOD);
        let preflight = requested.filter(|_| method == Method::OPTIONS);
        match (self.allows(origin), preflight) {
            (true, Some(requested)) => {
                let fields = headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
                CorsVerdict::Preflight(self.permission(origin, requested, fields))
            }
            (true, None) => CorsVerdict::Expose(self.exposure(origin)),
            (false, Some(_)) => match self.unmatched_preflights {
                UnmatchedPreflights::Refuse | UnmatchedPreflights::Ignore => {
                    CorsVerdict::RefusedPreflight
                }
                UnmatchedPreflights::Forward => CorsVerdict::Forward,
            },
            (false, None) => CorsVerdict::Forward,
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(received) = origin.to_str() else {
            return false;
        };
        let canonical = canonical(received);
        let mut patterns = self.allow_origins.iter();
        patterns.any(|pattern| pattern.is_match(received, canonical.as_deref()))
    }

    /// What the answer to a preflight says.
    fn permission(
        &self,
        origin: &HeaderValue,
        method: &HeaderValue,
        fields: Option<&HeaderValue>,
    ) -> HeaderMap {
        let mut answer = self.exposure(origin);
        let methods = self.list(&self.allow_methods, Some(method));
        set(&mut answer, ACCESS_CONTROL_ALLOW_METHODS, methods);
        let fields = self.list(&self.allow_headers, fields);
        set(&mut answer, ACCESS_CONTROL_ALLOW_HEADERS, fields);
        if let Some(age) = self.max_age {
            answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(age.as_secs()));
        }
        answer.insert(VARY, HeaderValue::from_static("origin"));
        answer
    }

    /// What any answer to an origin that is allowed says.
    fn exposure(&self, origin: &HeaderValue) -> HeaderMap {
        let mut answer = HeaderMap::new();
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let exposed = self.list(&self.expose_headers, None);
        set(&mut answer, ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        if self.allow_credentials {
            let yes = HeaderValue::from_static("true");
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        answer
    }

    /// A list as it goes out. With credentials browsers read `*` as a name, so that what was
    /// requested stands for it.
    fn list(&self, list: &[Arc<str>], requested: Option<&HeaderValue>) -> Option<HeaderValue> {
        if !list.iter().any(|entry| **entry == *"*") {
            let text = list.join(", ");
            return HeaderValue::from_bytes(text.as_bytes())
                .ok()
                .filter(|v| !v.is_empty());
        }
        if self.allow_credentials {
            return requested.cloned();
        }
        Some(HeaderValue::from_static("*"))
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests;
