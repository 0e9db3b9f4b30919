//! An instruction run in a slot must do what it does at home.

use std::collections::BTreeMap;
use std::path::Path;

use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, Code, IcedError};
use memleax_platform::Registers;

use super::{LONGEST_INSTRUCTION, Memory, Unmovable, decode, displace, emulate};
use crate::allocator::{FUNCTIONS, hooks};

const HOME: u64 = 0x5555_5555_5000;
const SLOT: u64 = 0x5555_1555_0000;
const DATA: u64 = HOME + 0x20_0000;
const STACK: u64 = 0x7fff_ffff_0000;

/// Bytes by address; what was never written reads as a pattern.
#[derive(Clone, Default, PartialEq, Debug)]
struct Bytes(BTreeMap<u64, u8>);

impl Memory for Bytes {
    fn load(&mut self, address: u64, size: usize) -> Option<u64> {
        let byte = |at: u64| self.0.get(&at).copied().unwrap_or((at * 7) as u8);
        Some((0..size as u64).rev().fold(0, |word, offset| word << 8 | u64::from(byte(address + offset))))
    }

    fn store(&mut self, address: u64, size: usize, value: u64) -> Option<()> {
        self.0.extend((address..).zip(value.to_le_bytes()).take(size));
        Some(())
    }
}

fn registers(rip: u64) -> Registers {
    Registers {
        rip,
        rsp: STACK,
        rax: 0x1111_1111_1111_1111,
        rbx: DATA,
        rcx: 3,
        rdx: 0xffff_ffff_ffff_fff0,
        rdi: 0xb10c,
        r11: HOME + 0x3000,
        r12: 12,
        ..Registers::default()
    }
}

fn assemble(write: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("64 bits");
    write(&mut a).expect("a valid instruction");
    a.assemble_options(HOME, BlockEncoderOptions::NONE).expect("an encodable instruction").inner.code_buffer
}

/// An instruction whose operand is at `DATA`: the bytes before and behind the displacement.
fn relative(before: &[u8], behind: &[u8]) -> Vec<u8> {
    let length = (before.len() + size_of::<i32>() + behind.len()) as u64;
    let displacement = (DATA - HOME - length) as u32;
    [before, &displacement.to_le_bytes(), behind].concat()
}

/// Executes from `registers.rip` on, in the displaced code, until the thread leaves it.
fn run_in_slot(code: &[u8], registers: &mut Registers, memory: &mut Bytes) {
    for _ in 0..10 {
        let offset = registers.rip.wrapping_sub(SLOT);
        if offset >= code.len() as u64 {
            return;
        }
        let instruction = decode(&code[offset as usize..], registers.rip).expect("a displaced instruction");
        assert!(emulate(&instruction, registers, memory), "{instruction:?}");
    }
    panic!("the slot is never left");
}

/// Runs the instruction at home and in a slot, with each of these flags.
fn assert_displaceable(bytes: &[u8]) {
    let instruction = decode(bytes, HOME).expect("an instruction");
    let displaced = displace(&instruction, SLOT).expect("a displaceable instruction");
    for flags in [0, 1 << 6, 1, 0xffff] {
        let (mut at_home, mut memory_at_home) = (registers(HOME), Bytes::default());
        at_home.rflags = flags;
        let (mut in_slot, mut memory_in_slot) = (registers(SLOT), Bytes::default());
        in_slot.rflags = flags;
        assert!(emulate(&instruction, &mut at_home, &mut memory_at_home), "{instruction:?}");
        run_in_slot(&displaced.code, &mut in_slot, &mut memory_in_slot);
        assert_eq!(in_slot, at_home, "{instruction:?}");
        assert_eq!(memory_in_slot, memory_at_home, "{instruction:?}");
    }
    // Wherever in the slot a thread is found, it is sent to where it can go on at home.
    assert_eq!((displaced.boundaries[0].offset, displaced.boundaries[0].address), (0, HOME));
    let (mut registers, mut memory) = (registers(SLOT), Bytes::default());
    while registers.rip.wrapping_sub(SLOT) < displaced.code.len() as u64 {
        let offset = (registers.rip - SLOT) as usize;
        let boundary = displaced.boundaries.iter().find(|it| it.offset == offset).expect("a known place");
        let mut home = Registers { rip: boundary.address, rsp: registers.rsp + boundary.pop, ..registers };
        if home.rip == HOME {
            assert!(emulate(&instruction, &mut home, &mut memory.clone()));
        }
        let mut end = registers;
        run_in_slot(&displaced.code, &mut end, &mut memory.clone());
        assert_eq!(home, end, "{instruction:?} at {offset}");
        let next = decode(&displaced.code[offset..], registers.rip).expect("a displaced instruction");
        assert!(emulate(&next, &mut registers, &mut memory));
    }
}

