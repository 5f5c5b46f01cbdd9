//! What is wrong with a set of files, said so that a person can mend it and a program can sort it.

mod json;
mod text;

use std::fmt;

use super::source::Place;

pub use text::{Drawing, Style};

/// Whether files with such a finding can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// They cannot.
    Error,
    /// They can, but perhaps not as meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $severity:ident $text:literal,)+) => {
        /// The kind of a finding. Its text is stable: scripts may match on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The stable text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// How grave it is; the same for every finding of one kind.
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)+ }
            }
        }
    };
}

codes! {
    /// A file or directory cannot be read.
    Unreadable = Error "unreadable",
    /// A limit on size, depth or number is exceeded (`spec/reliability.md` §2b).
    TooLarge = Error "too-large",
    /// A file is not TOML.
    Syntax = Error "syntax",
    /// A key or kind that does not exist.
    UnknownKey = Error "unknown-key",
    /// A value of another type than its key takes.
    WrongType = Error "wrong-type",
    /// A value of the right type that means nothing.
    BadValue = Error "bad-value",
    /// A name that cannot be one.
    BadName = Error "bad-name",
    /// A key that must be there and is not.
    MissingKey = Error "missing-key",
    /// Two keys, or a key and a label, that contradict each other.
    ConflictingKeys = Error "conflicting-keys",
    /// Something real that this version does not do.
    Unsupported = Error "unsupported",
    /// Two resources of one kind, namespace and name.
    DuplicateName = Error "duplicate-name",
    /// One address for two resources.
    DuplicateAddress = Error "duplicate-address",
    /// More than one `[mesh]` table.
    DuplicateSettings = Error "duplicate-mesh-table",
    /// A workload on a node that is not declared.
    UnknownNode = Error "unknown-node",
    /// A resource in a namespace that is not declared.
    UnknownNamespace = Error "unknown-namespace",
    /// A workload under a service account its namespace does not have.
    UnknownServiceAccount = Error "unknown-service-account",
    /// A waypoint that is not declared; named after the condition of `spec/labels-and-policy.md` §1.10.
    WaypointIsNotReady = Error "WaypointIsNotReady",
    /// A waypoint that does not admit the namespace; named likewise.
    AttachmentDenied = Error "AttachmentDenied",
    /// A waypoint that is for other traffic than what names it; named likewise.
    UnsupportedTrafficType = Error "UnsupportedTrafficType",
    /// A waypoint of another namespace than the one that alone sees what names it; named likewise.
    CrossNamespaceWaypointForbidden = Error "CrossNamespaceWaypointForbidden",
    /// A service's address that lies in no service range.
    OutsideServiceRange = Error "outside-service-range",
    /// A machine's or workload's address that lies in a service range.
    InsideServiceRange = Error "inside-service-range",
    /// Capture, or enrolment, of a workload that is on no node.
    WithoutNode = Error "without-node",
    /// An address of a workload on its machine's own network that is not the machine's.
    NotOfNode = Error "not-of-node",
    /// One port of one address for two workloads that share it.
    DuplicatePort = Error "duplicate-port",
    /// A workload on a node that is enrolled, and does not say how it is captured.
    WithoutCapture = Error "without-capture",
    /// A mesh directory without any file.
    EmptyDirectory = Warning "empty-directory",
    /// A selector that no workload matches.
    SelectorMatchesNothing = Warning "selector-matches-nothing",
    /// A namespace's waypoint that is for workloads, while there are services.
    UnsupportedTrafficTypeInherited = Warning "UnsupportedTrafficType-inherited",
    /// A waypoint that yields to the namespace's, being for other traffic than what names it.
    WaypointFallThrough = Warning "waypoint-fall-through",
    /// A second waypoint that takes no traffic.
    CanaryNotUsed = Warning "canary-not-used",
    /// A service behind a waypoint whose workloads take what passed none.
    OpenPastWaypoint = Warning "open-past-waypoint",
    /// A service-entry for a wildcard that is behind no waypoint; named after the condition of
    /// `spec/labels-and-policy.md` §1.9.
    NoWaypointForWildcardService = Warning "NoWaypointForWildcardService",
    /// Something written that has no effect.
    NoEffect = Warning "no-effect",
    /// A policy, or a filter of a route, that is kept and not enforced.
    NotInForce = Warning "not-in-force",
    /// What a policy or destination rule is for, and is not declared; named after the condition of `spec/labels-and-policy.md` §1.9.
    TargetNotFound = Warning "TargetNotFound",
    /// A provider that a policy names and that cannot be asked, or one that is no service of the mesh.
    ProviderNotFound = Warning "provider-not-found",
    /// A policy for a service that is behind no waypoint; named likewise.
    AncestorNotBound = Warning "AncestorNotBound",
    /// A policy that denies by path, where nobody has said how paths are normalised.
    SlashesPass = Warning "slashes-pass",
    /// A route's parent that is not declared, or has no such port; named after Gateway API's condition.
    NoMatchingParent = Warning "NoMatchingParent",
    /// A route's backend that is not declared, or has no such port; named likewise.
    BackendNotFound = Warning "BackendNotFound",
    /// A value of a policy that nothing in this mesh can have.
    NeverMatches = Warning "never-matches",
    /// A policy that lets nobody in.
    AllowsNothing = Warning "allows-nothing",
    /// A rule that node proxies leave out, so that less is allowed than is written.
    AllowsLess = Warning "allows-less",
    /// A rule that is enforced without its HTTP part where there is no HTTP, so that more is denied than is written.
    DeniesMore = Warning "denies-more",
    /// A rule, or part of one, that node proxies never match, so that it denies nothing there.
    DeniesNothing = Warning "denies-nothing",
    /// A peer-authentication, a destination rule, a route or a match that another one of the same reach
    /// takes the place of.
    Superseded = Warning "superseded",
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    code: Code,
    place: Place,
    message: String,
    label: Option<String>,
    help: Option<String>,
    related: Vec<Related>,
}

