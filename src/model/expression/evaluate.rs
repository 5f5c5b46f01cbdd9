//! What expressions come to.

use std::cmp::Ordering;

use super::node::{Comparison, Conversion, Node, Operation, Test};
use super::time;
use super::value::{Value, double};
use crate::model::telemetry::Facts;

/// Why an expression comes to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It asks for what this request does not have.
    #[error("something in it is not there")]
    Absent,
    /// It asks of a value what only others have.
    #[error("a {0} is not of the kind that is asked for")]
    Kind(&'static str),
    /// A number left its bounds, or was divided by nothing.
    #[error("there is no such number")]
    Number,
}

type Result<'a> = std::result::Result<Value<'a>, Failure>;

/// The tree is no deeper than the parser lets it be.
pub(super) fn evaluate<'a>(node: &'a Node, facts: &'a Facts<'a>) -> Result<'a> {
    let value = |node| evaluate(node, facts);
    Ok(match node {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(*value),
        Node::Int(number) => Value::Int(*number),
        Node::Double(number) => Value::Double(*number),
        Node::Text(text) => Value::from(&**text),
        Node::List(items) => {
            let items: std::result::Result<_, _> = items.iter().map(value).collect();
            Value::List(items?)
        }
        Node::Attribute(attribute) => attribute.of(facts).ok_or(Failure::Absent)?,
        Node::At(of, key) => at(value(of)?, &value(key)?, facts)?,
        Node::Has(of) => match value(of) {
            Ok(_) => Value::Bool(true),
            Err(Failure::Absent) => Value::Bool(false),
            Err(failure) => return Err(failure),
        },
        Node::Not(of) => Value::Bool(!truth(&value(of)?)?),
        Node::Minus(of) => minus(&value(of)?)?,
        Node::Both(a, b) => decide(false, value(a), || value(b))?,
        Node::Either(a, b) => decide(true, value(a), || value(b))?,
        Node::Compare(how, a, b) => Value::Bool(compare(*how, &value(a)?, &value(b)?)?),
        Node::In(what, of) => Value::Bool(within(&value(what)?, &value(of)?, facts)?),
        Node::Reckon(how, a, b) => reckon(*how, &value(a)?, &value(b)?)?,
        Node::Choose(parts) => {
            let [asked, then, otherwise] = &**parts;
            match truth(&value(asked)?)? {
                true => value(then)?,
                false => value(otherwise)?,
            }
        }
        Node::Matches(of, pattern) => {
            let of = value(of)?;
            Value::Bool(pattern.is_match(text(&of)?))
        }
        Node::Test(test, a, b) => {
            let (a, b) = (value(a)?, value(b)?);
            let (a, b) = (text(&a)?, text(&b)?);
            Value::Bool(match test {
                Test::StartsWith => a.starts_with(b),
                Test::EndsWith => a.ends_with(b),
                Test::Contains => a.contains(b),
            })
        }
        Node::Convert(to, of) => convert(*to, value(of)?, facts)?,
    })
}

fn truth(value: &Value<'_>) -> std::result::Result<bool, Failure> {
    match value {
        Value::Bool(truth) => Ok(*truth),
        other => Err(Failure::Kind(other.kind())),
    }
}

fn text<'v>(value: &'v Value<'_>) -> std::result::Result<&'v str, Failure> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(Failure::Kind(other.kind())),
    }
}

/// One of two is enough to decide, whichever it is and whatever is wrong with the other.
fn decide<'a>(by: bool, first: Result<'a>, second: impl FnOnce() -> Result<'a>) -> Result<'a> {
    let first = first.and_then(|value| truth(&value));
    if first == Ok(by) {
        return Ok(Value::Bool(by));
    }
    let second = truth(&second()?)?;
    match second == by {
        true => Ok(Value::Bool(by)),
        false => first.map(Value::Bool),
    }
}

fn at<'a>(of: Value<'a>, key: &Value<'_>, facts: &'a Facts<'a>) -> Result<'a> {
    match (of, key) {
        (Value::Fields(fields), Value::Text(name)) => {
            // Names of fields are written in lower case, and asked for as people like.
            let found = fields.find(facts, &name.to_ascii_lowercase());
            found.ok_or(Failure::Absent)
        }
        (Value::List(mut items), Value::Int(at)) => {
            let at = usize::try_from(*at).map_err(|_negative| Failure::Absent)?;
            match at < items.len() {
                true => Ok(items.swap_remove(at)),
                false => Err(Failure::Absent),
            }
        }
        (of, _) => Err(Failure::Kind(of.kind())),
    }
}

fn minus<'a>(value: &Value<'a>) -> Result<'a> {
    match value {
        Value::Int(number) => number.checked_neg().map(Value::Int).ok_or(Failure::Number),
        Value::Double(number) => Ok(Value::Double(-number)),
        Value::Duration(nanos) => {
            let nanos = nanos.checked_neg();
            nanos.map(Value::Duration).ok_or(Failure::Number)
        }
        other => Err(Failure::Kind(other.kind())),
    }
}