#[test]
fn first_instructions_of_functions() {
    assert_displaceable(&assemble(|a| a.push(r12)));
    assert_displaceable(&assemble(|a| a.push(rbp)));
    assert_displaceable(&assemble(|a| a.endbr64()));
    assert_displaceable(&assemble(|a| a.test(rdi, rdi)));
    assert_displaceable(&assemble(|a| a.sub(rsp, 0x18)));
    assert_displaceable(&assemble(|a| a.mov(rax, rdi)));
    assert_displaceable(&assemble(|a| a.cmp(rdi, 0x400)));
    assert_displaceable(&assemble(|a| a.xor(eax, eax)));
    assert_displaceable(&assemble(|a| a.lea(rax, ptr(rdi) - 1)));
}

#[test]
fn operands_relative_to_the_program_counter() {
    assert_displaceable(&relative(&[0x80, 0x3d], &[0])); // cmp byte [rip+x], 0
    assert_displaceable(&relative(&[0x48, 0x8b, 0x05], &[])); // mov rax, [rip+x]
    assert_displaceable(&relative(&[0x48, 0x8d, 0x3d], &[])); // lea rdi, [rip+x]
    assert_displaceable(&relative(&[0xff, 0x25], &[])); // jmp [rip+x]
    assert_displaceable(&relative(&[0xff, 0x35], &[])); // push [rip+x]
    assert_displaceable(&relative(&[0x83, 0x05], &[1])); // add dword [rip+x], 1
}

#[test]
fn jumps() {
    assert_displaceable(&assemble(|a| a.jmp(HOME + 0x3000)));
    assert_displaceable(&assemble(|a| a.jmp(HOME + 0x10)));
    assert_displaceable(&[0xeb, 0x10]);
    assert_displaceable(&[0x74, 0x10]); // je, short
    assert_displaceable(&[0x75, 0xf0]); // jne, short
    assert_displaceable(&[0x0f, 0x87, 0, 0x10, 0, 0]); // ja, near
    assert_displaceable(&assemble(|a| a.jmp(r11)));
    assert_displaceable(&assemble(|a| a.ret()));
    assert_displaceable(&[0xf2, 0xff, 0x25, 0, 0, 0, 0]); // bnd jmp [rip], as in PLTs
}

#[test]
fn calls_leave_the_original_return_address() {
    assert_displaceable(&assemble(|a| a.call(HOME + 0x3000)));
    assert_displaceable(&assemble(|a| a.call(HOME - 0x3000)));
    assert_displaceable(&assemble(|a| a.call(r11)));
    assert_displaceable(&relative(&[0xff, 0x15], &[])); // call [rip+x]
    assert_displaceable(&assemble(|a| a.call(qword_ptr(rbx + 0x28))));
    assert_displaceable(&assemble(|a| a.call(qword_ptr(rsp + 8))));
    assert_displaceable(&assemble(|a| a.call(qword_ptr(rsp))));
    assert_displaceable(&assemble(|a| a.call(qword_ptr(rsp + 0x78))));
    assert_displaceable(&assemble(|a| a.call(qword_ptr(rbx + rcx * 8))));
}

#[test]
fn a_loop_of_short_reach_is_displaced_with_its_counter_kept() {
    // `loop` and `jrcxz` reach 127 bytes only, so their copies jump twice.
    for bytes in [[0xe2_u8, 0x10], [0xe3, 0x10]] {
        let instruction = decode(&bytes, HOME).expect("an instruction");
        let displaced = displace(&instruction, SLOT).expect("a displaceable instruction");
        let homes: Vec<u64> = displaced.boundaries.iter().map(|boundary| boundary.address).collect();
        assert_eq!(homes[0], HOME);
        for home in &homes[1..] {
            assert!([HOME + 2, HOME + 0x12].contains(home), "{homes:x?}");
        }
        assert!(homes.contains(&(HOME + 2)) && homes.contains(&(HOME + 0x12)), "{homes:x?}");
    }
}

