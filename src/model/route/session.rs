//! The token by which a client comes back to the endpoint it had (`spec/waypoint-l7.md` §2.7).
//!
//! It is sealed, so that clients neither learn where endpoints are nor make up tokens of their own.
//! All instances of a waypoint that share a key read each other's.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::service::ServiceKey;
use crate::model::waypoint::WaypointName;

/// What a token is sealed for: none that is sealed for another purpose, or in another form, opens.
const PURPOSE: &[u8] = b"lateen session 1";
/// Bytes of the longest token that is looked at.
const LONGEST: usize = 2048;

/// Where a client's requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The service.
    pub service: ServiceKey,
    /// Its service port.
    pub port: u16,
    /// The subset of it.
    pub subset: Option<Arc<str>>,
    /// The endpoint.
    pub endpoint: SocketAddr,
}

/// What tokens are sealed with.
#[derive(Clone)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// A key of random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key that a secret makes for one waypoint. Instances that have the same secret have the same
    /// key.
    pub fn derived(secret: &[u8], waypoint: &WaypointName) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let purpose = format!("lateen session key {waypoint}");
        let tag = hmac::sign(&secret, purpose.as_bytes());
        let mut bytes = [0; 32];
        let both = bytes.iter_mut().zip(tag.as_ref());
        both.for_each(|(byte, made)| *byte = *made);
        Self(bytes)
    }

    /// A session as a text fit for a cookie or a header field. Empty, which opens to nothing, where
    /// the cryptography fails.
    pub fn seal(&self, session: &Session) -> String {
        let mut text = session.encode().into_bytes();
        let sealed = self.aead().and_then(|aead| {
            let nonce = aead.seal_in_place_append_tag(Aad::from(PURPOSE), &mut text);
            nonce.ok()
        });
        sealed.map_or_else(String::new, |nonce| {
            text.extend_from_slice(nonce.as_ref());
            URL_SAFE_NO_PAD.encode(text)
        })
    }

    /// The session of a token; `None` where it was sealed with another key, or changed since.
    pub fn open(&self, token: &str) -> Option<Session> {
        let short = Some(token).filter(|token| token.len() <= LONGEST)?;
        let mut sealed = URL_SAFE_NO_PAD.decode(short).ok()?;
        let nonce = sealed.split_off(sealed.len().checked_sub(NONCE_LEN)?);
        let nonce = Nonce::try_assume_unique_for_key(&nonce).ok()?;
        let text = self
            .aead()?
            .open_in_place(nonce, Aad::from(PURPOSE), &mut sealed);
        Session::decode(std::str::from_utf8(text.ok()?).ok()?)
    }

    fn aead(&self) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, &self.0).ok()
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}

impl Session {
    /// One part a line: none of them has a line break in it.
    fn encode(&self) -> String {
        let ServiceKey {
            namespace,
            hostname,
        } = &self.service;
        let subset = self.subset.as_deref().unwrap_or_default();
        format!(
            "{namespace}\n{hostname}\n{}\n{subset}\n{}",
            self.port, self.endpoint
        )
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split('\n');
        let session = Self {
            service: ServiceKey {
                namespace: Arc::from(parts.next()?),
                hostname: Arc::from(parts.next()?),
            },
            port: parts.next()?.parse().ok()?,
            subset: Some(parts.next()?).filter(|s| !s.is_empty()).map(Arc::from),
            endpoint: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::key;

    fn session(subset: Option<&str>, endpoint: &str) -> Session {
        Session {
            service: key("cart"),
            port: 80,
            subset: subset.map(Arc::from),
            endpoint: endpoint.parse().unwrap(),
        }
    }

    #[test]
    fn tokens_open_to_what_was_sealed() {
        let key = SessionKey::new([7; 32]);
        for session in [
            session(None, "10.1.0.11:8080"),
            session(Some("v2"), "[2001:db8::1]:8080"),
        ] {
            let token = key.seal(&session);
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            assert!(!token.is_empty() && token.bytes().all(legal), "{token}");
            assert_ne!(token, key.seal(&session), "no two are alike");
            assert_eq!(key.open(&token), Some(session));
        }
    }

    #[test]
    fn who_has_the_secret_of_a_waypoint_reads_its_tokens() {
        let key = |secret, name: &str| SessionKey::derived(secret, &name.parse().unwrap());
        let mine = session(None, "10.1.0.11:8080");
        let token = key(&[7; 32], "shop/wp").seal(&mine);
        for (secret, name, want) in [
            (&[7; 32], "shop/wp", Some(&mine)),
            (&[8; 32], "shop/wp", None),
            (&[7; 32], "shop/other", None),
        ] {
            let opened = key(secret, name).open(&token);
            assert_eq!(opened.as_ref(), want, "{name}");
        }
    }

    #[test]
    fn other_tokens_do_not_open() {
        let key = SessionKey::new([7; 32]);
        let token = key.seal(&session(None, "10.1.0.11:8080"));
        assert_eq!(SessionKey::new([8; 32]).open(&token), None, "another key");
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(key.open(&changed), None, "changed at {at}");
        }
        let long = "A".repeat(LONGEST + 1);
        for text in ["", "A", "AAAAAAAA", "%%%", &token[1..], &token[..40], &long] {
            assert_eq!(key.open(text), None, "{text}");
        }
        assert_eq!(format!("{key:?}"), "SessionKey");
    }
}
