//! `[[request-authentication]]` (`spec/labels-and-policy.md` §5.1).

use std::sync::Arc;

use super::attachment::{self, WrittenAttachment};
use super::jwt;
use crate::config::diagnose::Code;
use crate::config::mesh::labels::Labels;
use crate::config::mesh::{name_of, namespace_of};
use crate::config::read::{Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::JwtRule;

/// The most rules of one policy: a token is tried with each of its issuer.
const MOST_RULES: usize = 512;

/// A `[[request-authentication]]` table.
pub(in crate::config) struct WrittenRequestAuthentication {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// Its namespace, by whatever way it has it.
    pub namespace: At<Arc<str>>,
    /// `selector` or `target-refs`.
    pub attachment: WrittenAttachment,
    /// `jwt-rules`.
    pub rules: Vec<At<JwtRule>>,
    /// Whether nothing is wrong with it, so that all of it is known.
    pub sound: bool,
}

pub(in crate::config::mesh) fn read(
    value: &Value<'_>,
    home: Option<&At<Arc<str>>>,
) -> Option<WrittenRequestAuthentication> {
    let table = value.resource("request-authentication")?;
    let errors_before = table.errors();
    Labels::read(&table).finish(&table);
    let name = name_of(&table, "request-authentication", scalar::name);
    let namespace = namespace_of(&table, home);
    let attachment = attachment::read_any(&table);
    let example = "jwt-rules = [{ issuer = \"https://accounts.example.com\" }]";
    let rules = table.required("jwt-rules", example, rules);
    table.finish();
    Some(WrittenRequestAuthentication {
        place: table.place().clone(),
        name: name?,
        namespace,
        attachment,
        rules: rules.unwrap_or_default(),
        sound: table.errors() == errors_before,
    })
}

fn rules(value: &Value<'_>) -> Option<Vec<At<JwtRule>>> {
    if value.is_empty_list() {
        value.reject(
            Code::NoEffect,
            "is empty: it believes no tokens and refuses none",
            "has no effect",
            "add a rule, or take the resource out",
        );
    }
    let rules = value.list(jwt::read)?;
    if rules.len() > MOST_RULES {
        value.reject(
            Code::TooLarge,
            &format!("has {} rules, at most {MOST_RULES}", rules.len()),
            "too many",
            "split it into several: all that are attached count together",
        );
    }
    Some(rules)
}
