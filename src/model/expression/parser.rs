//! Reads expressions, and refuses what names something that nobody knows.

use regex::RegexBuilder;

use super::DEPTH;
use super::attribute::Attribute;
use super::lexer::{Fault, Token, Word, words};
use super::node::{Comparison, Conversion, Node, Operation, Test};

/// Bytes a compiled pattern may take.
const PATTERN: usize = 1 << 20;

const OBJECTS: [&str; 6] = [
    "request",
    "response",
    "source",
    "destination",
    "upstream",
    "connection",
];

const TESTS: [(&str, Test); 3] = [
    ("startsWith", Test::StartsWith),
    ("endsWith", Test::EndsWith),
    ("contains", Test::Contains),
];

const CONVERSIONS: [(&str, Conversion); 6] = [
    ("size", Conversion::Size),
    ("int", Conversion::Int),
    ("double", Conversion::Double),
    ("string", Conversion::Text),
    ("duration", Conversion::Duration),
    ("timestamp", Conversion::Timestamp),
];

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("<", Comparison::Less),
    ("<=", Comparison::AtMost),
    (">", Comparison::More),
    (">=", Comparison::AtLeast),
];

pub(super) fn parse(source: &str) -> Result<Node, Fault> {
    let mut parser = Parser {
        tokens: words(source)?,
        next: 0,
        depth: 0,
    };
    let node = parser.choice()?;
    match parser.peek() {
        Word::End => Ok(node),
        other => Err(parser.unexpected("the end", &other)),
    }
}

