//! How walks end, on made-up code without unwind information.

use memleax_platform::{AuxiliaryVector, MappedFile, Mapping};

use super::*;

const CODE: u64 = 0x40_0000;
const STACK: u64 = 0x7fff_0000;

/// The functions, each after a call: offset of what follows the call, and the code there.
const PIECES: &[(u64, &[u8])] = &[
    // add $8, %rsp; ret
    (BALANCED, &[0x48, 0x83, 0xc4, 0x08, 0xc3]),
    // pop %rbx; pop %rbp; ret
    (RESTORING, &[0x5b, 0x5d, 0xc3]),
    // jmp *%rax: tells nothing.
    (OPAQUE, &[0xff, 0xe0]),
    // mov %eax, %edi; hlt
    (FIRST, &[0x89, 0xc7, 0xf4]),
    // mov $15, %rax; syscall
    (TRAMPOLINE, &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05]),
];
const BALANCED: u64 = 0x1100;
const RESTORING: u64 = 0x1200;
const OPAQUE: u64 = 0x1300;
const FIRST: u64 = 0x1400;
const TRAMPOLINE: u64 = 0x1500;

/// A program of [`PIECES`], which has no section.
fn program() -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    bytes.resize(16, 0);
    bytes.extend([2_u16, 62].map(u16::to_le_bytes).concat());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([0_u64, 64, 0].map(u64::to_le_bytes).concat());
    bytes.extend([0_u16, 0, 64, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
    bytes.extend([1_u32, 5].map(u32::to_le_bytes).concat());
    bytes.extend([0, CODE, CODE, 0x2000, 0x2000, 0x1000].map(u64::to_le_bytes).concat());
    bytes.resize(0x2000, 0xcc);
    for &(offset, code) in PIECES {
        let at = offset as usize;
        // call *%rax
        bytes[at - 2..at].copy_from_slice(&[0xff, 0xd0]);
        bytes[at..at + code.len()].copy_from_slice(code);
    }
    bytes
}

fn unwinder() -> (Unwinder, ModuleMap) {
    let mapping = Mapping {
        start: CODE,
        end: CODE + 0x2000,
        offset: 0,
        readable: true,
        writable: false,
        executable: true,
        shared: false,
        file_id: (1, 1),
        path: "/bin/program".into(),
        deleted: false,
    };
    let mut open = |_: &Mapping| {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), program())?;
        MappedFile::new(file.as_file())
    };
    let mut modules = ModuleMap::default();
    modules.refresh(&[mapping], &AuxiliaryVector::default(), &mut open, &mut |_, _| 0);
    let mut unwinder = Unwinder::default();
    unwinder.update(&modules, &mut |_| None);
    (unwinder, modules)
}

/// Walks the stack of a thread at the first instruction of a function.
fn walk(stack: &[u64], rbp: u64, depth: usize) -> RawBacktrace {
    let (mut unwinder, _) = unwinder();
    let registers = Registers { rip: CODE + 0x1000, rsp: STACK, rbp, ..Registers::default() };
    let mut read = |address: u64| stack.get(usize::try_from(address.checked_sub(STACK)? / 8).ok()?).copied();
    let mut first = RawBacktrace::default();
    unwinder.unwind_from_call_entry(&registers, &mut read, depth, &mut first);
    let mut again = RawBacktrace::default();
    unwinder.unwind_from_call_entry(&registers, &mut read, depth, &mut again);
    assert_eq!(first, again, "by rules that are known");
    first
}

/// Offsets of the frames beyond the innermost, and how it ended.
fn frames(backtrace: &RawBacktrace) -> (Vec<u64>, Ending) {
    (backtrace.frames[1..].iter().map(|frame| frame.pc.wrapping_sub(CODE)).collect(), backtrace.ending)
}

#[test]
fn the_first_function_ends_the_stack() {
    let stack = [CODE + BALANCED, 0, CODE + RESTORING, 0, 0, CODE + FIRST];
    let backtrace = walk(&stack, 0, 50);
    assert_eq!(frames(&backtrace), (vec![BALANCED, RESTORING, FIRST], Ending::Complete));
    assert!(!backtrace.by_frame_pointer);
    let kinds: Vec<FrameKind> = backtrace.frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds[0], FrameKind::Exact);
    assert_eq!(kinds[1..], [FrameKind::ReturnAddress; 3]);
}

#[test]
fn a_return_address_of_zero_ends_the_stack() {
    assert_eq!(frames(&walk(&[CODE + BALANCED, 0, 0], 0, 50)), (vec![BALANCED], Ending::Complete));
    assert_eq!(frames(&walk(&[0], 0, 50)), (vec![], Ending::Complete));
}

