//! A token as it was sent: its parts read, nothing believed yet (`spec/waypoint-l7.md` §5.2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::Invalid;
use super::algorithm::Algorithm;
use crate::model::declaration::JwtRule;

/// How deep claims may lie in one another (`spec/reliability.md` §2 row 33).
const DEEPEST: usize = 64;
/// How far clocks may differ, in seconds.
const SKEW: u64 = 60;

/// A token in its parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Jwt<'t> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    /// It demands of its reader what this one does not know of (RFC 7515 §4.1.11).
    pub(super) demands: bool,
    pub(super) claims: Map<String, Value>,
    /// The payload as it was sent.
    pub(super) payload: &'t str,
    /// Header and payload as they were signed.
    pub(super) signed: &'t str,
    pub(super) signature: Vec<u8>,
    not_before: Option<u64>,
    expires: Option<u64>,
}

impl<'t> Jwt<'t> {
    /// Reads a token.
    ///
    /// # Errors
    /// [`Invalid`], the first thing that is wrong from its beginning.
    pub fn read(text: &'t str) -> Result<Self, Invalid> {
        let (signed, signature) = text.rsplit_once('.').ok_or(Invalid::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(Invalid::Form)?;
        if payload.contains('.') {
            return Err(Invalid::Form);
        }
        let header = decoded(header).ok_or(Invalid::HeaderEncoding)?;
        let header = object(&header).ok_or(Invalid::Header)?;
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) => Algorithm::named(name).ok_or(Invalid::Algorithm)?,
            _ => return Err(Invalid::NoAlgorithm),
        };
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()).filter(|kid| !kid.is_empty()),
            Some(_) => return Err(Invalid::Kid),
        };
        let claims = decoded(payload).ok_or(Invalid::PayloadEncoding)?;
        let claims = object(&claims).ok_or(Invalid::Payload)?;
        for name in ["iss", "sub"] {
            if !matches!(claims.get(name), None | Some(Value::String(_))) {
                return Err(Invalid::NoText(name));
            }
        }
        seconds(&claims, "iat")?;
        let not_before = seconds(&claims, "nbf")?;
        let expires = seconds(&claims, "exp")?;
        if !matches!(claims.get("jti"), None | Some(Value::String(_))) {
            return Err(Invalid::NoText("jti"));
        }
        audiences(&claims)?;
        let signature = decoded(signature).ok_or(Invalid::SignatureEncoding)?;
        Ok(Self {
            algorithm,
            kid,
            demands: header.contains_key("crit"),
            claims,
            payload,
            signed,
            signature,
            not_before,
            expires,
        })
    }

    /// The key that its header names.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// A claim that is a text; empty where it has none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.claims
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Whether a rule is for it, at this time in seconds since 1970. Who signed it is not looked at.
    ///
    /// # Errors
    /// [`Invalid`].
    pub(super) fn fits(&self, rule: &JwtRule, now: u64) -> Result<(), Invalid> {
        if let Some(issuer) = &rule.issuer
            && self.claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(Invalid::Issuer);
        }
        if self.not_before.is_some_and(|from| from > now + SKEW) {
            return Err(Invalid::NotYet);
        }
        if self.expires.is_some_and(|to| to.saturating_add(SKEW) < now) {
            return Err(Invalid::Expired);
        }
        if rule.audiences.is_empty() {
            return Ok(());
        }
        let meant = |audience: &&str| rule.audiences.iter().any(|a| bare(a) == bare(audience));
        match audiences(&self.claims)?.iter().any(meant) {
            true => Ok(()),
            false => Err(Invalid::Audience),
        }
    }
}

fn decoded(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn object(text: &[u8]) -> Option<Map<String, Value>> {
    let read: Value = serde_json::from_slice(text).ok()?;
    match read {
        Value::Object(entries) if !entries.values().any(|v| is_deep(v, DEEPEST)) => Some(entries),
        _ => None,
    }
}

/// Whether a value has more values in one another than that.
fn is_deep(value: &Value, left: usize) -> bool {
    let Some(left) = left.checked_sub(1) else {
        return true;
    };
    match value {
        Value::Array(all) => all.iter().any(|inner| is_deep(inner, left)),
        Value::Object(all) => all.values().any(|inner| is_deep(inner, left)),
        _ => false,
    }
}

/// A time. What is there and is none makes the token invalid: taken as absent, it would never end.
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, Invalid> {
    let number = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(Invalid::NoInteger(name)),
    };
    if let Some(whole) = number.as_u64() {
        return Ok(Some(whole));
    }
    match number.as_f64() {
        // What JSON writes with a point or an exponent may be whole all the same (RFC 7519 §2).
        Some(float) if float.fract() != 0.0 => Err(Invalid::NoInteger(name)),
        Some(float) if (0.0..18_446_744_073_709_551_616.0).contains(&float) => {
            Ok(Some(float as u64))
        }
        _ => Err(Invalid::OutOfRange(name)),
    }
}

/// Whom it is for.
fn audiences(claims: &Map<String, Value>) -> Result<Vec<&str>, Invalid> {
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(all)) => {
            let all = all
                .iter()
                .map(|one| one.as_str().ok_or(Invalid::NoAudience));
            all.collect()
        }
        Some(_) => Err(Invalid::NoAudience),
    }
}

/// An audience without what makes no difference (§5.1).
fn bare(audience: &str) -> &str {
    let secure = audience.strip_prefix("https://");
    let rest = secure.or_else(|| audience.strip_prefix("http://"));
    let rest = rest.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}
