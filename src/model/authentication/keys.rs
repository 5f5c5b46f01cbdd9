//! The keys of an issuer (RFC 7517), and whether one of them has signed a token.
//!
//! What a set says beyond what is used is left alone, and so is a key of another kind than those that
//! sign tokens: others may be for it. What is used is read strictly, and a key that does not read is as
//! good as not there.

use std::fmt;

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::{Invalid, Jwt};

/// Most keys of one issuer: a token that names none is tried with each (`spec/reliability.md` §2b).
const MOST: usize = 64;
/// Bits of an RSA key (RFC 7518 §3.3), the upper bound so that no token is dear.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// An issuer's keys.
pub struct Keys {
    keys: Vec<Key>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids: Vec<_> = self.keys.iter().map(|key| &key.kid).collect();
        f.debug_struct("Keys").field("kids", &kids).finish()
    }
}

/// Why a text is no key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It is no JSON object.
    #[error("it is no JSON object")]
    Json,
    /// It has no list of keys.
    #[error("it has no list `keys`")]
    NoList,
    /// It has too many.
    #[error("it has {0} keys, and {MOST} are the most")]
    TooMany(usize),
}

struct Key {
    kid: Option<String>,
    /// The one algorithm that it is for; whatever its kind allows where absent.
    algorithm: Option<Algorithm>,
    material: Material,
}

enum Material {
    Rsa(PublicKeyComponents<Vec<u8>>),
    Elliptic(Algorithm, ParsedPublicKey),
}

impl Keys {
    /// Reads a JSON Web Key Set. One without a key that could sign tokens is read, too: an issuer may
    /// take all of his keys back.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn read(text: &[u8]) -> Result<Self, KeysError> {
        let read: Value = serde_json::from_slice(text).map_err(|_syntax| KeysError::Json)?;
        let set = read.as_object().ok_or(KeysError::Json)?;
        let list = set.get("keys").and_then(Value::as_array);
        let list = list.ok_or(KeysError::NoList)?;
        if list.len() > MOST {
            return Err(KeysError::TooMany(list.len()));
        }
        let keys = list.iter().filter_map(|key| Key::read(key.as_object()?));
        Ok(Self {
            keys: keys.collect(),
        })
    }

    /// How many can sign tokens.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none of that kind.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the same names are in both, in the same order.
    pub fn is_alike(&self, other: &Self) -> bool {
        let names = |keys: &Self| {
            keys.keys
                .iter()
                .map(|key| key.kid.clone())
                .collect::<Vec<_>>()
        };
        names(self) == names(other)
    }

    /// Whether a key of this very name is among them.
    pub fn knows(&self, kid: Option<&str>) -> bool {
        kid.is_some() && self.keys.iter().any(|key| key.kid.as_deref() == kid)
    }

    /// Whether one of them has signed a token.
    ///
    /// # Errors
    /// [`Invalid::NoKey`], [`Invalid::Signature`].
    pub fn verify(&self, jwt: &Jwt<'_>) -> Result<(), Invalid> {
        let mut fitting = self.keys.iter().filter(|key| key.fits(jwt)).peekable();
        if fitting.peek().is_none() {
            return Err(Invalid::NoKey);
        }
        match !jwt.demands && fitting.any(|key| key.has_signed(jwt)) {
            true => Ok(()),
            false => Err(Invalid::Signature),
        }
    }
}

impl Key {
    fn read(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| match jwk.get(name) {
            None => Some(None),
            Some(Value::String(text)) => Some(Some(text.as_str())),
            Some(_) => None,
        };
        if text("use")?.is_some_and(|of| of != "sig") || !may_verify(jwk) {
            return None;
        }
        let algorithm = match text("alg")? {
            None => None,
            Some(name) => Some(Algorithm::named(name)?),
        };
        let kid = text("kid")?.filter(|kid| !kid.is_empty());
        Some(Self {
            kid: kid.map(str::to_owned),
            algorithm,
            material: match text("kty")?? {
                "RSA" => rsa(jwk)?,
                "EC" => elliptic(jwk)?,
                "OKP" => edwards(jwk)?,
                _ => return None,
            },
        })
    }

    /// Whether it could have signed a token, by what both say of themselves.
    fn fits(&self, jwt: &Jwt<'_>) -> bool {
        let named = match (&self.kid, &jwt.kid) {
            (Some(own), Some(asked)) => own == asked,
            _ => true,
        };
        let kind = match &self.material {
            Material::Rsa(_) => of_rsa(jwt.algorithm).is_some(),
            Material::Elliptic(own, _) => *own == jwt.algorithm,
        };
        named && kind && self.algorithm.is_none_or(|own| own == jwt.algorithm)
    }

    fn has_signed(&self, jwt: &Jwt<'_>) -> bool {
        let (message, signature) = (jwt.signed.as_bytes(), &jwt.signature);
        match &self.material {
            Material::Rsa(key) => of_rsa(jwt.algorithm)
                .is_some_and(|rules| key.verify(rules, message, signature).is_ok()),
            Material::Elliptic(_, key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

fn may_verify(jwk: &Map<String, Value>) -> bool {
    match jwk.get("key_ops") {
        None => true,
        Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some("verify")),
        Some(_) => false,
    }
}

fn of_rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512 | Algorithm::EdDsa => return None,
    })
}

fn octets(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(jwk.get(name)?.as_str()?).ok()
}

fn rsa(jwk: &Map<String, Value>) -> Option<Material> {
    let number = |name: &str| {
        let octets = octets(jwk, name)?;
        let zeros = octets.iter().take_while(|octet| **octet == 0).count();
        octets.get(zeros..).map(<[u8]>::to_vec)
    };
    let (n, e) = (number("n")?, number("e")?);
    let bits = n.len() * 8 - usize::try_from(n.first()?.leading_zeros()).ok()?;
    // With an exponent of 1 whatever is sent is its own signature.
    let exponent_holds = match e.as_slice() {
        [small] => *small >= 3 && small % 2 == 1,
        [_, .., last] => e.len() <= 4 && last % 2 == 1,
        [] => false,
    };
    let holds = RSA_BITS.contains(&bits) && exponent_holds;
    holds.then_some(Material::Rsa(PublicKeyComponents { n, e }))
}

/// A point of a curve, uncompressed (SEC 1 §2.3.3).
fn elliptic(jwk: &Map<String, Value>) -> Option<Material> {
    let (algorithm, rules, length): (_, &'static dyn VerificationAlgorithm, _) =
        match jwk.get("crv")?.as_str()? {
            "P-256" => (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED, 32),
            "P-384" => (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED, 48),
            "P-521" => (Algorithm::Es512, &ECDSA_P521_SHA512_FIXED, 66),
            _ => return None,
        };
    let (x, y) = (octets(jwk, "x")?, octets(jwk, "y")?);
    if x.len() != length || y.len() != length {
        return None;
    }
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    let key = ParsedPublicKey::new(rules, point).ok()?;
    Some(Material::Elliptic(algorithm, key))
}

fn edwards(jwk: &Map<String, Value>) -> Option<Material> {
    let x = octets(jwk, "x")?;
    if jwk.get("crv")?.as_str()? != "Ed25519" || x.len() != 32 {
        return None;
    }
    let key = ParsedPublicKey::new(&ED25519, x).ok()?;
    Some(Material::Elliptic(Algorithm::EdDsa, key))
}
