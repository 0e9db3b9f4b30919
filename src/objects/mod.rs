//! What the user says of functions that hand out objects (connections, handles, sessions), or memory: data, as the command line and the
//! configuration file have it.

mod file;
mod syntax;

use std::str::FromStr;

use crate::allocator::{Class, NamedFunction, Shape};

pub use file::FileError;
pub use syntax::SyntaxError;

/// All that was said.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Objects {
    types: Vec<ObjectType>,
    allocators: Vec<Allocator>,
}

/// A type of objects: the functions that bring them about, hold them, and end them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectType {
    name: String,
    calls: Vec<Call>,
}

/// Functions that hand out memory and take it back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allocator {
    calls: Vec<Call>,
}

/// A function, and what it does.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Call {
    name: String,
    may_be_missing: bool,
    shape: Shape,
}

impl ObjectType {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True if its objects may have more than one reference. What ends such an object twice says nothing then: the count may have ended it before.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.calls.iter().any(|call| matches!(call.shape, Shape::Release { .. }))
    }
}

/// `NAME=ALLOCATORS|DEALLOCATORS[|REFS|UNREFS]`.
impl FromStr for ObjectType {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        syntax::object_type(text)
    }
}

/// `ALLOCATORS|DEALLOCATORS[|REALLOCATORS]`.
impl FromStr for Allocator {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        syntax::allocator(text)
    }
}

impl Objects {
    /// Adds functions of memory.
    pub fn add_allocator(&mut self, new: Allocator) {
        self.allocators.push(new);
    }

    /// Adds a type.
    ///
    /// # Errors
    /// If there is one of that name, or there are too many.
    pub fn add_type(&mut self, new: ObjectType) -> Result<(), SyntaxError> {
        if self.types.iter().any(|known| known.name == new.name) {
            return Err(SyntaxError::Twice(new.name));
        }
        if self.types.len() == Class::MOST_TYPES {
            return Err(SyntaxError::TooMany);
        }
        self.types.push(new);
        Ok(())
    }

    /// The types, in the order of their classes: the first is class 1.
    #[must_use]
    pub fn types(&self) -> &[ObjectType] {
        &self.types
    }

    /// True if nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.is_empty() && self.allocators.is_empty()
    }

    /// All functions, to be looked for in the target.
    #[must_use]
    pub fn functions(&self) -> Vec<NamedFunction> {
        let named = |call: &Call, class: Class, asked_by: &str| NamedFunction {
            name: call.name.clone(),
            shape: call.shape,
            class,
            asked_by: asked_by.to_owned(),
            may_be_missing: call.may_be_missing,
        };
        let of_types = self
            .types
            .iter()
            .enumerate()
            .flat_map(|(place, of)| of.calls.iter().map(move |call| named(call, Class::of_type(place), &of.name)));
        let of_memory = self
            .allocators
            .iter()
            .flat_map(|allocator| &allocator.calls)
            .map(|call| named(call, Class::MEMORY, "an allocator"));
        of_types.chain(of_memory).collect()
    }
}