type Read = Result<Node, Fault>;

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Word {
        let token = self.tokens.get(self.next);
        token.map_or(Word::End, |token| token.word.clone())
    }

    fn at(&self) -> usize {
        let token = self.tokens.get(self.next).or_else(|| self.tokens.last());
        token.map_or(0, |token| token.at)
    }

    fn take(&mut self, sign: &'static str) -> bool {
        let there = self.peek() == Word::Sign(sign);
        self.next += usize::from(there);
        there
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Fault> {
        match self.take(sign) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("`{sign}`"), &self.peek())),
        }
    }

    fn unexpected(&self, wanted: &str, found: &Word) -> Fault {
        let found = match found {
            Word::Int(number) => format!("`{number}`"),
            Word::Double(number) => format!("`{number}`"),
            Word::Text(_) => "a text".to_owned(),
            Word::Name(name) => format!("`{name}`"),
            Word::Sign(sign) => format!("`{sign}`"),
            Word::End => "the end".to_owned(),
        };
        Fault::new(self.at(), format!("expected {wanted}, found {found}"))
    }

    /// One level further in.
    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Read) -> Read {
        if self.depth >= DEPTH {
            let message = format!("it is nested deeper than {DEPTH} levels");
            return Err(Fault::new(self.at(), message));
        }
        self.depth += 1;
        let node = read(self);
        self.depth -= 1;
        node
    }

    /// A sequence of operators of the same strength, which hold to the left. Each makes the tree a level
    /// deeper.
    fn sequence(
        &mut self,
        operand: impl Fn(&mut Self) -> Read,
        join: impl Fn(&mut Self) -> Option<fn(Box<Node>, Box<Node>) -> Node>,
    ) -> Read {
        let mut left = operand(self)?;
        let mut levels = 0;
        while let Some(join) = join(self) {
            levels += 1;
            if self.depth + levels > DEPTH {
                let message = format!("it has more than {DEPTH} operators in a row");
                return Err(Fault::new(self.at(), message));
            }
            left = join(Box::new(left), Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn choice(&mut self) -> Read {
        self.deeper(|parser| {
            let asked = parser.either()?;
            if !parser.take("?") {
                return Ok(asked);
            }
            let then = parser.choice()?;
            parser.expect(":")?;
            let otherwise = parser.choice()?;
            Ok(Node::Choose(Box::new([asked, then, otherwise])))
        })
    }

    fn either(&mut self) -> Read {
        self.sequence(Self::both, |parser| {
            parser.take("||").then_some(Node::Either as _)
        })
    }

    fn both(&mut self) -> Read {
        self.sequence(Self::comparison, |parser| {
            parser.take("&&").then_some(Node::Both as _)
        })
    }

    fn comparison(&mut self) -> Read {
        self.sequence(Self::sum, |parser| {
            if parser.peek() == Word::Name("in".to_owned()) {
                parser.next += 1;
                return Some(Node::In);
            }
            let found = COMPARISONS.iter().find(|(sign, _)| parser.take(sign));
            Some(match found?.1 {
                Comparison::Equal => |a, b| Node::Compare(Comparison::Equal, a, b),
                Comparison::Unequal => |a, b| Node::Compare(Comparison::Unequal, a, b),
                Comparison::Less => |a, b| Node::Compare(Comparison::Less, a, b),
                Comparison::AtMost => |a, b| Node::Compare(Comparison::AtMost, a, b),
                Comparison::More => |a, b| Node::Compare(Comparison::More, a, b),
                Comparison::AtLeast => |a, b| Node::Compare(Comparison::AtLeast, a, b),
            })
        })
    }

    fn sum(&mut self) -> Read {
        self.sequence(Self::product, |parser| match parser {
            _ if parser.take("+") => Some(|a, b| Node::Reckon(Operation::Add, a, b)),
            _ if parser.take("-") => Some(|a, b| Node::Reckon(Operation::Subtract, a, b)),
            _ => None,
        })
    }

    fn product(&mut self) -> Read {
        self.sequence(Self::unary, |parser| match parser {
            _ if parser.take("*") => Some(|a, b| Node::Reckon(Operation::Multiply, a, b)),
            _ if parser.take("/") => Some(|a, b| Node::Reckon(Operation::Divide, a, b)),
            _ if parser.take("%") => Some(|a, b| Node::Reckon(Operation::Remainder, a, b)),
            _ => None,
        })
    }

    fn unary(&mut self) -> Read {
        if self.take("!") {
            let of = self.deeper(Self::unary)?;
            return Ok(Node::Not(Box::new(of)));
        }
        if self.take("-") {
            let of = self.deeper(Self::unary)?;
            return Ok(Node::Minus(Box::new(of)));
        }
        self.postfix()
    }

    /// A value with what is asked of it.
    fn postfix(&mut self) -> Read {
        let mut node = self.primary()?;
        let mut levels = 0;
        loop {
            let at = self.at();
            node = if self.take(".") {
                let name = self.name()?;
                match self.take("(") {
                    true => self.method(at, node, &name)?,
                    false => Node::At(Box::new(node), Box::new(Node::Text(name))),
                }
            } else if self.take("[") {
                let key = self.choice()?;
                self.expect("]")?;
                Node::At(Box::new(node), Box::new(key))
            } else {
                return Ok(node);
            };
            levels += 1;
            if self.depth + levels > DEPTH {
                let message = format!("it is nested deeper than {DEPTH} levels");
                return Err(Fault::new(at, message));
            }
        }
    }

    fn name(&mut self) -> Result<String, Fault> {
        match self.peek() {
            Word::Name(name) => {
                self.next += 1;
                Ok(name)
            }
            other => Err(self.unexpected("a name", &other)),
        }
    }

    /// A call on a value, its bracket being open.
    fn method(&mut self, at: usize, on: Node, name: &str) -> Read {
        if name == "size" {
            self.expect(")")?;
            return Ok(Node::Convert(Conversion::Size, Box::new(on)));
        }
        let argument_at = self.at();
        if name == "matches" {
            let argument = self.choice()?;
            self.expect(")")?;
            return matches(on, argument, argument_at);
        }
        let Some((_, test)) = TESTS.iter().find(|(known, _)| *known == name) else {
            let message = format!(
                "there is no `.{name}()`; write `startsWith`, `endsWith`, `contains`, `matches` or `size`"
            );
            return Err(Fault::new(at, message));
        };
        let argument = self.choice()?;
        self.expect(")")?;
        Ok(Node::Test(*test, Box::new(on), Box::new(argument)))
    }

    fn primary(&mut self) -> Read {
        let at = self.at();
        let word = self.peek();
        self.next += 1;
        Ok(match word {
            Word::Int(number) => Node::Int(number),
            Word::Double(number) => Node::Double(number),
            Word::Text(text) => Node::Text(text),
            Word::Sign("(") => {
                let node = self.choice()?;
                self.expect(")")?;
                node
            }
            Word::Sign("[") => Node::List(self.list()?),
            Word::Name(name) => match name.as_str() {
                "true" => Node::Bool(true),
                "false" => Node::Bool(false),
                "null" => Node::Null,
                _ if self.take("(") => self.call(at, &name)?,
                _ => self.attribute(at, name)?,
            },
            other => {
                self.next -= 1;
                return Err(self.unexpected("a value", &other));
            }
        })
    }

    fn list(&mut self) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        while !self.take("]") {
            items.push(self.choice()?);
            if !self.take(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(items)
    }

    /// A call by name, its bracket being open.
    fn call(&mut self, at: usize, name: &str) -> Read {
        let argument_at = self.at();
        let argument = self.choice()?;
        if name == "matches" {
            self.expect(",")?;
            let pattern_at = self.at();
            let pattern = self.choice()?;
            self.expect(")")?;
            return matches(argument, pattern, pattern_at);
        }
        self.expect(")")?;
        if name == "has" {
            return match argument {
                Node::Attribute(_) | Node::At(..) => Ok(Node::Has(Box::new(argument))),
                _ => Err(Fault::new(
                    argument_at,
                    "`has` asks for one thing, as in `has(request.headers.cookie)`",
                )),
            };
        }
        match CONVERSIONS.iter().find(|(known, _)| *known == name) {
            Some((_, conversion)) => Ok(Node::Convert(*conversion, Box::new(argument))),
            None => Err(Fault::new(at, format!("there is no `{name}()`"))),
        }
    }

    /// Something that is known, by its name.
    fn attribute(&mut self, at: usize, object: String) -> Read {
        if let Some(attribute) = Attribute::named(&object) {
            return Ok(Node::Attribute(attribute));
        }
        if !OBJECTS.contains(&&*object) {
            let message = format!(
                "nothing is called `{object}`; write an attribute of {}",
                OBJECTS.map(|o| format!("`{o}`")).join(", ")
            );
            return Err(Fault::new(at, message));
        }
        let field = if self.take(".") {
            self.name()?
        } else if self.take("[") {
            let Word::Text(name) = self.peek() else {
                return Err(self.unexpected("the name of an attribute", &self.peek()));
            };
            self.next += 1;
            self.expect("]")?;
            name
        } else {
            return Err(self.unexpected(&format!("an attribute of `{object}`"), &self.peek()));
        };
        let name = format!("{object}.{field}");
        let known = Attribute::named(&name).map(Node::Attribute);
        known.ok_or_else(|| {
            let known = Attribute::below(&object);
            let help = match meant(&name, &known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there are {}", known.join(", ")),
            };
            Fault::new(at, format!("nothing is called `{name}`; {help}"))
        })
    }
}

/// The one that is nearly written so.
fn meant<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
    let nearest = known.iter().copied().min_by_key(|known| distance(known));
    nearest.filter(|nearest| distance(nearest) <= 2)
}

fn matches(on: Node, pattern: Node, at: usize) -> Read {
    let Node::Text(pattern) = pattern else {
        let message = "a pattern is a quoted text, so that it is read once";
        return Err(Fault::new(at, message));
    };
    let compiled = RegexBuilder::new(&pattern).size_limit(PATTERN).build();
    match compiled {
        Ok(pattern) => Ok(Node::Matches(Box::new(on), pattern)),
        Err(e) => {
            let last = e.to_string();
            let last = last.lines().last().unwrap_or_default().to_owned();
            Err(Fault::new(at, format!("no regular expression: {last}")))
        }
    }
}
