//! The quick ways to a caller against the full evaluation, on the C library that the test runs with.

use std::fs;

use gimli::{CieOrFde, UnwindSection};

use super::*;
use crate::unwind::image::Image;
use crate::unwind::registers::Number;
use crate::unwind::rule::signal;
use memleax_platform::Registers;

/// The files of the test's own libraries.
fn libraries() -> Vec<Vec<u8>> {
    let maps = fs::read_to_string("/proc/self/maps").expect("the test's own mappings");
    let mut paths: Vec<&str> = maps.split_whitespace().filter(|word| word.contains(".so")).collect();
    paths.sort_unstable();
    paths.dedup();
    assert!(!paths.is_empty(), "a test that is linked dynamically");
    paths.into_iter().map(|path| fs::read(path).expect("a readable library")).collect()
}

/// Any value, but always the same: what `address` holds.
fn word(address: u64) -> u64 {
    address.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) & 0x7fff_ffff_fff8
}

fn registers(seed: u64) -> FrameRegisters {
    let r = |index: u64| word(seed + index);
    FrameRegisters::new(&Registers {
        r15: r(0),
        r14: r(1),
        r13: r(2),
        r12: r(3),
        rbp: r(4),
        rbx: r(5),
        r11: r(6),
        r10: r(7),
        r9: r(8),
        r8: r(9),
        rax: r(10),
        rcx: r(11),
        rdx: r(12),
        rsi: r(13),
        rdi: r(14),
        rip: r(15),
        rsp: r(16),
        rflags: 0,
    })
}

fn values(mut registers: FrameRegisters) -> Vec<Option<u64>> {
    #[allow(clippy::cast_possible_truncation)]
    let numbers = 0..COUNT as Number;
    numbers.map(|number| registers.get(number, &mut |address| Some(word(address)))).collect()
}

/// First address and length of what `.eh_frame` describes, and whether it is a signal trampoline.
fn described(cfi: &Cfi) -> Vec<(u64, u64, bool)> {
    let section = cfi.eh_frame().expect("an .eh_frame");
    let mut entries = section.entries(cfi.bases());
    let mut found = Vec::new();
    while let Ok(Some(entry)) = entries.next() {
        if let CieOrFde::Fde(partial) = entry {
            let fde = partial.parse(gimli::EhFrame::cie_from_offset).expect("a frame description");
            found.push((fde.initial_address(), fde.len(), fde.is_signal_trampoline()));
        }
    }
    found
}

#[test]
fn compact_rules_do_what_the_full_evaluation_does() {
    let mut context = Context::new();
    let (mut compact, mut evaluated, mut outermost) = (0, 0, 0);
    for bytes in libraries() {
        let cfi = Cfi::of_image(&Image::Memory(bytes.into()));
        for (start, length, _) in described(&cfi) {
            for address in (start..start + length).step_by(17) {
                let before = registers(address);
                let mut full = before;
                let mut read = |address| Some(word(address));
                let result = step(&cfi, address, &mut context, &mut full, &mut read);
                match rule(&cfi, address, &mut context) {
                    Rule::Frame(rule) => {
                        compact += 1;
                        let mut quick = before;
                        assert_eq!(rule.step(&mut quick, &mut read), Some(()));
                        assert_eq!(result, Ok(FrameKind::ReturnAddress));
                        assert_eq!(values(quick), values(full), "{address:#x}: {rule:?}");
                    }
                    Rule::Evaluate => {
                        evaluated += 1;
                        assert!(result.is_ok(), "{address:#x}: {result:?}");
                    }
                    Rule::Outermost => {
                        outermost += 1;
                        assert_eq!(result, Err(Ending::Complete), "{address:#x}");
                    }
                    other => panic!("{address:#x} is described, but: {other:?}"),
                }
            }
        }
    }
    assert!(compact > 10_000 && compact > 50 * evaluated, "{compact} compact, {evaluated} evaluated");
    assert!(outermost > 0, "the first function of a thread is described as such");
}

#[test]
fn the_signal_trampoline_is_as_described() {
    let mut context = Context::new();
    let mut cfis = libraries().into_iter().map(|bytes| Cfi::of_image(&Image::Memory(bytes.into())));
    let trampoline = |cfi: &Cfi| described(cfi).into_iter().find(|&(.., is_signal)| is_signal).map(|(start, ..)| start);
    let found = cfis.find_map(|cfi| trampoline(&cfi).map(|start| (cfi, start)));
    let (cfi, start) = found.expect("a library that describes a signal trampoline");
    let (mut described, mut native) = (registers(start), registers(start));
    let mut read = |address| Some(word(address));
    assert_eq!(step(&cfi, start, &mut context, &mut described, &mut read), Ok(FrameKind::Exact));
    assert_eq!(signal::step(&mut native, &mut read), Some(()));
    assert_eq!(values(described), values(native));
}

#[test]
fn damaged_descriptions_are_survived() {
    let mut context = Context::new();
    let whole = libraries().into_iter().min_by_key(Vec::len).expect("a library");
    let places = described(&Cfi::of_image(&Image::Memory(whole.clone().into())));
    for round in 0..60_u64 {
        let mut bytes = whole.clone();
        for at in 0..bytes.len() / 64 {
            let at = (word(at as u64 + round * 10_007) / 8) as usize % bytes.len();
            // The file's own headers stay, or nothing would be looked at.
            if (0x1000..bytes.len() - 0x1000).contains(&at) {
                bytes[at] = (word(at as u64) / 64 % 256) as u8;
            }
        }
        let cfi = Cfi::of_image(&Image::Memory(bytes.into()));
        for &(start, length, _) in places.iter().step_by(5) {
            for address in [start, start + length / 2] {
                let _ = rule(&cfi, address, &mut context);
                let mut read = |address| (address % 64 != 0).then(|| word(address));
                let _ = step(&cfi, address, &mut context, &mut registers(address), &mut read);
            }
        }
    }
}
