//! What the user says of functions that hand out objects (connections, handles, sessions), or memory: data, as the command line and the
//! configuration file have it.

mod syntax;

use crate::allocator::{Class, NamedFunction, Shape};

pub use syntax::SyntaxError;

/// All that was said.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Objects {
    types: Vec<ObjectType>,
    allocators: Vec<Vec<Call>>,
}

/// A type of objects: the functions that bring them about, hold them, and end them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectType {
    name: String,
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

impl Objects {
    /// Adds a type: `NAME=ALLOCATORS|DEALLOCATORS[|REFS|UNREFS]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add_type(&mut self, text: &str) -> Result<(), SyntaxError> {
        let new = syntax::object_type(text)?;
        self.add(new)
    }

    /// Adds functions that hand out memory: `ALLOCATORS|DEALLOCATORS[|REALLOCATORS]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add_allocator(&mut self, text: &str) -> Result<(), SyntaxError> {
        self.allocators.push(syntax::allocator(text)?);
        Ok(())
    }

    fn add(&mut self, new: ObjectType) -> Result<(), SyntaxError> {
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
        let of_memory = self.allocators.iter().flatten().map(|call| named(call, Class::MEMORY, "an allocator"));
        of_types.chain(of_memory).collect()
    }
}