#[test]
fn the_depth_counts_the_innermost_frame() {
    let stack = [CODE + BALANCED, 0, CODE + BALANCED, 0, CODE + FIRST];
    assert_eq!(frames(&walk(&stack, 0, 1)), (vec![], Ending::DepthLimit));
    assert_eq!(frames(&walk(&stack, 0, 3)), (vec![BALANCED, BALANCED], Ending::DepthLimit));
    assert_eq!(frames(&walk(&stack, 0, 4)), (vec![BALANCED, BALANCED, FIRST], Ending::Complete));
}

#[test]
fn an_unreadable_stack_is_told() {
    assert_eq!(frames(&walk(&[], 0, 50)), (vec![], Ending::UnreadableStack));
    assert_eq!(frames(&walk(&[CODE + BALANCED, 0], 0, 50)), (vec![BALANCED], Ending::UnreadableStack));
}

#[test]
fn code_of_no_module_is_shown_and_ends_the_stack() {
    assert_eq!(frames(&walk(&[CODE + 0x10_0000], 0, 50)), (vec![0x10_0000], Ending::UnknownCode));
}

#[test]
fn what_follows_no_call_is_no_caller() {
    assert_eq!(frames(&walk(&[CODE + BALANCED + 4], 0, 50)), (vec![], Ending::Inconsistent));
    let guessed = [CODE + BALANCED, 0, CODE + BALANCED + 4];
    assert_eq!(frames(&walk(&guessed, 0, 50)), (vec![BALANCED], Ending::NoUnwindInfo));
    let guessed = [CODE + BALANCED, 0, 0x1234_5678];
    assert_eq!(frames(&walk(&guessed, 0, 50)), (vec![BALANCED], Ending::NoUnwindInfo));
}

#[test]
fn a_frame_pointer_is_the_last_resort_and_told_of() {
    let stack = [CODE + OPAQUE, 1, STACK + 32, CODE + BALANCED, 3, CODE + FIRST];
    let backtrace = walk(&stack, STACK + 16, 50);
    assert_eq!(frames(&backtrace), (vec![OPAQUE, BALANCED, FIRST], Ending::Complete));
    assert!(backtrace.by_frame_pointer);
}

#[test]
fn a_useless_frame_pointer_is_not_followed() {
    let stack = [CODE + OPAQUE, 1, STACK + 32, 4, 3, CODE + FIRST];
    for frame_pointer in [STACK + 16, STACK + 12, STACK - 16, 5] {
        let backtrace = walk(&stack, frame_pointer, 50);
        assert_eq!(frames(&backtrace), (vec![OPAQUE], Ending::NoUnwindInfo));
        assert!(!backtrace.by_frame_pointer);
    }
    assert_eq!(frames(&walk(&stack, 0, 50)), (vec![OPAQUE], Ending::Complete));
}

#[test]
fn an_interrupted_frame_is_exact() {
    // What the kernel leaves for a handler: its return address, then `struct ucontext`.
    let mut stack = vec![CODE + TRAMPOLINE];
    stack.resize(64, 0);
    let context = 1 + 40 / 8;
    stack[context + 15] = STACK + 8 * 60;
    stack[context + 16] = CODE + BALANCED;
    stack[61] = CODE + FIRST;
    let backtrace = walk(&stack, 0, 50);
    assert_eq!(frames(&backtrace), (vec![TRAMPOLINE, BALANCED, FIRST], Ending::Complete));
    let kinds: Vec<FrameKind> = backtrace.frames[1..].iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [FrameKind::ReturnAddress, FrameKind::Exact, FrameKind::ReturnAddress]);
}

#[test]
fn frames_are_kept_relative_to_their_module() {
    let (mut unwinder, modules) = unwinder();
    let stack = [CODE + BALANCED, 0, CODE + 0x10_0000];
    let mut read = |address: u64| stack.get(((address - STACK) / 8) as usize).copied();
    let mut raw = RawBacktrace::default();
    let registers = Registers { rip: CODE + 0x1000, rsp: STACK, ..Registers::default() };
    unwinder.unwind_from_call_entry(&registers, &mut read, 50, &mut raw);
    raw.frames.push(RawFrame { pc: 0x1234, kind: FrameKind::ReturnAddress });
    let backtrace = raw.to_backtrace(&modules);
    let id = modules.live()[0].id;
    let places: Vec<_> = backtrace.frames.iter().map(|frame| (frame.module, frame.address)).collect();
    assert_eq!(places, [(Some(id), CODE + 0x1000), (Some(id), CODE + BALANCED), (None, 0x1234)]);
}
