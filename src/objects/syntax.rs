//! The command line's form: `conn=conn_new,conn_dup(size=2)|conn_free`.
//!
//! Lists of functions are separated by `|`, functions by `,`, unless these stand in brackets of a name (`net::Pool<int, 4>::take(int, char)`). What
//! the arguments are may follow in parentheses: `sqlite3_open(out=2,always)`.

use super::{Allocator, Call, ObjectType};
use crate::allocator::{Shape, Size};

/// How many arguments are passed in registers.
const MOST_ARGUMENTS: u8 = 6;

/// What is wrong with what the user says of objects.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SyntaxError {
    /// The form.
    #[error("{0:?} is not of the form NAME=ALLOCATORS|DEALLOCATORS[|REFS|UNREFS], as in conn=conn_new|conn_free")]
    NoType(String),
    /// The form.
    #[error("{0:?} is not of the form ALLOCATORS|DEALLOCATORS[|REALLOCATORS], as in pool_alloc(size=2)|pool_free(2)")]
    NoAllocator(String),
    /// The name.
    #[error(
        "{0:?} is no name for a type of objects: it has to consist of letters, digits and any of _-.: and must not be memory"
    )]
    BadName(String),
    /// Two types of a name.
    #[error("the type {0} is there twice")]
    Twice(String),
    /// No more classes.
    #[error("more than {} types of objects", crate::allocator::Class::MOST_TYPES)]
    TooMany,
    /// Nothing brings them about.
    #[error("{0} has no allocator")]
    NoAllocators(String),
    /// Nothing ends them.
    #[error("{0} has neither a deallocator nor an unref: nothing would ever end its objects")]
    NoEnd(String),
    /// Nothing takes the references.
    #[error("{0} has refs, but no unref")]
    NoUnref(String),
    /// A name that is none.
    #[error("a function without a name, in {0:?}")]
    NoFunction(String),
    /// What stands in the parentheses.
    #[error("cannot use {option:?} of {function}: {remedy}")]
    Option {
        /// What stands there.
        option: String,
        /// The function.
        function: String,
        /// What may stand there.
        remedy: &'static str,
    },
}

/// What a list of functions does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Hands out.
    Allocator,
    /// Takes back.
    Deallocator,
    /// Adds a reference.
    Ref,
    /// Takes a reference.
    Unref,
    /// Resizes.
    Reallocator,
}

pub(super) fn object_type(text: &str) -> Result<ObjectType, SyntaxError> {
    let wrong = || SyntaxError::NoType(text.into());
    let (name, lists) = text.split_once('=').ok_or_else(wrong)?;
    let lists = split(lists, '|');
    const ROLES: [Role; 4] = [Role::Allocator, Role::Deallocator, Role::Ref, Role::Unref];
    if !matches!(lists.len(), 2..=4) {
        return Err(wrong());
    }
    let mut calls = Vec::new();
    for (role, list) in ROLES.into_iter().zip(lists) {
        for function in functions(list) {
            calls.push((role, call(role, function?)?));
        }
    }
    of_type(name.trim(), calls)
}

/// A type of these functions, if they make sense together.
pub(super) fn of_type(name: &str, calls: Vec<(Role, Call)>) -> Result<ObjectType, SyntaxError> {
    let is_name = |c: char| c.is_alphanumeric() || "_-.:".contains(c);
    if name.is_empty() || !name.chars().all(is_name) || name == "memory" {
        return Err(SyntaxError::BadName(name.into()));
    }
    let has = |wanted: Role| calls.iter().any(|(role, _)| *role == wanted);
    if !has(Role::Allocator) {
        return Err(SyntaxError::NoAllocators(name.into()));
    }
    if has(Role::Ref) && !has(Role::Unref) {
        return Err(SyntaxError::NoUnref(name.into()));
    }
    if !has(Role::Deallocator) && !has(Role::Unref) {
        return Err(SyntaxError::NoEnd(name.into()));
    }
    Ok(ObjectType { name: name.into(), calls: calls.into_iter().map(|(_, call)| call).collect() })
}

pub(super) fn allocator(text: &str) -> Result<Allocator, SyntaxError> {
    let lists = split(text, '|');
    const ROLES: [Role; 3] = [Role::Allocator, Role::Deallocator, Role::Reallocator];
    if !matches!(lists.len(), 2..=3) {
        return Err(SyntaxError::NoAllocator(text.into()));
    }
    let mut calls = Vec::new();
    for (role, list) in ROLES.into_iter().zip(lists) {
        for function in functions(list) {
            calls.push((role, call(role, function?)?));
        }
    }
    of_memory(text, calls)
}

