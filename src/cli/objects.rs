//! Which functions hand out objects, or memory besides those that are known.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, ValueHint};

use super::Arguments;
use crate::objects::{Allocator, ObjectType, Objects};

#[derive(Args, Clone, Debug)]
pub(super) struct ObjectArguments {
    /// Follow objects, too: NAME=ALLOCATORS|DEALLOCATORS[|REFS|UNREFS], as in conn=conn_new,conn_dup|conn_free; may be repeated
    #[arg(long, value_name = "TYPE")]
    object: Vec<ObjectType>,

    /// These functions allocate memory, too: ALLOCATORS|DEALLOCATORS[|REALLOCATORS], as in pool_alloc(size=2)|pool_free(2); may be repeated
    #[arg(long, value_name = "FUNCTIONS")]
    allocator: Vec<Allocator>,

    /// Read types of objects and allocators from FILE, too (TOML: [[object]] with name, allocators, deallocators, refs, unrefs)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Vec<PathBuf>,
}

impl ObjectArguments {
    /// All that is said.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn into_objects(self) -> Result<Objects, clap::Error> {
        let mut objects = Objects::default();
        let usage_error = |text: String| Arguments::command().error(ErrorKind::ValueValidation, text);
        for path in &self.config {
            objects.add_file(path).map_err(|error| usage_error(error.to_string()))?;
        }
        for of in self.object {
            let added = objects.add_type(of);
            added.map_err(|error| usage_error(error.to_string()))?;
        }
        self.allocator.into_iter().for_each(|allocator| objects.add_allocator(allocator));
        Ok(objects)
    }
}

/// That there will be objects of the type that reports are to be of.
///
/// # Errors
/// If there will not.
pub(super) fn check(of: Option<&str>, objects: &Objects) -> Result<(), clap::Error> {
    let is_known = |name: &str| objects.types().iter().any(|known| known.name() == name);
    match of.filter(|name| !is_known(name)) {
        Some(name) => {
            let text = format!("no type of objects {name} is followed: give it with --object, too");
            Err(Arguments::command().error(ErrorKind::ValueValidation, text))
        }
        None => Ok(()),
    }
}