#[test]
fn what_cannot_be_moved_is_refused() {
    let refused = |bytes: &[u8], slot| displace(&decode(bytes, HOME).expect("an instruction"), slot);
    let call_rsp = [0xff, 0xd4];
    assert_eq!(refused(&call_rsp, SLOT), Err(Unmovable::UnusualCall));
    let far_call = [0x48, 0xff, 0x18];
    assert_eq!(refused(&far_call, SLOT), Err(Unmovable::UnusualCall));
    let push = [0x53];
    assert_eq!(refused(&push, HOME + (1 << 40)), Err(Unmovable::OutOfReach));
    let load = [0x48, 0x8b, 0x05, 0, 0, 0, 0];
    assert_eq!(refused(&load, HOME + (1 << 40)), Err(Unmovable::OutOfReach));
    assert_eq!(decode(&[0xcc], HOME), Err(Unmovable::Breakpoint));
    assert_eq!(decode(&[0x06], HOME), Err(Unmovable::Invalid));
}

/// Flags as an x86_64 processor sets them: (left, right, of a subtraction, carry, zero, sign, overflow).
#[test]
fn flags_of_comparisons() {
    let cases: [(u64, u64, [bool; 4]); 6] = [
        (0, 0, [false, true, false, false]),
        (1, 2, [true, false, true, false]),
        (0x8000_0000_0000_0000, 1, [false, false, false, true]),
        (0x7fff_ffff_ffff_ffff, u64::MAX, [true, false, true, true]),
        (5, 3, [false, false, false, false]),
        (u64::MAX, u64::MAX, [false, true, false, false]),
    ];
    let compare = decode(&assemble(|a| a.cmp(rax, rdi)), HOME).expect("an instruction");
    for (left, right, expected) in cases {
        let mut thread = Registers { rax: left, rdi: right, ..registers(HOME) };
        assert!(emulate(&compare, &mut thread, &mut Bytes::default()));
        let flags = [0, 6, 7, 11].map(|bit| thread.rflags >> bit & 1 == 1);
        assert_eq!(flags, expected, "{left:#x} - {right:#x}");
    }
}

#[test]
fn results_narrower_than_a_register() {
    let run = |bytes: &[u8]| {
        let mut thread = registers(HOME);
        assert!(emulate(&decode(bytes, HOME).expect("an instruction"), &mut thread, &mut Bytes::default()));
        thread
    };
    assert_eq!(run(&assemble(|a| a.mov(eax, ecx))).rax, 3);
    assert_eq!(run(&assemble(|a| a.mov(ax, cx))).rax, 0x1111_1111_1111_0003);
    assert_eq!(run(&assemble(|a| a.mov(ah, cl))).rax, 0x1111_1111_1111_0311);
    assert_eq!(run(&assemble(|a| a.movsxd(rax, edx))).rax, 0xffff_ffff_ffff_fff0);
    assert_eq!(run(&assemble(|a| a.movzx(eax, dl))).rax, 0xf0);
}

#[test]
fn what_is_not_emulated_changes_nothing() {
    let thread = registers(HOME);
    let write = |write: &dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        let instruction = decode(&assemble(write), HOME).expect("an instruction");
        let mut registers = thread;
        assert!(!emulate(&instruction, &mut registers, &mut Bytes::default()), "{instruction:?}");
        assert_eq!(registers, thread);
    };
    write(&|a| a.mov(rax, ptr(0x28).fs()));
    write(&|a| a.movaps(xmm0, xmm1));
    write(&|a| a.syscall());
    write(&|a| a.cpuid());
}

/// Every entry of every allocator installed here is displaced.
#[test]
#[allow(clippy::print_stderr, reason = "a test says what it leaves out")]
fn allocators_of_this_machine() {
    let mut entries = 0;
    for path in [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib64/libc.so.6",
        "/usr/lib/libc.so.6",
        "/lib/ld-musl-x86_64.so.1",
        "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
        "/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4",
        "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
        "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2",
    ] {
        let Ok(file) = std::fs::read(path) else {
            eprintln!("not displaced: {path} is not installed");
            continue;
        };
        let parsed = object::File::parse(&*file).expect("an ELF file");
        for hook in hooks(Path::new(path), &file, &[], FUNCTIONS).hooks {
            use object::{Object, ObjectSegment};
            let segment = parsed
                .segments()
                .find(|segment| (segment.address()..segment.address() + segment.size()).contains(&hook.address))
                .expect("a segment");
            let code = segment.data_range(hook.address, LONGEST_INSTRUCTION as u64).expect("readable").expect("code");
            let home = HOME + hook.address;
            let instruction = decode(code, home).expect("an instruction");
            let displaced = displace(&instruction, SLOT).expect("a displaceable instruction");
            assert_eq!(displaced.boundaries[0].address, home);
            assert_ne!(instruction.code(), Code::INVALID);
            entries += 1;
        }
    }
    assert!(entries > 0, "no allocator found on this machine");
}