/// Functions of memory, if they make sense together. `text` names them in errors.
pub(super) fn of_memory(text: &str, calls: Vec<(Role, Call)>) -> Result<Allocator, SyntaxError> {
    for wanted in [Role::Allocator, Role::Deallocator] {
        if !calls.iter().any(|(role, _)| *role == wanted) {
            return Err(SyntaxError::NoAllocator(text.into()));
        }
    }
    Ok(Allocator { calls: calls.into_iter().map(|(_, call)| call).collect() })
}

/// The functions of a list, trimmed. An empty list has none.
fn functions(list: &str) -> impl Iterator<Item = Result<&str, SyntaxError>> {
    let functions = if list.trim().is_empty() { Vec::new() } else { split(list, ',') };
    functions.into_iter().map(move |function| match function.trim() {
        "" => Err(SyntaxError::NoFunction(list.into())),
        function => Ok(function),
    })
}

/// Splits outside of brackets.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut depth, mut start, mut parts, mut last) = (0_usize, 0, Vec::new(), ' ');
    for (at, c) in text.char_indices() {
        match c {
            '(' | '<' | '[' | '{' => depth += 1,
            '>' if last == '-' => {}
            ')' | '>' | ']' | '}' => depth = depth.saturating_sub(1),
            c if c == separator && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
        last = c;
    }
    parts.push(&text[start..]);
    parts
}

/// What stands in the parentheses.
#[derive(Default)]
struct Options {
    /// A number alone.
    argument: Option<u8>,
    out: Option<u8>,
    this: Option<u8>,
    size: Option<Size>,
    always: bool,
}

/// A function with what its arguments are.
pub(super) fn call(role: Role, text: &str) -> Result<Call, SyntaxError> {
    let (may_be_missing, text) = text.strip_prefix('?').map_or((false, text), |text| (true, text));
    let (name, list) = with_options(text);
    let name = name.trim();
    if name.is_empty() {
        return Err(SyntaxError::NoFunction(text.into()));
    }
    let mut options = Options::default();
    for option in list.into_iter().flat_map(|list| list.split(',')) {
        options.add(role, name, option.trim())?;
    }
    let shape = options.shape(role).map_err(|remedy| SyntaxError::Option {
        option: list.unwrap_or_default().into(),
        function: name.into(),
        remedy,
    })?;
    Ok(Call { name: name.into(), may_be_missing, shape })
}

/// A function's name, and what stands in the last parentheses if that is not a list of parameters.
fn with_options(text: &str) -> (&str, Option<&str>) {
    let parts = || {
        let inner = text.strip_suffix(')')?;
        let at = inner.rfind('(')?;
        let list = &inner[at + 1..];
        let is_option = |option: &str| {
            let option = option.trim();
            let is_number = !option.is_empty() && option.chars().all(|c| c.is_ascii_digit());
            is_number || option.contains('=') || option == "always"
        };
        list.split(',').all(is_option).then_some((&text[..at], Some(list)))
    };
    parts().unwrap_or((text, None))
}

impl Options {
    fn add(&mut self, role: Role, function: &str, option: &str) -> Result<(), SyntaxError> {
        let wrong = |remedy| SyntaxError::Option { option: option.into(), function: function.into(), remedy };
        let number = |text: &str| {
            let number = text.trim().parse().ok().filter(|number| (1..=MOST_ARGUMENTS).contains(number));
            number.map(|number: u8| number - 1).ok_or_else(|| wrong("arguments have numbers from 1 to 6"))
        };
        let allocates = matches!(role, Role::Allocator);
        match option.split_once('=').map(|(key, value)| (key.trim(), value)) {
            None if option == "always" && allocates => self.always = true,
            None if !allocates => self.argument = Some(number(option)?),
            Some(("out", value)) if allocates => self.out = Some(number(value)?),
            Some(("this", value)) if allocates => self.this = Some(number(value)?),
            Some(("size", value)) if matches!(role, Role::Allocator | Role::Reallocator) => {
                self.size = Some(match value.split_once('*') {
                    Some((left, right)) => Size::Product(number(left)?, number(right)?),
                    None => Size::Argument(number(value)?),
                });
            }
            _ => {
                return Err(wrong(match role {
                    Role::Allocator => {
                        "an allocator may have out=N or this=N (and always), and size=N or size=N*M, as in open(out=2,always)"
                    }
                    Role::Reallocator => {
                        "a reallocator may have the number of the block's argument, and has size=N or size=N*M"
                    }
                    _ => "only the number of the object's argument may stand there, as in close(2)",
                }));
            }
        }
        Ok(())
    }

