//! Damaged files: whatever they hold, memleax says less, not more, and goes on.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::workshop::{Named, Workshop};
use crate::event::FrameKind;
use crate::symbol::loaded::Loaded;

/// Programs to damage: plain DWARF 4 and 5, C++ compressed, split units, `.gnu_debugdata`.
static PROGRAMS: LazyLock<Vec<(Workshop, Vec<u8>)>> = LazyLock::new(|| {
    let recipes: [&[&str]; 5] = [
        &["gcc -O2 -gdwarf-4 -o program inlines.c"],
        &["gcc -O2 -gdwarf-5 -o program inlines.c"],
        &["g++ -O2 -g -gz=zlib -o program shapes.cpp"],
        &["gcc -O2 -g -gsplit-dwarf -c inlines.c", "gcc -o program inlines.o"],
        &[
            "gcc -O2 -o plain inlines.c",
            "cp plain mini",
            "xz mini",
            "strip -o stripped plain",
            "objcopy --add-section .gnu_debugdata=mini.xz stripped program",
        ],
    ];
    let build = |recipe: &&[&str]| {
        let workshop = Workshop::new();
        recipe.iter().for_each(|step| drop(workshop.sh(step)));
        let bytes = workshop.open("program").to_vec();
        (workshop, bytes)
    };
    recipes.iter().map(build).collect()
});

fn look_everywhere(workshop: &Workshop, bytes: Vec<u8>) {
    let length = bytes.len() as u64;
    let search = workshop.search();
    let loaded = Loaded::load(&workshop.path("program"), Some(bytes.into()), None, &search);
    let named = Named { loaded, search };
    for address in (0..length.min(0x4000)).step_by(251).chain([u64::MAX, u64::MAX - 1]) {
        for kind in [FrameKind::Exact, FrameKind::ReturnAddress] {
            let functions = named.of_kind(address, kind);
            assert!(functions.iter().rev().skip(1).all(|function| function.inlined));
        }
    }
}

/// Few cases unless `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let usual = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { usual } else { ProptestConfig { cases: 64, ..usual } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn cut_short(program in 0..5usize, at in 0.0..1.0f64) {
        let (workshop, bytes) = &PROGRAMS[program];
        let end = (bytes.len() as f64 * at) as usize;
        look_everywhere(workshop, bytes[..end].to_vec());
    }

    #[test]
    fn with_changed_bytes(program in 0..5usize, changes in prop::collection::vec((0.0..1.0f64, any::<u8>()), 1..40)) {
        let (workshop, bytes) = &PROGRAMS[program];
        let mut bytes = bytes.clone();
        for (at, value) in changes {
            let at = (bytes.len() as f64 * at) as usize;
            bytes[at] = value;
        }
        look_everywhere(workshop, bytes);
    }

    #[test]
    fn with_changed_headers(program in 0..5usize, changes in prop::collection::vec((0..3000usize, any::<u8>()), 1..4)) {
        let (workshop, bytes) = &PROGRAMS[program];
        let mut bytes = bytes.clone();
        // The section headers are at the end, and what they say matters most.
        for (at, value) in changes {
            let at = bytes.len() - 1 - at;
            bytes[at] = value;
        }
        look_everywhere(workshop, bytes);
    }
}

#[test]
fn what_is_no_program_is_told() {
    let workshop = Workshop::new();
    let named = workshop.named("inlines.c");
    assert_eq!(named.loaded.gap().as_deref(), Some("it is no 64-bit little-endian ELF file"));
    assert_eq!(named.at(0x1000), []);
}
