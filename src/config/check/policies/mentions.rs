//! What the values of policies take to exist: namespaces, service accounts, trust domains. Whole
//! identities are not looked for, since a mesh of the same roots may have them.

use std::sync::Arc;

use crate::config::check::Context;
use crate::config::check::guesses::Guesses;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::{DEFAULT_NAMESPACE, Mention, WrittenAuthorization};
use crate::config::source::At;

pub(super) fn check(context: &Context<'_>, found: &mut Vec<Diagnostic>) {
    let mut guesses = Guesses::default();
    for policy in &context.written.authorization_policies {
        for mention in &policy.mentions {
            let Some(fault) = fault(context, &mention.value) else {
                continue;
            };
            let guess = guess(context, &mention.value, &fault, &mut guesses);
            found.push(never(policy, mention, &fault, guess));
        }
    }
}

/// Why nobody is meant by it.
fn fault(context: &Context<'_>, mention: &Mention) -> Option<String> {
    match mention {
        Mention::Namespace(name) => {
            (!is_namespace(context, name)).then(|| format!("no namespace `{name}`"))
        }
        Mention::ServiceAccount(account) if !is_namespace(context, &account.namespace) => {
            Some(format!("no namespace `{}`", account.namespace))
        }
        Mention::ServiceAccount(account) => {
            let namespace = context.namespaces.get(&*account.namespace)?;
            let listed = namespace.service_accounts.as_ref()?;
            let fault = || {
                format!(
                    "no service account `{}/{}`",
                    account.namespace, account.name
                )
            };
            (!listed.contains(&account.name)).then(fault)
        }
        Mention::TrustDomain(name) => {
            let mut accepted = trust_domains(context);
            let known = accepted.any(|domain| domain == &**name);
            (!known).then(|| format!("nobody of trust domain `{name}`"))
        }
    }
}

fn is_namespace(context: &Context<'_>, name: &Arc<str>) -> bool {
    context.namespaces.contains_key(&**name) || &**name == DEFAULT_NAMESPACE
}

fn trust_domains<'a>(context: &Context<'a>) -> impl Iterator<Item = &'a str> {
    let settings = context.settings;
    let all = [&settings.trust_domain].into_iter();
    all.chain(&settings.trust_domain_aliases)
        .map(|domain| domain.as_str())
}

/// What was meant instead; `fault` tells names of one spelling apart.
fn guess(
    context: &Context<'_>,
    mention: &Mention,
    fault: &str,
    guesses: &mut Guesses,
) -> Option<String> {
    let key = Arc::from(fault);
    let namespaces = context.namespaces.keys().copied();
    match mention {
        Mention::Namespace(name) => guesses.meant_as(&key, name, namespaces),
        Mention::ServiceAccount(account) => match context.namespaces.get(&*account.namespace) {
            None => guesses.meant_as(&key, &account.namespace, namespaces),
            Some(namespace) => {
                let listed = namespace.service_accounts.iter().flatten();
                guesses.meant_as(&key, &account.name, listed.map(|name| &**name))
            }
        },
        Mention::TrustDomain(name) => guesses.meant_as(&key, name, trust_domains(context)),
    }
}

fn never(
    policy: &WrittenAuthorization,
    mention: &At<Mention>,
    fault: &str,
    guess: Option<String>,
) -> Diagnostic {
    let message = format!(
        "authorization-policy `{}` names what never matches: this mesh has {fault}",
        policy.name.value
    );
    let help = match mention.value {
        Mention::Namespace(_) | Mention::ServiceAccount(_) => {
            "name one that is declared, or declare it"
        }
        Mention::TrustDomain(_) => {
            "name the mesh's own trust domain, or add this one to `trust-domain-aliases` in `[mesh]`"
        }
    };
    Diagnostic::new(Code::NeverMatches, mention.place.clone(), message)
        .label(guess.unwrap_or_else(|| "matches nobody".to_owned()))
        .help(help)
}
