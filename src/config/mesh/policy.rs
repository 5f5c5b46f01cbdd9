//! `[[authorization-policy]]`, `[[peer-authentication]]` and `[[request-authentication]]`
//! (`spec/labels-and-policy.md` §2–§5):
//! Istio's fields, camelCase turned kebab-case. What Istio would silently never match, or match
//! more widely than it reads, is an error here.

mod attachment;
mod authentication;
mod authorization;
mod condition;
mod dry_run;
mod jwt;
mod key_source;
mod operation;
mod path;
mod request_authentication;
mod rule;
mod scope;
mod source;
mod values;

pub(in crate::config) use attachment::WrittenAttachment;
pub(super) use attachment::{read as read_attachment, required_targets};
pub(in crate::config) use authentication::WrittenAuthentication;
pub(super) use authentication::read as read_authentication;
pub(in crate::config) use authorization::WrittenAuthorization;
pub(super) use authorization::read as read_authorization;
pub(in crate::config) use request_authentication::WrittenRequestAuthentication;
pub(super) use request_authentication::read as read_request_authentication;
pub(in crate::config) use scope::Mention;
pub(super) use values::identity;
