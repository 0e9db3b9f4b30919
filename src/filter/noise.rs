//! Frames that say nothing of the program: the insides of language runtimes.

use std::fmt::Write as _;
use std::sync::LazyLock;

use regex::Regex;

use crate::event::Ending;
use crate::profile::Call;
use crate::symbol::{Function, NamedStack};

/// A set of such frames.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NoiseSet {
    /// What the C library and the loader run around `main` and around a thread's function.
    Start,
    /// The insides of Rust's standard library.
    Rust,
    /// tokio's scheduler, and the futures crates' wrappers.
    Tokio,
    /// The insides of libstdc++ and libc++.
    Cxx,
    /// CPython's evaluator and call machinery. Not hidden unless asked for: these may be the only frames of a program.
    Python,
}

/// Who made a symbol: different languages have modules of the same name (`core`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Language {
    C,
    Cxx,
    Rust,
}

struct Definition {
    set: NoiseSet,
    name: &'static str,
    about: &'static str,
    language: Language,
    /// Expressions for a function's name as its language writes it.
    patterns: &'static [&'static str],
}

const DEFINITIONS: [Definition; 5] = [
    Definition {
        set: NoiseSet::Start,
        name: "start",
        about: "what the C library runs before main and before a thread's function, at the outer end of a stack",
        language: Language::C,
        patterns: &[
            r"^(_start|_dl_start_user|__?libc_start_\w+|libc_start_main_stage2|thread_start)$",
            r"^(start_thread|(__)?clone3?|execute_native_thread_routine)$",
        ],
    },
    Definition {
        set: NoiseSet::Rust,
        name: "rust",
        about: "std, alloc and core of Rust, hashbrown, the allocator's shims",
        language: Language::Rust,
        patterns: &[
            r"^(<|&|\*const |\*mut |mut |dyn |\[|\()*(std|alloc|core|hashbrown)::",
            r"^<&?(mut )?[A-Z] as (std|alloc|core)::",
            r"^(__rustc::)?__(rust|rdl|rg)_\w+$",
        ],
    },
    Definition {
        set: NoiseSet::Tokio,
        name: "tokio",
        about: "tokio's scheduler, tasks and primitives; the futures crates; tracing's wrappers",
        language: Language::Rust,
        patterns: &[
            r"^(<|&|mut )*tokio::(runtime|task|loom|park|coop|util|macros|future|sync|time)\b",
            r"^(<|&|mut )*futures(_util|_core|_task|_executor|_channel)?::",
            r"^(<|&|mut )*tracing::instrument::",
        ],
    },
    Definition {
        set: NoiseSet::Cxx,
        name: "c++",
        about: "operator new, allocators and internal classes and members of libstdc++ and libc++",
        language: Language::Cxx,
        patterns: &[
            r"^operator new(\[\])?\(",
            r"^__gnu_cxx::",
            r"^std::(__\w+::)?(_|allocator)",
            r"^std::.*::_[MS]_\w+(<.*>)?\(",
            r"^std::.*::__\w+(<.*>)?\(",
        ],
    },
    Definition {
        set: NoiseSet::Python,
        name: "python",
        about: "CPython's evaluator and call machinery (hidden only if asked for)",
        language: Language::C,
        patterns: &[
            r"^_?PyEval_\w+$",
            r"^_?PyObject_(Call|Vectorcall|FastCall|MakeTpCall)\w*$",
            r"^(_PyFunction_Vectorcall|_PyVectorcall_\w+|PyVectorcall_\w+|_PyCFunction_\w+)$",
            r"^(cfunction_\w+|method_vectorcall\w*|type_call|slot_tp_\w+|run_mod|run_eval_code_obj)$",
            r"^(Py_RunMain|Py_BytesMain|pymain_\w+|_?PyRun_\w+)$",
        ],
    },
];

static MATCHERS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    DEFINITIONS
        .iter()
        .map(|of| Regex::new(&of.patterns.join("|")).expect("the patterns are constants, and a test compiles them"))
        .collect()
});

impl NoiseSet {
    /// All of them.
    pub fn all() -> impl Iterator<Item = NoiseSet> {
        DEFINITIONS.iter().map(|definition| definition.set)
    }

    /// Those that are hidden unless the user says otherwise.
    pub fn usual() -> impl Iterator<Item = NoiseSet> {
        NoiseSet::all().filter(|&set| set != NoiseSet::Python)
    }

    /// As the user writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        DEFINITIONS[self.place()].name
    }

    /// The set with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<NoiseSet> {
        DEFINITIONS.iter().find(|definition| definition.name == name).map(|definition| definition.set)
    }

    /// Its place in [`DEFINITIONS`].
    fn place(self) -> usize {
        self as usize
    }

    fn has(self, function: &Function) -> bool {
        language(&function.raw) == DEFINITIONS[self.place()].language && MATCHERS[self.place()].is_match(&function.name)
    }
}

fn language(symbol: &str) -> Language {
    let is_legacy_rust = || {
        // `…17h`, 16 hexadecimal digits, `E`, and perhaps what LLVM appends.
        symbol.rsplit_once("17h").is_some_and(|(_, hash)| {
            hash.len() > 16 && hash.as_bytes()[..16].iter().all(u8::is_ascii_hexdigit) && hash.as_bytes()[16] == b'E'
        })
    };
    match symbol {
        _ if symbol.starts_with("_R") || symbol.starts_with("__rust_") || symbol.starts_with("__rdl_") => {
            Language::Rust
        }
        _ if symbol.starts_with("_Z") && is_legacy_rust() => Language::Rust,
        _ if symbol.starts_with("_Z") => Language::Cxx,
        _ => Language::C,
    }
}