/// Another place that belongs to a finding.
#[derive(Clone, Debug)]
pub struct Related {
    /// Where.
    pub place: Place,
    /// What is there.
    pub label: String,
}

impl Diagnostic {
    /// A finding at a place; `message` says what was found and, where it helps, what was expected.
    pub fn new(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self {
            code,
            place,
            message: message.into(),
            label: None,
            help: None,
            related: Vec::new(),
        }
    }

    /// Adds the few words that stand under the underlined text.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related.push(Related {
            place,
            label: label.into(),
        });
        self
    }

    /// What kind it is.
    pub fn code(&self) -> Code {
        self.code
    }

    /// How grave it is.
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Other places that belong to it.
    pub fn related_places(&self) -> &[Related] {
        &self.related
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `mesh/shop.toml:14:9: error: … [bad-value]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, severity) = (&self.place, self.severity().as_str());
        let (message, code) = (&self.message, self.code.as_str());
        write!(f, "{place}: {severity}: {message} [{code}]")
    }
}

/// Everything found in a set of files, in the order of files and places.
#[derive(Clone, Debug, Default)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// The findings.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// How many errors there are; the files can be used when there are none.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        let of_it = self.diagnostics.iter().filter(|d| d.severity() == severity);
        of_it.count()
    }
}

impl FromIterator<Diagnostic> for Report {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(found: I) -> Self {
        let mut diagnostics: Vec<_> = found.into_iter().collect();
        diagnostics.sort_by(|a, b| {
            let key = |d: &Diagnostic| (d.severity(), d.code);
            let order = a.place.order().cmp(&b.place.order());
            order.then_with(|| key(a).cmp(&key(b)))
        });
        Self { diagnostics }
    }
}

impl fmt::Display for Report {
    /// One line per finding, and one of help where there is any: for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{diagnostic}")?;
            if let Some(help) = &diagnostic.help {
                write!(f, "\n  help: {help}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

#[cfg(test)]
mod tests;
