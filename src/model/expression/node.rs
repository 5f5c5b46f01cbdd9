//! What an expression is made of once it is read.

use super::attribute::Attribute;

/// A part of an expression.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    List(Vec<Self>),
    Attribute(Attribute),
    /// A value of a map by name, or of a list by number.
    At(Box<Self>, Box<Self>),
    /// Whether it can be had.
    Has(Box<Self>),
    Not(Box<Self>),
    Minus(Box<Self>),
    Both(Box<Self>, Box<Self>),
    Either(Box<Self>, Box<Self>),
    Compare(Comparison, Box<Self>, Box<Self>),
    In(Box<Self>, Box<Self>),
    Reckon(Operation, Box<Self>, Box<Self>),
    Choose(Box<[Self; 3]>),
    Matches(Box<Self>, regex::Regex),
    Test(Test, Box<Self>, Box<Self>),
    Convert(Conversion, Box<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// What is asked of two texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    StartsWith,
    EndsWith,
    Contains,
}

/// What is made of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    Size,
    Int,
    Double,
    Text,
    Duration,
    Timestamp,
}
