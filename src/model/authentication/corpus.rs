//! Tokens that must never be believed, and what is said of each (`spec/reliability.md` §2 rows 28, 29).

use serde_json::{Value, json};

use super::testing::{Signer, encoded};

/// The issuer whose tokens these pretend to be, and the one audience that is allowed.
pub(crate) const ISSUER: &str = "issuer-1";
pub(crate) const AUDIENCE: &str = "foo";

const FORM: &str =
    "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
const HEADER_ENCODING: &str = "Jwt header is an invalid Base64url encoded";
const HEADER: &str = "Jwt header is an invalid JSON";
const NO_ALGORITHM: &str = "Jwt header [alg] field is required and must be a string";
const ALGORITHM: &str = "Jwt header [alg] is not supported";
const KID: &str = "Jwt header [kid] field is not a string";
const PAYLOAD_ENCODING: &str = "Jwt payload is an invalid Base64url encoded";
const PAYLOAD: &str = "Jwt payload is an invalid JSON";
const AUD: &str = "Jwt payload [aud] field is not a string or string list";
const SIGNATURE_ENCODING: &str = "Jwt signature is an invalid Base64url encoded";
const EXPIRED: &str = "Jwt is expired";
const NOT_YET: &str = "Jwt not yet valid";
const ISSUER_UNKNOWN: &str = "Jwt issuer is not configured";
const AUDIENCES: &str = "Audiences in Jwt are not allowed";
const NO_KEY: &str = "Jwks doesn't have key to match kid or alg from Jwt";
const FAILS: &str = "Jwt verification fails";

/// A token and what is said of it.
pub(crate) struct Defect {
    pub(crate) name: &'static str,
    pub(crate) token: String,
    pub(crate) body: &'static str,
}

impl Defect {
    pub(crate) fn status(&self) -> u16 {
        match self.body == AUDIENCES {
            true => 403,
            false => 401,
        }
    }
}

