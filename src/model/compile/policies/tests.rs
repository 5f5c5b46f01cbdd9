//! From declared policies to the verdict of a node, as the specification has it.

mod conversion;
mod naive;
mod properties;
mod shorthand;
mod strictness;
mod vectors;
