//! Where probes sit in real allocators.
#![cfg(bpf)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memleax::allocator::{FUNCTIONS, Shape, Size, hooks};
use memleax::bpf::placement::placement;
use memleax_targets::{target_directory, unable};
use object::{Object, ObjectSection};

/// Where the C compiler finds a library.
fn library(name: &str) -> Option<PathBuf> {
    let output = Command::new("cc").arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    (path.is_absolute() && path.exists()).then_some(path)
}

/// What has to be in known registers where the probe is.
fn arguments(shape: Shape) -> Vec<u8> {
    let sizes = |size: Size| match size {
        Size::Argument(size) => vec![size],
        Size::Product(size, count) => vec![size, count],
        Size::Nothing => Vec::new(),
    };
    match shape {
        Shape::Allocate { size } => sizes(size),
        Shape::AllocateInto { out, size, .. } => [sizes(size), vec![out]].concat(),
        Shape::Reallocate { block, size, .. } | Shape::Expand { block, size } | Shape::ExpandToSize { block, size } => {
            [sizes(size), vec![block]].concat()
        }
        Shape::Free { block } => vec![block],
        other => panic!("{other:?} is no allocator's"),
    }
}

/// The functions of a library in which no probe is as cheap as it can be.
fn dear(path: &Path) -> Vec<&'static str> {
    let bytes = fs::read(path).expect("a readable library");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let found = hooks(path, &bytes, &[], FUNCTIONS).hooks;
    assert!(!found.is_empty(), "no allocator in {}", path.display());
    let code_at = |address: u64| {
        let mut sections = file.sections().filter(|it| (it.address()..it.address() + it.size()).contains(&address));
        let section = sections.next().expect("a section with code");
        &section.data().expect("its code")[(address - section.address()) as usize..]
    };
    let is_dear = |function: &memleax::allocator::Function, address: u64| {
        let code = code_at(address);
        !placement(&code[..code.len().min(4096)], &arguments(function.shape), function.shape.needs_return()).emulated
    };
    found.iter().filter(|hook| is_dear(hook.function, hook.address)).map(|hook| hook.function.name).collect()
}

/// Only probes in the functions of `rare`, which few programs call, are dear: they compute before they branch or push.
fn check(name: &str, rare: &[&str]) {
    match library(name) {
        Some(path) => {
            let others: Vec<_> = dear(&path).into_iter().filter(|name| !rare.contains(name)).collect();
            assert_eq!(others, Vec::<&str>::new(), "{}", path.display());
        }
        None => unable(&format!("{name} is not installed; scripts/setup.sh test installs it")),
    }
}

#[test]
fn glibc() {
    check("libc.so.6", &["reallocarray"]);
}

#[test]
fn jemalloc() {
    check("libjemalloc.so.2", &[]);
}

#[test]
fn tcmalloc() {
    check("libtcmalloc_minimal.so.4", &[]);
}

#[test]
fn mimalloc() {
    check("libmimalloc.so.2", &["mi_heap_alloc_new"]);
}

#[test]
fn musl() {
    check("/lib/ld-musl-x86_64.so.1", &[]);
}

/// As distributions build that protect branches: the first instruction is endbr64.
#[test]
fn an_allocator_with_landing_pads() {
    let folder = target_directory().join("placement");
    fs::create_dir_all(&folder).expect("a folder");
    let (source, library) = (folder.join("pads.c"), folder.join("libpads.so"));
    fs::write(
        &source,
        "#include <stddef.h>\nvoid *take(size_t); void give(void *); void note(void *);\n\
         void *malloc(size_t size) { void *block = take(size); note(block); return block; }\n\
         void free(void *block) { if (!block) return; note(block); give(block); }\n",
    )
    .expect("a source");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-fcf-protection=full", "-o"]).arg(&library).arg(&source);
    assert!(compiler.status().expect("cc runs").success());
    let bytes = fs::read(&library).expect("what cc wrote");
    let found = hooks(&library, &bytes, &[], FUNCTIONS).hooks;
    let text = object::File::parse(&*bytes).expect("an ELF file");
    let text = text.section_by_name(".text").expect("code");
    for hook in &found {
        let code = &text.data().expect("bytes")[(hook.address - text.address()) as usize..];
        assert_eq!(code[..4], [0xf3, 0x0f, 0x1e, 0xfa], "endbr64 begins {}", hook.function.name);
        let place = placement(code, &[0], hook.function.shape.needs_return());
        assert!(place.emulated && place.offset >= 4, "{}: {place:?}", hook.function.name);
    }
    assert_eq!(found.len(), 2, "{found:?}");
}