/// The keys of the issuer, and of somebody else.
pub(crate) struct Issuer {
    pub(crate) rsa: Signer,
    pub(crate) p256: Signer,
    pub(crate) p384: Signer,
    pub(crate) edwards: Signer,
    /// By the name of the issuer's own.
    forger: Signer,
    forger_p256: Signer,
    unknown: Signer,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let forger = Signer::new("RS256", Some("rsa"));
        Self {
            rsa: Signer::new("RS256", Some("rsa")),
            p256: Signer::new("ES256", Some("p256")),
            p384: Signer::new("ES384", Some("p384")),
            edwards: Signer::new("EdDSA", Some("edwards")),
            unknown: forger.called(Some("unknown")),
            forger,
            forger_p256: Signer::new("ES256", Some("p256")),
        }
    }

    /// What it publishes.
    pub(crate) fn jwks(&self) -> String {
        let pinned = |signer: &Signer, alg: &str| {
            let mut jwk = signer.jwk();
            jwk["alg"] = json!(alg);
            jwk
        };
        super::testing::jwks(&[
            pinned(&self.rsa, "RS256"),
            self.p256.jwk(),
            self.p384.jwk(),
            self.edwards.jwk(),
        ])
    }

    /// The claims of a token that is good.
    pub(crate) fn claims(&self, now: u64) -> Value {
        json!({"iss": ISSUER, "sub": "sub-1", "aud": AUDIENCE, "exp": now + 3600})
    }

    fn with(&self, now: u64, name: &str, value: Value) -> String {
        let mut claims = self.claims(now);
        claims[name] = value;
        self.rsa.token("RS256", &claims)
    }

    /// All that is wrong with tokens, at this time.
    pub(crate) fn defects(&self, now: u64) -> Vec<Defect> {
        let mut all = Vec::new();
        let mut add = |name, token: String, body| all.push(Defect { name, token, body });
        self.shapes(now, &mut add);
        self.headers(now, &mut add);
        self.payloads(now, &mut add);
        self.claims_of(now, &mut add);
        self.signatures(now, &mut add);
        self.confusions(now, &mut add);
        all
    }

    fn shapes(&self, now: u64, add: &mut impl FnMut(&'static str, String, &'static str)) {
        let good = self.rsa.token("RS256", &self.claims(now));
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let (header, payload) = signed.split_once('.').unwrap();
        add("one part", "token".to_owned(), FORM);
        add("two parts", signed.to_owned(), FORM);
        add("four parts", format!("{good}.{signature}"), FORM);
        add(
            "a fifth part of an encrypted one",
            format!("{good}.a.b"),
            FORM,
        );
        add("a dot at the end", format!("{good}."), FORM);
        add("a dot in front", format!(".{good}"), FORM);
        add("dots alone", "..".to_owned(), HEADER);
        add("no header", format!(".{payload}.{signature}"), HEADER);
        add("no payload", format!("{header}..{signature}"), PAYLOAD);
        add("two tokens", format!("{good},{good}"), FORM);
        add("a word behind", format!("{good} x"), SIGNATURE_ENCODING);
        add("a prefix twice", format!("Bearer {good}"), HEADER_ENCODING);
    }

    fn headers(&self, now: u64, add: &mut impl FnMut(&'static str, String, &'static str)) {
        let payload = encoded(self.claims(now).to_string());
        let sealed = |header: &str| self.rsa.sealed(header, &payload, "RS256");
        add(
            "header: base64, not base64url",
            sealed("ey+/"),
            HEADER_ENCODING,
        );
        add(
            "header: padded",
            sealed("eyJhbGciOiJSUzI1NiJ9Cg=="),
            HEADER_ENCODING,
        );
        add(
            "header: bits left over",
            sealed("eyJhbGciOiJSUzI1NiJ9Ch"),
            HEADER_ENCODING,
        );
        add("header: no base64 at all", sealed("%%%"), HEADER_ENCODING);
        let plain = |header: &str| sealed(&encoded(header));
        add("header: no JSON", plain("alg=RS256"), HEADER);
        add("header: JSON cut short", plain(r#"{"alg":"RS256""#), HEADER);
        add(
            "header: JSON and more",
            plain(r#"{"alg":"RS256"}{}"#),
            HEADER,
        );
        add("header: a list", plain(r#"["RS256"]"#), HEADER);
        add("header: a text", plain(r#""RS256""#), HEADER);
        add("header: null", plain("null"), HEADER);
        let not_utf8 = encoded(b"{\"alg\":\"RS256\",\"x\":\"\xff\"}");
        add("header: no UTF-8", sealed(&not_utf8), HEADER);
        let deep = format!(
            r#"{{"alg":"RS256","x":{}1{}}}"#,
            "[".repeat(80),
            "]".repeat(80)
        );
        add("header: too deep", plain(&deep), HEADER);
        add("alg absent", plain("{}"), NO_ALGORITHM);
        add("alg null", plain(r#"{"alg":null}"#), NO_ALGORITHM);
        add("alg a number", plain(r#"{"alg":256}"#), NO_ALGORITHM);
        add("alg a list", plain(r#"{"alg":["RS256"]}"#), NO_ALGORITHM);
        add("alg in capitals", plain(r#"{"ALG":"RS256"}"#), NO_ALGORITHM);
        for (name, alg) in [
            ("alg empty", ""),
            ("alg none", "none"),
            ("alg None", "None"),
            ("alg nOnE", "nOnE"),
            ("alg in lower case", "rs256"),
            ("alg with a space", "RS256 "),
            ("alg HS256", "HS256"),
            ("alg HS512", "HS512"),
            ("alg of encryption", "RSA-OAEP"),
            ("alg of another curve", "ES256K"),
            ("alg unknown", "RS1"),
        ] {
            add(
                name,
                plain(&json!({"alg": alg, "kid": "rsa"}).to_string()),
                ALGORITHM,
            );
        }
        add("kid a number", plain(r#"{"alg":"RS256","kid":1}"#), KID);
        add("kid null", plain(r#"{"alg":"RS256","kid":null}"#), KID);
        add("kid a list", plain(r#"{"alg":"RS256","kid":["rsa"]}"#), KID);
        add(
            "kid a table",
            plain(r#"{"alg":"RS256","kid":{"a":1}}"#),
            KID,
        );
        let critical = r#"{"alg":"RS256","kid":"rsa","crit":["b64"],"b64":false}"#;
        add("demands unknown", plain(critical), FAILS);
    }

    fn payloads(&self, now: u64, add: &mut impl FnMut(&'static str, String, &'static str)) {
        let header = encoded(r#"{"alg":"RS256","kid":"rsa"}"#);
        let sealed = |payload: &str| self.rsa.sealed(&header, payload, "RS256");
        add("payload: padded", sealed("e30="), PAYLOAD_ENCODING);
        add("payload: no base64", sealed("e3 0"), PAYLOAD_ENCODING);
        add("payload: one letter", sealed("e"), PAYLOAD_ENCODING);
        let plain = |payload: &str| sealed(&encoded(payload));
        add("payload: no JSON", plain("iss"), PAYLOAD);
        add("payload: a list", plain("[]"), PAYLOAD);
        add("payload: a number", plain("1"), PAYLOAD);
        add(
            "payload: JSON cut short",
            plain(r#"{"iss":"issuer-1"#),
            PAYLOAD,
        );
        add("payload: two of them", plain("{} {}"), PAYLOAD);
        let deep = format!(
            r#"{{"iss":"issuer-1","x":{}1{}}}"#,
            "[".repeat(65),
            "]".repeat(65)
        );
        add("payload: too deep", plain(&deep), PAYLOAD);
        let bottomless = "[".repeat(30_000);
        add("payload: no bottom", plain(&bottomless), PAYLOAD);
        let far = format!(r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","exp":1e400}}"#);
        add("exp beyond all numbers", plain(&far), PAYLOAD);
        add("no claims", plain("{}"), ISSUER_UNKNOWN);
        let twice = format!(
            r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","exp":{},"exp":1}}"#,
            now + 60
        );
        add("exp twice, the last over", plain(&twice), EXPIRED);
    }

    fn claims_of(&self, now: u64, add: &mut impl FnMut(&'static str, String, &'static str)) {
        const EXP: &str = "Jwt payload [exp] field is not an integer";
        const NBF: &str = "Jwt payload [nbf] field is not an integer";
        const IAT: &str = "Jwt payload [iat] field is not an integer";
        const EXP_RANGE: &str = "Jwt payload [exp] field is not a positive 64 bit integer";
        const NBF_RANGE: &str = "Jwt payload [nbf] field is not a positive 64 bit integer";
        for (name, claim, value, body) in [
            ("iss of another", "iss", json!("issuer-3"), ISSUER_UNKNOWN),
            ("iss longer", "iss", json!("issuer-1/"), ISSUER_UNKNOWN),
            ("iss in capitals", "iss", json!("ISSUER-1"), ISSUER_UNKNOWN),
            ("iss empty", "iss", json!(""), ISSUER_UNKNOWN),
            (
                "iss a list",
                "iss",
                json!([ISSUER]),
                "Jwt payload [iss] field is not a string",
            ),
            (
                "iss null",
                "iss",
                json!(null),
                "Jwt payload [iss] field is not a string",
            ),
            (
                "sub a number",
                "sub",
                json!(1),
                "Jwt payload [sub] field is not a string",
            ),
            (
                "sub a table",
                "sub",
                json!({"a": 1}),
                "Jwt payload [sub] field is not a string",
            ),
            (
                "jti a number",
                "jti",
                json!(1),
                "Jwt payload [jti] field is not a string",
            ),
            ("exp a text", "exp", json!((now + 60).to_string()), EXP),
            ("exp a list", "exp", json!([now + 60]), EXP),
            ("exp null", "exp", json!(null), EXP),
            ("exp true", "exp", json!(true), EXP),
            ("exp between seconds", "exp", json!(4_000_000_000.5), EXP),
            ("exp negative", "exp", json!(-1), EXP_RANGE),
            ("exp too far", "exp", json!(1e30), EXP_RANGE),
            ("exp zero", "exp", json!(0), EXPIRED),
            ("exp just over", "exp", json!(now - 120), EXPIRED),
            ("exp as milliseconds ago", "exp", json!(1), EXPIRED),
            ("nbf a text", "nbf", json!("0"), NBF),
            ("nbf a table", "nbf", json!({}), NBF),
            ("nbf negative", "nbf", json!(-5), NBF_RANGE),
            ("nbf to come", "nbf", json!(now + 240), NOT_YET),
            ("nbf in milliseconds", "nbf", json!(now * 1000), NOT_YET),
            ("nbf at the end of time", "nbf", json!(u64::MAX), NOT_YET),
            ("iat a text", "iat", json!("now"), IAT),
            ("aud a number", "aud", json!(1), AUD),
            ("aud null", "aud", json!(null), AUD),
            ("aud a table", "aud", json!({"foo": true}), AUD),
            ("aud a list with a number", "aud", json!(["foo", 1]), AUD),
            ("aud of another", "aud", json!("bar"), AUDIENCES),
            ("aud of others", "aud", json!(["bar", "baz"]), AUDIENCES),
            ("aud nobody", "aud", json!([]), AUDIENCES),
            ("aud in capitals", "aud", json!("FOO"), AUDIENCES),
            ("aud longer", "aud", json!("food"), AUDIENCES),
            ("aud a path", "aud", json!("https://foo/bar"), AUDIENCES),
        ] {
            add(name, self.with(now, claim, value), body);
        }
        let mut for_nobody = self.claims(now);
        for_nobody.as_object_mut().unwrap().remove("aud");
        add(
            "aud absent",
            self.rsa.token("RS256", &for_nobody),
            AUDIENCES,
        );
    }

    fn signatures(&self, now: u64, add: &mut impl FnMut(&'static str, String, &'static str)) {
        let claims = self.claims(now);
        let good = self.rsa.token("RS256", &claims);
        let (signed, signature) = good.rsplit_once('.').unwrap();
        add("signature absent", format!("{signed}."), FAILS);
        add(
            "signature no base64",
            format!("{signed}.!"),
            SIGNATURE_ENCODING,
        );
        add(
            "signature padded",
            format!("{signed}.{signature}="),
            SIGNATURE_ENCODING,
        );
        // Whole octets: 256 of them are 342 letters.
        let short = &signature[..340];
        add("signature cut short", format!("{signed}.{short}"), FAILS);
        add(
            "signature longer",
            format!("{signed}.{signature}AAAA"),
            FAILS,
        );
        add(
            "signature of zeros",
            format!("{signed}.{}", encoded([0; 256])),
            FAILS,
        );
        let other = self.with(now, "sub", json!("admin"));
        let (others, _) = other.rsplit_once('.').unwrap();
        add(
            "signature of other claims",
            format!("{others}.{signature}"),
            FAILS,
        );
        add(
            "forged by the same name",
            self.forger.token("RS256", &claims),
            FAILS,
        );
        add(
            "forged on the curve",
            self.forger_p256.token("ES256", &claims),
            FAILS,
        );
        let nameless = self.forger.called(None).token("RS256", &claims);
        add("forged without a name", nameless, FAILS);
        add(
            "by an unknown key",
            self.unknown.token("RS256", &claims),
            NO_KEY,
        );
        let on_curve = self.p256.token("ES256", &claims);
        let (signed, _) = on_curve.rsplit_once('.').unwrap();
        add(
            "a signature of zeros on the curve",
            format!("{signed}.{}", encoded([0; 64])),
            FAILS,
        );
        add("an empty one on the curve", format!("{signed}."), FAILS);
        let mut over = claims;
        over["exp"] = json!(now - 3600);
        add(
            "forged and over",
            self.forger.token("RS256", &over),
            EXPIRED,
        );
    }

    fn confusions(&self, now: u64, add: &mut impl FnMut(&'static str, String, &'static str)) {
        let claims = self.claims(now).to_string();
        let header = |alg: &str, kid: &str| json!({"alg": alg, "kid": kid}).to_string();
        let rsa = |alg: &str, kid: &str| self.rsa.signed(&header(alg, kid), &claims, alg);
        add("RS384 where RS256 is pinned", rsa("RS384", "rsa"), NO_KEY);
        add("PS256 where RS256 is pinned", rsa("PS256", "rsa"), NO_KEY);
        add("RSA by the name of a point", rsa("RS256", "p256"), NO_KEY);
        add(
            "a point by the name of RSA",
            self.p256.signed(&header("ES256", "rsa"), &claims, "ES256"),
            NO_KEY,
        );
        add(
            "ES384 with a point of P-256",
            self.p256.signed(&header("ES384", "p256"), &claims, "ES256"),
            NO_KEY,
        );
        add(
            "ES256 with a point of P-384",
            self.p384.signed(&header("ES256", "p384"), &claims, "ES384"),
            NO_KEY,
        );
        add(
            "EdDSA with a point of P-256",
            self.p256.signed(&header("EdDSA", "p256"), &claims, "ES256"),
            NO_KEY,
        );
        add(
            "an RSA signature said to be EdDSA",
            self.rsa
                .signed(&header("EdDSA", "edwards"), &claims, "RS256"),
            FAILS,
        );
        let own = json!({"alg": "RS256", "kid": "own", "jwk": self.forger.jwk(), "jku": "http://forger/"});
        add(
            "a key that it brings itself",
            self.forger.signed(&own.to_string(), &claims, "RS256"),
            NO_KEY,
        );
        let named = json!({"alg": "RS256", "kid": "rsa", "jwk": self.forger.jwk()});
        add(
            "a key that it brings by a known name",
            self.forger.signed(&named.to_string(), &claims, "RS256"),
            FAILS,
        );
        let path = header("RS256", "../../dev/null");
        add(
            "a name that is a path",
            self.rsa.signed(&path, &claims, "RS256"),
            NO_KEY,
        );
    }
}
