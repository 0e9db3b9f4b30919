//! Which functions are found in real allocators.

// A library that is not installed is told of.
#![allow(clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memleax::allocator::{FUNCTIONS, Hooks, MAPPING_FUNCTIONS, Shape, hooks};
use memleax_targets::{Program, Target};
use object::{Object, ObjectSection, ObjectSymbol};

/// Where libraries are, by distribution.
const DIRECTORIES: &[&str] =
    &["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// An installed library; where it is missing, why the test says nothing.
fn library(name: &str) -> Option<PathBuf> {
    let found = DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is not installed; run scripts/setup.sh test");
        eprintln!("not tested: {name} is not installed; run scripts/setup.sh test");
    }
    found
}

fn hooks_of(path: &Path) -> Hooks {
    hooks(path, &fs::read(path).expect("a readable file"), &[], FUNCTIONS)
}

fn names(hooks: &Hooks) -> Vec<&'static str> {
    hooks.hooks.iter().map(|hook| hook.function.name).collect()
}

/// All of `expected` are hooked, each either by this name or by another at its address.
fn check(path: &Path, hooks: &Hooks, expected: &[&str]) {
    let bytes = fs::read(path).expect("a readable file");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let by_address: BTreeMap<u64, &str> = hooks.hooks.iter().map(|hook| (hook.address, hook.function.name)).collect();
    assert_eq!(by_address.len(), hooks.hooks.len(), "an address twice in {}", path.display());
    for name in expected {
        let symbol =
            file.symbols().chain(file.dynamic_symbols()).find(|it| it.is_definition() && it.name() == Ok(name));
        let address = symbol.unwrap_or_else(|| panic!("{} does not define {name}", path.display())).address();
        assert!(by_address.contains_key(&address), "{name} of {} is not hooked", path.display());
    }
    for hook in &hooks.hooks {
        let in_text = file.sections().any(|section| {
            section.kind() == object::SectionKind::Text
                && (section.address()..section.address() + section.size()).contains(&hook.address)
        });
        assert!(in_text, "{} of {} is not code", hook.function.name, path.display());
    }
}

const C: &[&str] = &["malloc", "calloc", "realloc", "free", "posix_memalign", "aligned_alloc", "memalign", "valloc"];

#[test]
fn glibc() {
    let Some(path) = library("libc.so.6") else { return };
    let hooks = hooks_of(&path);
    check(&path, &hooks, C);
    check(&path, &hooks, &["pvalloc", "reallocarray"]);
    let names = names(&hooks);
    assert!(names.contains(&"malloc") && !names.contains(&"__libc_malloc"), "{names:?}");
}

/// jemalloc is inside FreeBSD's C library, where the plain names are weak aliases.
#[test]
fn freebsd() {
    let source = "
        .text
        .macro define name
        .globl \\name
        .type \\name, @function
        \\name: ret
        .endm
        .irp name, malloc, calloc, realloc, free, posix_memalign, aligned_alloc, mallocx, rallocx, dallocx
        define __\\name
        .weak \\name
        .set \\name, __\\name
        .endr
        define reallocf
        define reallocarray
        define __realloc_elsewhere
    ";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (code, path) = (directory.path().join("libc.s"), directory.path().join("libc.so.7"));
    fs::write(&code, source).expect("written");
    let built = Command::new("cc").args(["-shared", "-nostdlib", "-o"]).arg(&path).arg(&code).status();
    assert!(built.expect("cc").success());
    let hooks = hooks_of(&path);
    check(&path, &hooks, &["__malloc", "__calloc", "__realloc", "__free", "__posix_memalign", "__aligned_alloc"]);
    check(&path, &hooks, &["__mallocx", "__rallocx", "__dallocx", "reallocf", "reallocarray"]);
    let names = names(&hooks);
    assert!(names.contains(&"malloc") && !names.contains(&"__malloc"), "{names:?}");
    assert_eq!(names.len(), 11, "{names:?}");
}

#[test]
fn the_dynamic_linker_has_nothing_to_observe() {
    let Some(path) = library("ld-linux-x86-64.so.2") else { return };
    assert_eq!(hooks_of(&path), Hooks::default());
}

#[test]
fn musl_is_its_own_dynamic_linker() {
    let Some(path) = library("ld-musl-x86_64.so.1") else { return };
    check(&path, &hooks_of(&path), C);
}

#[test]
fn jemalloc() {
    let Some(path) = library("libjemalloc.so.2") else { return };
    let hooks = hooks_of(&path);
    check(&path, &hooks, C);
    check(&path, &hooks, &["mallocx", "rallocx", "xallocx", "dallocx", "sdallocx", "_Znwm", "_ZdlPvm"]);
}

#[test]
fn tcmalloc() {
    let Some(path) = library("libtcmalloc_minimal.so.4") else { return };
    let hooks = hooks_of(&path);
    check(&path, &hooks, C);
    check(
        &path,
        &hooks,
        &["pvalloc", "cfree", "_Znwm", "_Znam", "_ZdlPv", "_ZdaPv", "_ZdlPvm", "tc_malloc", "tc_new", "tc_free"],
    );
    // One function by many names is one hook.
    let frees =
        names(&hooks).into_iter().filter(|&name| ["free", "cfree", "tc_free", "_ZdlPv"].contains(&name)).count();
    assert_eq!(frees, 1);
}

