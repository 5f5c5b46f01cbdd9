//! What the fields of a policy need to know of it, and what they name elsewhere in the mesh.

use std::cell::RefCell;
use std::sync::Arc;

use crate::config::diagnose::Code;
use crate::config::read::{Table, Value};
use crate::config::source::At;
use crate::model::declaration::ServiceAccount;

/// Something that a value of a policy takes to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum Mention {
    /// A namespace.
    Namespace(Arc<str>),
    /// A service account of a namespace.
    ServiceAccount(ServiceAccount),
    /// A trust domain.
    TrustDomain(Arc<str>),
}

/// A policy while its rules are read.
pub(super) struct Scope {
    /// The policy's namespace, which short service accounts are in.
    pub namespace: Arc<str>,
    /// Whether it is `CUSTOM`, which is asked before anyone's identity is known.
    pub custom: bool,
    mentions: RefCell<Vec<At<Mention>>>,
}

impl Scope {
    pub(super) fn new(namespace: &Arc<str>, custom: bool) -> Self {
        Self {
            namespace: Arc::clone(namespace),
            custom,
            mentions: RefCell::default(),
        }
    }

    /// Keeps in mind what a value names.
    pub(super) fn mention(&self, value: &Value<'_>, what: Mention) {
        let mention = At::new(what, value.place().clone());
        self.mentions.borrow_mut().push(mention);
    }

    /// Everything named.
    pub(super) fn into_mentions(self) -> Vec<At<Mention>> {
        self.mentions.into_inner()
    }

    /// Reports the fields among `identity` in a `CUSTOM` policy (§3.3).
    pub(super) fn judge_custom(&self, table: &Table<'_>, identity: &[&str]) {
        let entries = table.entries().filter(|_| self.custom);
        for (key, value) in entries {
            let field = key.value.strip_prefix("not-").unwrap_or(key.value);
            if identity.contains(&field) {
                reject_custom(&value);
            }
        }
    }
}

/// Says that a `CUSTOM` policy cannot ask for this.
pub(super) fn reject_custom(value: &Value<'_>) {
    value.reject(
        Code::ConflictingKeys,
        "asks who the peer is, which `CUSTOM` cannot",
        "not with `CUSTOM`",
        "take it out: the provider is asked before that is known; add a `DENY` policy for it",
    );
}