    fn shape(&self, role: Role) -> Result<Shape, &'static str> {
        let Options { out, this, always, .. } = *self;
        let (size, argument) = (self.size.unwrap_or(Size::Nothing), self.argument.unwrap_or(0));
        Ok(match (role, out, this) {
            (Role::Allocator, Some(_), Some(_)) => {
                return Err("the object is stored (out) or made in place (this), not both");
            }
            (Role::Allocator, Some(out), None) => Shape::AllocateInto { out, size, always },
            (Role::Allocator, None, Some(object)) => Shape::Initialize { object, size, always },
            (Role::Allocator, ..) if always => {
                return Err("always is for objects that are stored (out) or made in place (this)");
            }
            (Role::Allocator, ..) => Shape::Allocate { size },
            (Role::Reallocator, ..) if size == Size::Nothing => return Err("a reallocator needs size=N or size=N*M"),
            (Role::Reallocator, ..) => Shape::Reallocate { block: argument, size, frees_on_failure: false },
            (Role::Deallocator, ..) => Shape::Free { block: argument },
            (Role::Ref, ..) => Shape::Retain { object: argument },
            (Role::Unref, ..) => Shape::Release { object: argument },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Objects;

    fn calls(of: &[Call]) -> Vec<(&str, Shape)> {
        of.iter().map(|call| (call.name.as_str(), call.shape)).collect()
    }

    #[test]
    fn a_type_has_its_functions_and_their_arguments() {
        let of = object_type("conn = conn_new, conn_dup(size=2) , conn_make(size=1*3)|conn_free(2)").expect("a type");
        assert_eq!(of.name(), "conn");
        assert!(!of.is_counted());
        assert_eq!(
            calls(&of.calls),
            [
                ("conn_new", Shape::Allocate { size: Size::Nothing }),
                ("conn_dup", Shape::Allocate { size: Size::Argument(1) }),
                ("conn_make", Shape::Allocate { size: Size::Product(0, 2) }),
                ("conn_free", Shape::Free { block: 1 }),
            ]
        );
        let of = object_type("db=sqlite3_open(out=2, always),z_init(this=1)|?sqlite3_close").expect("a type");
        assert_eq!(
            calls(&of.calls)[..2],
            [
                ("sqlite3_open", Shape::AllocateInto { out: 1, size: Size::Nothing, always: true }),
                ("z_init", Shape::Initialize { object: 0, size: Size::Nothing, always: false }),
            ]
        );
        assert_eq!(of.calls.iter().map(|call| call.may_be_missing).collect::<Vec<_>>(), [false, false, true]);
        let of = object_type("ssl=SSL_new||SSL_up_ref|SSL_free").expect("a type");
        assert!(of.is_counted());
        assert_eq!(
            calls(&of.calls)[1..],
            [("SSL_up_ref", Shape::Retain { object: 0 }), ("SSL_free", Shape::Release { object: 0 }),]
        );
    }

    #[test]
    fn names_of_the_source_keep_their_brackets() {
        let of = object_type("p=ns::P<int, 4>::make(int, char*)(size=1),(anonymous namespace)::f|ns::P::~P(),g(void)|")
            .expect("a type");
        let names: Vec<_> = of.calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["ns::P<int, 4>::make(int, char*)", "(anonymous namespace)::f", "ns::P::~P()", "g(void)"]);
    }

    #[test]
    fn memory_has_reallocators() {
        let of = allocator("pool_alloc(size=2)|pool_free(2)|pool_resize(2,size=3)").expect("an allocator");
        assert_eq!(
            calls(&of.calls),
            [
                ("pool_alloc", Shape::Allocate { size: Size::Argument(1) }),
                ("pool_free", Shape::Free { block: 1 }),
                ("pool_resize", Shape::Reallocate { block: 1, size: Size::Argument(2), frees_on_failure: false }),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut said = String::new();
        for text in [
            "conn",
            "conn=new",
            "=new|free",
            "memory=new|free",
            "a b=new|free",
            "conn=|free",
            "conn=new|",
            "conn=new|free|ref|",
            "conn=new,|free",
            "conn=new(7)|free",
            "conn=new(out=7)|free",
            "conn=new(out=0)|free",
            "conn=new(out=1,this=2)|free",
            "conn=new(always)|free",
            "conn=new(bytes=1)|free",
            "conn=new|free(size=1)",
            "conn=new|free(0)",
            "conn=a|b|c|d|e",
        ] {
            let error = object_type(text).expect_err(text);
            said += &format!("{error}\n");
        }
        for text in ["pool", "a|", "a|b|c", "a|b|c|d"] {
            let error = allocator(text).expect_err(text);
            said += &format!("{error}\n");
        }
        insta::assert_snapshot!(said);
    }

    #[test]
    fn types_are_told_apart_by_name_and_are_not_endless() {
        let mut objects = Objects::default();
        let mut add = |text: &str| objects.add_type(text.parse().expect("a type"));
        add("a=b|c").expect("a type");
        assert_eq!(add("a=d|e"), Err(SyntaxError::Twice("a".into())));
        for number in 1..31 {
            add(&format!("a{number}=b|c")).expect("a type");
        }
        assert_eq!(add("z=b|c"), Err(SyntaxError::TooMany));
        assert_eq!(objects.functions().len(), 62);
        assert_eq!(objects.functions()[61].class.0, 31);
    }
}