#[test]
fn mimalloc() {
    let Some(path) = library("libmimalloc.so.2") else { return };
    let hooks = hooks_of(&path);
    check(&path, &hooks, C);
    check(
        &path,
        &hooks,
        &["mi_malloc", "mi_heap_malloc", "mi_zalloc_aligned_at", "mi_expand", "mi_new_n", "mi_free_aligned"],
    );
    check(&path, &hooks, &["_Znwm", "_ZdlPv"]);
}

#[test]
fn operators_that_only_call_malloc_are_left_out() {
    for name in ["libstdc++.so.6", "libc++abi.so.1"] {
        let found = DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.exists());
        let Some(path) = found else { continue };
        let bytes = fs::read(&path).expect("a readable file");
        assert_eq!(hooks(&path, &bytes, &[], FUNCTIONS), Hooks::default());
        // What the code shows agrees with what the name says.
        let by_code = hooks(Path::new("/lib/other.so"), &bytes, &[], FUNCTIONS);
        let left = names(&by_code);
        for name in ["_Znwm", "_Znam", "_ZdlPv", "_ZdaPv", "_ZdlPvm", "_ZdaPvm"] {
            assert!(!left.contains(&name), "{name} of {}", path.display());
        }
    }
}

fn program(target: &Target) -> (Program, Hooks) {
    let program = target.build();
    let hooks = hooks_of(&program.path);
    (program, hooks)
}

#[test]
fn a_static_program_has_the_c_library_but_no_operators() {
    let (program, hooks) = program(&Target::cpp("frames").flags(&["-static"]));
    check(&program.path, &hooks, C);
    let left: Vec<_> =
        names(&hooks).into_iter().filter(|name| ["_Znwm", "_Znam", "_ZdlPv", "_ZdaPv"].contains(name)).collect();
    assert!(left.is_empty(), "{left:?}");
    let mapping = fs::read(&program.path).expect("a readable file");
    let mapping = names(&memleax::allocator::hooks(&program.path, &mapping, &[], MAPPING_FUNCTIONS));
    assert!(mapping.contains(&"mmap") && mapping.contains(&"munmap"), "{mapping:?}");
}

#[test]
fn a_program_that_only_calls_allocators_defines_none() {
    for flags in [&[][..], &["-no-pie"], &["-static-libstdc++", "-static-libgcc"]] {
        let (program, hooks) = program(&Target::cpp("frames").flags(flags));
        assert_eq!(hooks, Hooks::default(), "{}", program.path.display());
    }
}

#[test]
fn symbols_of_a_stripped_program_come_from_its_debug_file() {
    let program = Target::cpp("frames").flags(&["-static"]).stripped().build();
    let (stripped, symbols) = (fs::read(&program.path).unwrap(), fs::read(&program.unstripped).unwrap());
    assert_eq!(hooks(&program.path, &stripped, &[], FUNCTIONS), Hooks::default());
    assert_eq!(hooks(&program.path, &stripped, &[&symbols], FUNCTIONS), hooks_of(&program.unstripped));
}

#[test]
fn replaced_operators_and_lookalikes() {
    let (_, hooks) = program(&Target::cpp("operators"));
    let names = names(&hooks);
    assert!(names.contains(&"_Znwm") && names.contains(&"_ZdlPv"), "a pool's own operators: {names:?}");
    assert!(!names.contains(&"_Znam") && !names.contains(&"_ZdaPv"), "these only call malloc and free: {names:?}");
    assert!(!names.contains(&"vfree") && !names.contains(&"cfree"), "no malloc, no allocator: {names:?}");
    assert!(!names.contains(&"je_malloc"), "data is no function: {names:?}");
    assert_eq!(hooks.indirect, ["mi_malloc"]);
}

#[test]
fn the_table_is_consistent() {
    let mut seen = BTreeMap::new();
    for function in FUNCTIONS.iter().chain(MAPPING_FUNCTIONS) {
        assert!(seen.insert(function.name, function.shape).is_none(), "{} twice", function.name);
        let frees =
            ["free", "dalloc", "dealloc", "_Zdl", "_Zda", "delete"].iter().any(|part| function.name.contains(part));
        assert_eq!(frees, matches!(function.shape, Shape::Free { .. }), "{}", function.name);
    }
}

/// Whatever a damaged file says, memleax must go on.
#[test]
fn damaged_files_are_survived() {
    let program = Target::cpp("frames").build();
    let whole = fs::read(&program.path).expect("a readable file");
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let file = object::File::parse(&*whole).expect("an ELF file");
    let headers = whole.len() - file.section_by_name(".shstrtab").map_or(0, |it| it.size() as usize);
    for round in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..8 {
            // Half of the damage hits the tables at the file's ends.
            let at = if round % 2 == 0 { next(0x2000) } else { headers.saturating_sub(1 + next(0x2000)) };
            bytes[at] = next(256) as u8;
        }
        bytes.truncate(whole.len() - next(if round % 5 == 0 { whole.len() } else { 1 }));
        let _ = hooks(&program.path, &bytes, &[&whole], FUNCTIONS);
    }
}
