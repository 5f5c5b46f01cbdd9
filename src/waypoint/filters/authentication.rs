//! Whether the tokens of a request are believed (`spec/waypoint-l7.md` §5).

use http::request::Parts;
use http::uri::Authority;

use super::Found;
use crate::clock;
use crate::hbone::Connector;
use crate::model::authentication::{Admitted, Refused, Request, Set};
use crate::model::authorization::Denial;
use crate::waypoint::Arrival;
use crate::waypoint::http::Reply;
use crate::waypoint::jwks::Ring;

/// How often one request waits for keys: until somebody asks for those that are named since a moment
/// ago, until they come, and for one that they do not have.
const ASKS: usize = 3;
/// Octets of the URL that is named in a challenge.
const LONGEST_REALM: usize = 256;

/// Believes a request's tokens or answers it, and tells the program what its rule says.
pub(super) async fn request<C: Connector>(
    arrival: &Arrival<C>,
    set: &Set,
    parts: &mut Parts,
    authority: &Authority,
    found: &mut Found,
) -> Result<(), Reply> {
    if let Some(key) = set.missing() {
        return Err(Reply::denied(&Denial::Missing(key.clone())));
    }
    if set.is_empty() {
        return Ok(());
    }
    match judge(arrival, set, parts).await {
        Ok(admitted) => {
            admitted.changes.apply(parts);
            found.token = admitted.token;
            Ok(())
        }
        Err(refused) => Err(Reply::unauthenticated(&refused, &realm(parts, authority))),
    }
}

async fn judge<C: Connector>(
    arrival: &Arrival<C>,
    set: &Set,
    parts: &Parts,
) -> Result<Admitted, Refused> {
    let request = Request {
        method: &parts.method,
        headers: &parts.headers,
        query: parts.uri.query(),
    };
    let mut asks = 0;
    loop {
        let ring = Ring::new(&arrival.shared.keys);
        let judged = set.judge(&request, clock::seconds(clock::now()), &ring);
        if judged.is_ok() || asks == ASKS || !ring.renew().await {
            return judged;
        }
        asks += 1;
    }
}

/// What a challenge is for: the URL that was asked for, without what may be secret in its query.
fn realm(parts: &Parts, authority: &Authority) -> String {
    let scheme = parts.uri.scheme_str().unwrap_or("http");
    let mut url = format!("{scheme}://{authority}{}", parts.uri.path());
    while url.len() > LONGEST_REALM {
        url.pop();
    }
    // Inside a quoted string these two would end it.
    url.replace('\\', "%5C").replace('"', "%22")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realm_is_the_url_cut_short() {
        let long = format!("/{}", "é".repeat(200));
        let cut = format!("http://echo:80/{}", "é".repeat(120));
        for (target, want) in [
            ("/x?access_token=secret", "http://echo:80/x"),
            ("https://other/x", "https://echo:80/x"),
            ("/a\"b", "http://echo:80/a%22b"),
            (&*long, &*cut),
        ] {
            let Ok(request) = http::Request::get(target).body(()) else {
                panic!("{target}");
            };
            let (parts, ()) = request.into_parts();
            let authority = "echo:80".parse().unwrap();
            assert_eq!(realm(&parts, &authority), want, "{target}");
        }
    }
}
