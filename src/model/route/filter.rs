//! What a route does to a request or an answer on its way (`spec/waypoint-l7.md` §2.3–§2.5).

use std::sync::Arc;
use std::time::Duration;

use super::Regex;

/// One thing done on the way.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter<B> {
    /// Changes fields of the request.
    RequestHeaders(HeaderChange),
    /// Changes fields of a backend's answer.
    ResponseHeaders(HeaderChange),
    /// Sends the client elsewhere; no backend is asked.
    Redirect(Redirect),
    /// Changes path and host of the request.
    Rewrite(Rewrite),
    /// Sends a copy to somebody else too.
    Mirror(Mirror<B>),
    /// Answers for whom browsers may ask.
    Cors(Cors),
    /// Answers by itself.
    Direct(DirectResponse),
    /// A filter that is not there, and why: the rule answers 500.
    Unresolved(Arc<str>),
}

impl<B> Filter<B> {
    /// The same filter with its backend named another way.
    pub fn map<C>(&self, f: &mut (impl FnMut(&B) -> C + ?Sized)) -> Filter<C> {
        match self {
            Self::RequestHeaders(change) => Filter::RequestHeaders(change.clone()),
            Self::ResponseHeaders(change) => Filter::ResponseHeaders(change.clone()),
            Self::Redirect(redirect) => Filter::Redirect(redirect.clone()),
            Self::Rewrite(rewrite) => Filter::Rewrite(rewrite.clone()),
            Self::Mirror(mirror) => Filter::Mirror(Mirror {
                to: f(&mirror.to),
                share: mirror.share,
            }),
            Self::Cors(cors) => Filter::Cors(cors.clone()),
            Self::Direct(direct) => Filter::Direct(direct.clone()),
            Self::Unresolved(why) => Filter::Unresolved(Arc::clone(why)),
        }
    }
}

/// Fields to change, by lower-case name: first those to remove, then those to set, then those to add.
/// Of a name that is twice in a list only the first is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChange {
    /// Names to remove.
    pub remove: Vec<Arc<str>>,
    /// Replaces all fields of the name; `host` is the authority.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Appends a field.
    pub add: Vec<(Arc<str>, Arc<str>)>,
}

/// Where a client is sent (§2.4). What is absent stays as the request has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// The host, without port.
    pub host: Option<Arc<str>>,
    /// The port; absent, the scheme's where that is given, else the service port asked for.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// What of a request is changed before it goes on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewrite {
    /// The new `Host`.
    pub host: Option<Arc<str>>,
    /// The new path.
    pub path: Option<PathChange>,
}

/// How a path is changed; its query stays.
#[derive(Clone, Debug, PartialEq)]
pub enum PathChange {
    /// To this.
    Full(Arc<str>),
    /// The matched segments to these, with one `/` at the seam.
    Prefix(Arc<str>),
    /// The matched text to this, and nothing else: `virtual-service`'s `uri`, which replaces a matched
    /// prefix or the whole of any other path.
    Text(Arc<str>),
    /// What a pattern finds to this, in which `\1` is the first group.
    Regex(Regex, Arc<str>),
}

/// A share of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// So many
    pub numerator: u32,
    /// of so many; never 0.
    pub denominator: u32,
}

impl Fraction {
    /// All of them.
    pub const ALL: Self = Self {
        numerator: 1,
        denominator: 1,
    };

    /// Whether a draw, evenly from 0 to below 1, is within the share.
    pub fn takes(self, draw: f64) -> bool {
        draw * f64::from(self.denominator) < f64::from(self.numerator)
    }
}

/// Who gets a copy of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror<B> {
    /// Whom it goes to.
    pub to: B,
    /// Of which share of the requests.
    pub share: Fraction,
}

/// Which browsers may read the answers (§2.5).
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// Origins that may; any other may not.
    pub allow_origins: Vec<OriginPattern>,
    /// Methods; `*` is every one.
    pub allow_methods: Vec<Arc<str>>,
    /// Header fields a request may have; `*` is every one.
    pub allow_headers: Vec<Arc<str>>,
    /// Header fields of an answer that may be read.
    pub expose_headers: Vec<Arc<str>>,
    /// Whether cookies and the like may be sent.
    pub allow_credentials: bool,
    /// How long the answer to a preflight may be kept; not said where absent.
    pub max_age: Option<Duration>,
    /// What becomes of a preflight from another origin.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// An origin that is allowed.
#[derive(Clone, Debug, PartialEq)]
pub enum OriginPattern {
    /// Any that is well formed.
    Any,
    /// This one, lower case, its default port left out.
    Exact(Arc<str>),
    /// One that begins and ends so, lower case: what is around the one `*` of its host.
    Wildcard(Arc<str>, Arc<str>),
    /// One that begins so; `virtual-service` alone.
    Prefix(Arc<str>),
    /// One that matches as a whole; `virtual-service` alone.
    Regex(Regex),
}

/// What becomes of a preflight whose origin is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnmatchedPreflights {
    /// It is answered 200 without a word of permission: `http-route`.
    #[default]
    Refuse,
    /// It goes on to the backend: `virtual-service`'s default.
    Forward,
    /// The same as refusing, in `virtual-service`'s words.
    Ignore,
}

/// An answer without a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u16,
    /// Its text.
    pub body: Arc<str>,
}
