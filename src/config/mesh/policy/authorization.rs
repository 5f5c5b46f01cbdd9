//! `[[authorization-policy]]` (`spec/labels-and-policy.md` §3).

use std::sync::Arc;

use super::attachment::{self, WrittenAttachment};
use super::scope::{Mention, Scope};
use super::{dry_run, rule};
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::labels::Labels;
use crate::config::mesh::{name_of, namespace_of};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::{At, Place};
use crate::model::declaration::{Action, Rule};

/// An `[[authorization-policy]]` table.
pub(in crate::config) struct WrittenAuthorization {
    /// Its header.
    pub place: Place,
    /// `name`.
    pub name: At<Arc<str>>,
    /// Its namespace, by whatever way it has it.
    pub namespace: At<Arc<str>>,
    /// `selector` or `target-refs`.
    pub attachment: WrittenAttachment,
    /// `action` and `provider`.
    pub action: At<Action>,
    /// `dry-run`, or the annotation that means the same.
    pub dry_run: bool,
    /// `rules`.
    pub rules: WrittenRules,
    /// What its values take to exist.
    pub mentions: Vec<At<Mention>>,
    /// Whether nothing is wrong with it, so that all of it is known.
    pub sound: bool,
}

/// The rules of a policy.
pub(in crate::config) struct WrittenRules {
    /// Where `rules` is written, if it is.
    pub place: Option<Place>,
    /// Each of them.
    pub list: Vec<At<Rule>>,
}

/// The words for what a policy does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Allow,
    Deny,
    Audit,
    Custom,
}

const VERBS: [(&str, Verb); 4] = [
    ("ALLOW", Verb::Allow),
    ("DENY", Verb::Deny),
    ("AUDIT", Verb::Audit),
    ("CUSTOM", Verb::Custom),
];

pub(in crate::config::mesh) fn read(
    value: &Value<'_>,
    home: Option<&At<Arc<str>>>,
) -> Option<WrittenAuthorization> {
    let table = value.resource("authorization-policy")?;
    let errors_before = table.errors();
    Labels::read(&table).finish(&table);
    let name = name_of(&table, "authorization-policy", scalar::name);
    let namespace = namespace_of(&table, home);
    let attachment = attachment::read(&table);
    let action = action(&table);
    let dry_run = dry_run::read(&table);
    let custom = matches!(action.value, Action::Custom(_));
    let scope = Scope::new(&namespace.value, custom);
    let rules = rules(&table, &scope, &action);
    table.finish();
    Some(WrittenAuthorization {
        place: table.place().clone(),
        name: name?,
        namespace,
        attachment,
        action,
        dry_run,
        rules,
        mentions: scope.into_mentions(),
        sound: table.errors() == errors_before,
    })
}

/// What it does. Where that was not written, the place is the policy's own.
fn action(table: &Table<'_>) -> At<Action> {
    let verb = table.optional("action", |value| {
        Some(At::new(
            scalar::choice(value, &VERBS)?,
            value.place().clone(),
        ))
    });
    let verb = verb.unwrap_or_else(|| At::new(Verb::Allow, table.place().clone()));
    let provider = table.value("provider");
    let name = provider.as_ref().and_then(provider_name);
    let custom = verb.value == Verb::Custom;
    match &provider {
        Some(provider) if !custom => provider.reject(
            Code::ConflictingKeys,
            "is given, and only `CUSTOM` asks one",
            "asked for nothing",
            "take it out, or write `action = \"CUSTOM\"`",
        ),
        None if custom => {
            let message = format!("{} is `CUSTOM` and names no provider", table.what());
            let finding = Diagnostic::new(Code::MissingKey, verb.place.clone(), message);
            let finding = finding.label("asks whom?");
            let help = "add it, as in `provider = { name = \"opa\" }`";
            table.missing(vec!["provider"], finding.help(help));
        }
        _ => {}
    }
    let action = match verb.value {
        Verb::Allow => Action::Allow,
        Verb::Deny => Action::Deny,
        Verb::Audit => Action::Audit,
        Verb::Custom => Action::Custom(name.unwrap_or_else(|| Arc::from(""))),
    };
    At::new(action, verb.place)
}

fn provider_name(value: &Value<'_>) -> Option<Arc<str>> {
    let table = value.nested()?;
    let name = table.required("name", "name = \"opa\"", scalar::plain);
    table.finish();
    name.map(Arc::from)
}

fn rules(table: &Table<'_>, scope: &Scope, action: &At<Action>) -> WrittenRules {
    let value = table.value("rules");
    if value.as_ref().is_none_or(Value::is_empty_list) {
        judge_without_rules(table, action, value.as_ref());
    }
    let list = value.as_ref().and_then(|value| rule::read(value, scope));
    WrittenRules {
        place: value.map(|value| value.place().clone()),
        list: list.unwrap_or_default(),
    }
}

/// Without rules it never matches, which means something for `ALLOW` alone (§3.1).
fn judge_without_rules(table: &Table<'_>, action: &At<Action>, rules: Option<&Value<'_>>) {
    let word = match action.value {
        Action::Deny => "DENY",
        Action::Custom(_) => "CUSTOM",
        Action::Allow | Action::Audit => return,
    };
    let place = rules.map_or(&action.place, Value::place).clone();
    let message = format!(
        "{} is `{word}` without rules: it can never match",
        table.what()
    );
    let finding = Diagnostic::new(Code::MissingKey, place, message).label("no rules");
    let help = "add what is to match; `rules = [{}]` matches everything";
    table.missing(vec!["rules"], finding.help(help));
}
