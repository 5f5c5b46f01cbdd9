//! What is wrong with a token, in the words of Envoy (`spec/waypoint-l7.md` §5.3).

/// Why a token is not valid. Its text is what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It has no three parts.
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    /// The header is no base64url.
    #[error("Jwt header is an invalid Base64url encoded")]
    HeaderEncoding,
    /// The header is no JSON object.
    #[error("Jwt header is an invalid JSON")]
    Header,
    /// The header names no algorithm.
    #[error("Jwt header [alg] field is required and must be a string")]
    NoAlgorithm,
    /// The header names another one than those that are believed.
    #[error("Jwt header [alg] is not supported")]
    Algorithm,
    /// The key is not named by a text.
    #[error("Jwt header [kid] field is not a string")]
    Kid,
    /// The payload is no base64url.
    #[error("Jwt payload is an invalid Base64url encoded")]
    PayloadEncoding,
    /// The payload is no JSON object.
    #[error("Jwt payload is an invalid JSON")]
    Payload,
    /// This claim is no text.
    #[error("Jwt payload [{0}] field is not a string")]
    NoText(&'static str),
    /// This claim is no time.
    #[error("Jwt payload [{0}] field is not an integer")]
    NoInteger(&'static str),
    /// This claim is no time after 1970.
    #[error("Jwt payload [{0}] field is not a positive 64 bit integer")]
    OutOfRange(&'static str),
    /// Nobody knows whom it is for.
    #[error("Jwt payload [aud] field is not a string or string list")]
    NoAudience,
    /// The signature is no base64url.
    #[error("Jwt signature is an invalid Base64url encoded")]
    SignatureEncoding,
    /// No rule is for its issuer.
    #[error("Jwt issuer is not configured")]
    Issuer,
    /// Its time has not come.
    #[error("Jwt not yet valid")]
    NotYet,
    /// Its time is over.
    #[error("Jwt is expired")]
    Expired,
    /// It is for others.
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    /// None of the issuer's keys can have signed it.
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoKey,
    /// None of them has.
    #[error("Jwt verification fails")]
    Signature,
    /// The issuer's keys are not known.
    #[error("Jwks remote fetch is failed")]
    NoKeys,
}

impl Invalid {
    /// The HTTP status that says so.
    pub fn status(self) -> u16 {
        match self {
            Self::Audience => 403,
            _ => 401,
        }
    }

    /// As Envoy's details of a response say it (§1.9).
    pub fn detail(self) -> String {
        let text = self.to_string().replace(' ', "_");
        format!("jwt_authn_access_denied{{{text}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_have_no_spaces() {
        let want = "jwt_authn_access_denied{Jwt_is_expired}";
        assert_eq!(Invalid::Expired.detail(), want);
    }

    #[test]
    fn audiences_are_forbidden_all_else_is_unauthorized() {
        for (invalid, want) in [
            (Invalid::Audience, 403),
            (Invalid::Expired, 401),
            (Invalid::NoKeys, 401),
        ] {
            assert_eq!(invalid.status(), want, "{invalid}");
        }
    }
}