fn compare(how: Comparison, a: &Value<'_>, b: &Value<'_>) -> std::result::Result<bool, Failure> {
    match how {
        Comparison::Equal => return Ok(a.equals(b)),
        Comparison::Unequal => return Ok(!a.equals(b)),
        _ => {}
    }
    let order = match (a.compare(b), a, b) {
        (Some(order), ..) => order,
        // What is no number is neither less nor more.
        (None, Value::Double(_), _) | (None, _, Value::Double(_)) => return Ok(false),
        (None, a, _) => return Err(Failure::Kind(a.kind())),
    };
    Ok(match how {
        Comparison::Less => order == Ordering::Less,
        Comparison::AtMost => order != Ordering::Greater,
        Comparison::More => order == Ordering::Greater,
        Comparison::AtLeast => order != Ordering::Less,
        Comparison::Equal | Comparison::Unequal => false,
    })
}

fn within(
    what: &Value<'_>,
    of: &Value<'_>,
    facts: &Facts<'_>,
) -> std::result::Result<bool, Failure> {
    match of {
        Value::List(items) => Ok(items.iter().any(|item| item.equals(what))),
        Value::Fields(fields) => {
            let name = text(what)?.to_ascii_lowercase();
            Ok(fields.find(facts, &name).is_some())
        }
        other => Err(Failure::Kind(other.kind())),
    }
}

fn reckon<'a>(how: Operation, a: &Value<'a>, b: &Value<'a>) -> Result<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => {
            let number = match how {
                Operation::Add => a.checked_add(*b),
                Operation::Subtract => a.checked_sub(*b),
                Operation::Multiply => a.checked_mul(*b),
                Operation::Divide => a.checked_div(*b),
                Operation::Remainder => a.checked_rem(*b),
            };
            number.map(Value::Int).ok_or(Failure::Number)
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(match how {
            Operation::Add => a + b,
            Operation::Subtract => a - b,
            Operation::Multiply => a * b,
            Operation::Divide => a / b,
            Operation::Remainder => return Err(Failure::Kind("double")),
        })),
        (Value::Int(a), Value::Double(_)) => reckon(how, &Value::Double(double(*a)), b),
        (Value::Double(_), Value::Int(b)) => reckon(how, a, &Value::Double(double(*b))),
        (Value::Text(a), Value::Text(b)) if how == Operation::Add => {
            Ok(Value::owned(format_args!("{a}{b}")))
        }
        (Value::Duration(a), Value::Duration(b)) => {
            let nanos = match how {
                Operation::Add => a.checked_add(*b),
                Operation::Subtract => a.checked_sub(*b),
                _ => return Err(Failure::Kind("duration")),
            };
            nanos.map(Value::Duration).ok_or(Failure::Number)
        }
        (a, _) => Err(Failure::Kind(a.kind())),
    }
}

fn convert<'a>(to: Conversion, of: Value<'a>, facts: &Facts<'_>) -> Result<'a> {
    let wrong = Failure::Kind(of.kind());
    match to {
        Conversion::Size => {
            let size = match &of {
                Value::Text(text) => text.chars().count(),
                Value::List(items) => items.len(),
                Value::Fields(fields) => fields.count(facts),
                _ => return Err(wrong),
            };
            Ok(Value::count(size as u64))
        }
        Conversion::Text => match of {
            Value::List(_) | Value::Fields(_) | Value::Null => Err(wrong),
            Value::Text(text) => Ok(Value::Text(text)),
            other => Ok(Value::owned(other)),
        },
        Conversion::Int => match of {
            Value::Int(number) => Ok(Value::Int(number)),
            Value::Double(number) => whole(number).map(Value::Int).ok_or(Failure::Number),
            Value::Text(text) => {
                let number = text.parse().map_err(|_no_number| Failure::Number);
                number.map(Value::Int)
            }
            _ => Err(wrong),
        },
        Conversion::Double => match of {
            Value::Int(number) => Ok(Value::Double(double(number))),
            Value::Double(number) => Ok(Value::Double(number)),
            Value::Text(text) => {
                let number = text.parse().map_err(|_no_number| Failure::Number);
                number.map(Value::Double)
            }
            _ => Err(wrong),
        },
        Conversion::Duration => match of {
            Value::Duration(nanos) => Ok(Value::Duration(nanos)),
            Value::Text(text) => time::span(&text)
                .map(Value::Duration)
                .ok_or(Failure::Number),
            _ => Err(wrong),
        },
        Conversion::Timestamp => match of {
            Value::Time(moment) => Ok(Value::Time(moment)),
            Value::Text(text) => time::moment(&text).map(Value::Time).ok_or(Failure::Number),
            _ => Err(wrong),
        },
    }
}

/// Without its decimals.
fn whole(number: f64) -> Option<i64> {
    const BOUND: f64 = 9.2e18;
    #[allow(clippy::cast_possible_truncation, reason = "it is within bounds")]
    (number.abs() < BOUND).then_some(number as i64)
}
