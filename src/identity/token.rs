//! Join tokens as text: `lateen1.<id>.<secret>.<pin>.<crc>` (`spec/control-plane.md` §6.1).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

/// Version and kind of the text.
const PREFIX: &str = "lateen1";
/// Characters of an id: base32 (RFC 4648), lower case.
const ID_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// How many of them.
const ID_LENGTH: usize = 10;

/// A one-time permission for one machine to join, with the pin of the mesh's root.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Names the token; no secret.
    pub id: String,
    /// Proves it.
    pub secret: [u8; 32],
    /// SHA-256 of the root's SubjectPublicKeyInfo: whom to believe.
    pub pin: [u8; 32],
}

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Another shape altogether.
    #[error("this is no join token; one looks like lateen1.<id>.<secret>.<pin>.<checksum>")]
    Shape,
    /// A newer kind of token.
    #[error(
        "this join token is of a kind this version does not know; upgrade lateen on this machine"
    )]
    Version,
    /// Mistyped or cut short.
    #[error("this join token is damaged or cut short; copy it again, whole")]
    Checksum,
}

impl Token {
    /// A new token for a mesh whose root has this pin.
    pub fn new(pin: [u8; 32]) -> Self {
        let letters: [u8; ID_LENGTH] = rand::random();
        let letter = |b: &u8| {
            ID_ALPHABET
                .get(usize::from(b % 32))
                .copied()
                .map(char::from)
        };
        Self {
            id: letters.iter().filter_map(letter).collect(),
            secret: rand::random(),
            pin,
        }
    }

    fn body(&self) -> String {
        let (secret, pin) = (BASE64.encode(self.secret), BASE64.encode(self.pin));
        format!("{PREFIX}.{}.{secret}.{pin}", self.id)
    }

    /// The text that is handed to the machine.
    pub fn reveal(&self) -> String {
        let body = self.body();
        format!("{body}.{:08x}", crc32fast::hash(body.as_bytes()))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let (body, crc) = text.rsplit_once('.').ok_or(TokenError::Shape)?;
        let mut parts = body.split('.');
        let prefix = parts.next().unwrap_or_default();
        if prefix != PREFIX {
            let newer = prefix.starts_with("lateen");
            return Err(if newer {
                TokenError::Version
            } else {
                TokenError::Shape
            });
        }
        if crc != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
            return Err(TokenError::Checksum);
        }
        let (Some(id), Some(secret), Some(pin), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Checksum);
        };
        let legal = id.len() == ID_LENGTH && id.bytes().all(|b| ID_ALPHABET.contains(&b));
        match (decode(secret), decode(pin)) {
            (Some(secret), Some(pin)) if legal => Ok(Self {
                id: id.to_owned(),
                secret,
                pin,
            }),
            _ => Err(TokenError::Checksum),
        }
    }
}

fn decode(text: &str) -> Option<[u8; 32]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_never_shows_its_secret_by_accident() {
        let token = Token::new([7; 32]);
        let text = format!("{token:?}");
        assert!(!text.contains(&BASE64.encode(token.secret)), "{text}");
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        let good = Token::new([7; 32]).reveal();
        let cut = good.get(..good.len() - 12).unwrap();
        for (name, text, want) in [
            ("a word", "hello", TokenError::Shape),
            ("empty", "", TokenError::Shape),
            ("another prefix", "kube.a.b.c.d", TokenError::Shape),
            ("newer", "lateen2.a.b.c.d", TokenError::Version),
            ("cut short", cut, TokenError::Checksum),
        ] {
            assert_eq!(text.parse::<Token>(), Err(want), "{name}");
        }
        assert!(
            format!(" {good}\n").parse::<Token>().is_ok(),
            "white space around it"
        );
    }

    proptest! {
        #[test]
        fn tokens_round_trip(pin in any::<[u8; 32]>()) {
            let token = Token::new(pin);
            prop_assert_eq!(token.reveal().parse::<Token>(), Ok(token));
        }

        #[test]
        fn any_changed_character_is_noticed(at in 0usize..110, to in "[a-zA-Z0-9._-]") {
            let text = Token::new([9; 32]).reveal();
            let mut changed: Vec<char> = text.chars().collect();
            let at = at % changed.len();
            changed[at] = to.chars().next().unwrap();
            let changed: String = changed.into_iter().collect();
            prop_assert_eq!(changed.parse::<Token>().is_ok(), changed == text);
        }
    }
}
