//! Which functions allocate and free memory, and what their arguments mean: data. Which of them a module defines: see
//! [`hooks`]. Functions that the user has named besides, for objects or memory: [`NamedFunctions`].

mod forwarding;
mod functions;
mod named;
mod pattern;
mod resolve;

pub use crate::event::Class;
pub use functions::{FUNCTIONS, MAPPING_FUNCTIONS};
pub use named::{NamedFunction, NamedFunctions};
pub use resolve::{Hook, Hooks, hooks, observed};

/// How many bytes a call asks for. Arguments are counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// One argument.
    Argument(u8),
    /// The product of two arguments; a call whose product overflows fails.
    Product(u8, u8),
    /// None: of such blocks only the number counts, each has 0 bytes.
    Nothing,
}

/// What a call does, which argument is what, and where its result is. Arguments are counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Returns a new block, or NULL (or does not return).
    Allocate {
        /// Its size.
        size: Size,
    },
    /// Returns 0 and stores a new block's address through a pointer, or returns an error (an `int` other than 0) and stores nothing.
    AllocateInto {
        /// The pointer.
        out: u8,
        /// The block's size.
        size: Size,
        /// Stores it whatever it returns (`sqlite3_open`). A stored NULL is no block.
        always: bool,
    },
    /// Makes an object of memory that the caller has: returns 0, or an error (an `int` other than 0).
    Initialize {
        /// The memory's address. NULL makes nothing.
        object: u8,
        /// The object's size.
        size: Size,
        /// Makes it whatever it returns (a constructor returns nothing).
        always: bool,
    },
    /// Returns the block, resized and perhaps moved, or NULL. With a block of NULL: [`Shape::Allocate`].
    Reallocate {
        /// The old block.
        block: u8,
        /// The new size.
        size: Size,
        /// A failure frees the old block (`reallocf`).
        frees_on_failure: bool,
    },
    /// Resizes the block where it is; returns it, or NULL if there is no room and nothing changed (`mi_expand`).
    Expand {
        /// The block.
        block: u8,
        /// The new size.
        size: Size,
    },
    /// Resizes the block where it is; returns its real size, which is below `size` if there was no room and nothing
    /// changed (jemalloc's `xallocx`).
    ExpandToSize {
        /// The block.
        block: u8,
        /// The new size.
        size: Size,
    },
    /// Frees a block; NULL is allowed and does nothing.
    Free {
        /// The block.
        block: u8,
    },
    /// One more reference to an object; NULL is allowed and does nothing. Of calls of a class within one another, by the same thread and for the same
    /// object, only the outermost counts, as with [`Shape::Free`].
    Retain {
        /// The object.
        object: u8,
    },
    /// One reference less; the last one frees (an object begins with one). A [`Shape::Free`] frees whatever the count, also if it is called within.
    Release {
        /// The object.
        object: u8,
    },
    /// `mmap`: returns the address or -1. Of interest if `flags` has `MAP_ANONYMOUS`.
    Map {
        /// Bytes.
        length: u8,
        /// `MAP_…` flags.
        flags: u8,
    },
    /// `mremap`: returns the new address or -1.
    Remap {
        /// The old address.
        address: u8,
        /// Its length.
        old_length: u8,
        /// The length wanted.
        new_length: u8,
    },
    /// `munmap`: returns 0 or -1.
    Unmap {
        /// First byte.
        address: u8,
        /// Bytes.
        length: u8,
    },
}

impl Shape {
    /// True if the call's effect is known only once it has returned.
    #[must_use]
    pub fn needs_return(self) -> bool {
        !matches!(self, Shape::Free { .. } | Shape::Retain { .. } | Shape::Release { .. })
    }
}

/// A function that allocates or frees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// Its symbol; of one that the user has named, that name.
    pub name: &'static str,
    /// What it does.
    pub shape: Shape,
    /// How much its name says.
    pub family: Family,
    /// What it hands out or takes back.
    pub class: Class,
}

/// What it takes to believe that a symbol of this name is the function meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// An allocator only where `malloc` is defined with it: `free`, `cfree`, `vfree` may be anything elsewhere.
    C,
    /// A C++ operator; it may be a wrapper around another function of the table.
    Cxx,
    /// An allocator's own name, which nothing else has.
    Own,
}
