//! The configuration file: the same as on the command line, a function a string.
//!
//! ```toml
//! [[object]]
//! name = "conn"
//! allocators = ["conn_new", "conn_dup(size=2)"]
//! deallocators = ["conn_free"]
//!
//! [[allocator]]
//! allocators = ["pool_alloc(size=2)"]
//! deallocators = ["pool_free(2)"]
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::syntax::{self, Role};
use super::{Call, Objects, SyntaxError};

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the configuration {}: {cause}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It is not written as it should be.
    #[error("cannot use the configuration {}, line {line}: {what}", path.display())]
    Syntax {
        /// Its path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    object: Vec<Spanned<TypeTable>>,
    #[serde(default)]
    allocator: Vec<Spanned<AllocatorTable>>,
}

type Functions = Vec<Spanned<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypeTable {
    name: Spanned<String>,
    allocators: Functions,
    #[serde(default)]
    deallocators: Functions,
    #[serde(default)]
    refs: Functions,
    #[serde(default)]
    unrefs: Functions,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllocatorTable {
    allocators: Functions,
    deallocators: Functions,
    #[serde(default)]
    reallocators: Functions,
}

/// What is wrong, and from which byte on.
type Fault = (usize, String);

impl Objects {
    /// Adds what the file at `path` says.
    ///
    /// # Errors
    /// If it cannot be read, or says nothing that can be used.
    pub fn add_file(&mut self, path: &Path) -> Result<(), FileError> {
        let text = fs::read_to_string(path).map_err(|cause| FileError::Read { path: path.to_owned(), cause })?;
        self.add_text(&text).map_err(|(at, what)| {
            let line = text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1;
            FileError::Syntax { path: path.to_owned(), line, what }
        })
    }

    fn add_text(&mut self, text: &str) -> Result<(), Fault> {
        let file: File = toml::from_str(text)
            .map_err(|error| (error.span().map_or(0, |span| span.start), error.message().into()))?;
        for table in file.object {
            let at = table.span().start;
            let TypeTable { name, allocators, deallocators, refs, unrefs } = table.into_inner();
            let lists = [
                (Role::Allocator, allocators),
                (Role::Deallocator, deallocators),
                (Role::Ref, refs),
                (Role::Unref, unrefs),
            ];
            let of_name = |error: SyntaxError| (name.span().start, error.to_string());
            let new = syntax::of_type(name.get_ref(), calls(lists)?).map_err(|error| match error {
                SyntaxError::BadName(_) => of_name(error),
                error => (at, error.to_string()),
            })?;
            self.add_type(new).map_err(of_name)?;
        }
        for table in file.allocator {
            let at = table.span().start;
            let AllocatorTable { allocators, deallocators, reallocators } = table.into_inner();
            let lists =
                [(Role::Allocator, allocators), (Role::Deallocator, deallocators), (Role::Reallocator, reallocators)];
            let new = syntax::of_memory("[[allocator]]", calls(lists)?).map_err(|error| (at, error.to_string()))?;
            self.add_allocator(new);
        }
        Ok(())
    }
}

fn calls(lists: impl IntoIterator<Item = (Role, Functions)>) -> Result<Vec<(Role, Call)>, Fault> {
    let functions = lists.into_iter().flat_map(|(role, list)| list.into_iter().map(move |function| (role, function)));
    let call = |(role, function): (Role, Spanned<String>)| {
        let at = function.span().start;
        let call = syntax::call(role, function.get_ref().trim()).map_err(|error| (at, error.to_string()))?;
        Ok((role, call))
    };
    functions.map(call).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Objects, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("memleax.toml");
        fs::write(&path, text).expect("a file");
        let mut objects = Objects::default();
        let added = objects.add_file(&path);
        added.map(|()| objects).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn a_file_says_what_the_command_line_says() {
        let of_file = read(
            r#"
            [[object]]
            name = "conn"
            allocators = ["conn_new", "conn_open(out=2, always)"]
            deallocators = ["?conn_free"]

            [[object]]
            name = "node"
            allocators = ["ns::Node::make(int, char*)"]
            refs = ["node_ref(2)"]
            unrefs = ["node_unref"]

            [[allocator]]
            allocators = ["pool_alloc(size=1*2)"]
            deallocators = ["pool_free(2)"]
            reallocators = ["pool_resize(2, size=3)"]
            "#,
        )
        .expect("a good file");
        let mut expected = Objects::default();
        for text in [
            "conn=conn_new,conn_open(out=2,always)|?conn_free",
            "node=ns::Node::make(int, char*)||node_ref(2)|node_unref",
        ] {
            expected.add_type(text.parse().expect("a type")).expect("another type");
        }
        expected
            .add_allocator("pool_alloc(size=1*2)|pool_free(2)|pool_resize(2,size=3)".parse().expect("an allocator"));
        assert_eq!(of_file, expected);
        assert_eq!(read(""), Ok(Objects::default()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, what) in [
            ("\n[[object]\n", 2, ""),
            (
                "[[object]]\nname = \"a\"\nallocators = [\n  \"f(out=9)\",\n]\ndeallocators = [\"g\"]",
                4,
                "cannot use \"out=9\" of f",
            ),
            ("\n[[object]]\nname = \"a b\"\nallocators = [\"f\"]\ndeallocators = [\"g\"]", 3, "is no name"),
            ("\n\n[[object]]\nname = \"a\"\nallocators = [\"f\"]", 3, "a has neither a deallocator"),
            ("[[object]]\nname = \"a\"\nallocator = [\"f\"]", 3, "unknown field `allocator`"),
        ] {
            let said = read(text).expect_err(text);
            let beginning = format!("cannot use the configuration FILE, line {line}: ");
            assert!(said.starts_with(&beginning) && said.contains(what), "{said}");
        }
        let missing = Objects::default().add_file(Path::new("/nowhere/memleax.toml")).expect_err("no file");
        assert!(missing.to_string().starts_with("cannot read the configuration /nowhere/memleax.toml: "), "{missing}");
    }
}