/// Every set with its patterns, as text for the user.
#[must_use]
pub fn list_noise() -> String {
    let mut text = String::new();
    for Definition { name, about, patterns, .. } in &DEFINITIONS {
        // Writing to a string cannot fail.
        _ = writeln!(text, "{name}: {about}");
        for pattern in *patterns {
            _ = writeln!(text, "    {pattern}");
        }
    }
    text
}

/// True if the call belongs to one of `sets` wherever in a stack it stands.
pub(super) fn is_noise(call: &Call<'_>, sets: &[NoiseSet]) -> bool {
    let function = call.function;
    sets.iter().any(|&set| set != NoiseSet::Start && function.is_some_and(|function| set.has(function)))
}

/// How many of the outermost frames of `stack` are start code: whatever stands outside of `main`, or, where a thread
/// began, what its C library runs first. Nothing in a stack that ends early.
pub(super) fn start_frames(stack: &NamedStack) -> usize {
    let is_main = |functions: &[Function]| functions.last().is_some_and(|function| function.name == "main");
    let main = stack.frames.iter().rposition(|frame| is_main(&frame.functions));
    let first = main.map_or(1, |main| main + 1);
    if main.is_none() && stack.ending != Ending::Complete {
        return 0;
    }
    let outside = stack.frames.get(first..).unwrap_or_default();
    outside
        .iter()
        .rev()
        .take_while(|frame| match frame.functions.last() {
            Some(function) => NoiseSet::Start.has(function),
            None => is_c_library(&frame.module),
        })
        .count()
}

fn is_c_library(module: &str) -> bool {
    let name = module.rsplit('/').next().unwrap_or_default();
    ["libc.so", "libc-", "libpthread", "libthr.so", "ld-linux", "ld-musl", "ld-elf"]
        .iter()
        .any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, raw: &str) -> Function {
        Function { name: name.into(), raw: raw.into(), offset: None, file: None, line: None, inlined: true }
    }

    fn sets_with(name: &str, raw: &str) -> Vec<&'static str> {
        NoiseSet::all().filter(|set| set.has(&function(name, raw))).map(NoiseSet::name).collect()
    }

    #[test]
    fn each_set_has_a_name_and_is_where_it_is_looked_for() {
        for set in NoiseSet::all() {
            assert_eq!(NoiseSet::from_name(set.name()), Some(set));
            assert_eq!(DEFINITIONS[set.place()].set, set);
        }
        assert_eq!(NoiseSet::usual().map(NoiseSet::name).collect::<Vec<_>>(), ["start", "rust", "tokio", "c++"]);
        assert!(list_noise().contains("python: CPython's evaluator"));
    }

    #[test]
    fn a_runtimes_insides_are_noise_and_what_a_program_calls_is_not() {
        for (name, raw, sets) in [
            ("alloc::raw_vec::finish_grow", "_ZN5alloc7raw_vec11finish_grow17h0123456789abcdefE", &["rust"][..]),
            ("alloc::raw_vec::finish_grow", "_ZN5alloc7raw_vec11finish_grow17h0123456789abcdefE.llvm.99", &["rust"]),
            ("<alloc::vec::Vec<T> as core::clone::Clone>::clone", "_RNvXs", &["rust"]),
            ("<T as alloc::string::ToString>::to_string", "_RNvXs", &["rust"]),
            ("<&mut I as core::iter::Iterator>::next", "_RNvXs", &["rust"]),
            ("<app::Lines as core::iter::Iterator>::next", "_RNvXs", &[]),
            ("app::alloc::grow", "_RNvXs", &[]),
            ("__rust_alloc", "__rust_alloc", &["rust"]),
            ("__rustc::__rust_alloc", "_RNvCs_7___rustc12___rust_alloc", &["rust"]),
            ("core::App::run()", "_ZN4core3App3runEv", &[]),
            ("tokio::runtime::task::raw::poll", "_RNvXs", &["tokio"]),
            ("tokio::net::TcpStream::connect", "_RNvXs", &[]),
            ("<futures_util::future::Map<F> as core::Future>::poll", "_RNvXs", &["tokio"]),
            ("std::__new_allocator<int>::allocate(unsigned long, void const*)", "_ZNSt15", &["c++"]),
            ("std::__1::allocator<int>::allocate(unsigned long)", "_ZNSt3__1", &["c++"]),
            ("std::vector<int, std::allocator<int>>::_M_realloc_insert<int>(int&&)", "_ZNSt6vector", &["c++"]),
            ("std::__1::vector<int>::__push_back_slow_path<int>(int&&)", "_ZNSt3__1", &["c++"]),
            ("std::vector<int, std::allocator<int>>::push_back(int&&)", "_ZNSt6vector", &[]),
            ("operator new(unsigned long)", "_Znwm", &["c++"]),
            ("_PyEval_EvalFrameDefault", "_PyEval_EvalFrameDefault", &["python"]),
            ("PyList_Append", "PyList_Append", &[]),
            ("__libc_start_call_main", "__libc_start_call_main", &["start"]),
            ("clone", "_ZN5cloneEv", &[]),
        ] {
            assert_eq!(sets_with(name, raw), sets, "{name}");
        }
    }
}
