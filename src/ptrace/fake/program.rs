//! The ELF files of the fake target: a program with an allocator of its own, a dynamic linker, a plug-in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

use iced_x86::code_asm::{CodeAssembler, CodeLabel, eax, gpr64::*, ptr, r12d};
use iced_x86::{BlockEncoderOptions, IcedError};

use super::{DATA, RESULT, STATUS};

/// Where the text is in each file, and in memory from the file's load address on.
pub(in crate::ptrace) const TEXT: u64 = 0x1000;

/// An ELF file, and where in its text the labels are (as the file counts addresses).
#[derive(Debug)]
pub(in crate::ptrace) struct Program {
    pub(in crate::ptrace) file: File,
    pub(in crate::ptrace) text: Vec<u8>,
    pub(in crate::ptrace) labels: BTreeMap<&'static str, u64>,
}

/// A program whose functions all end with `hlt`, where the fake's threads rest.
pub(in crate::ptrace) fn program() -> Program {
    build(|a, labels| {
        let mut malloc = a.create_label();
        let mut free = a.create_label();

        labels.set(a, "malloc", &mut malloc)?;
        a.push(r12)?;
        a.mov(r12, RESULT)?;
        a.mov(rax, ptr(r12))?;
        a.pop(r12)?;
        a.ret()?;

        function(a, labels, "calloc")?;
        a.test(rdi, rdi)?;
        a.jmp(malloc)?;

        function(a, labels, "realloc")?;
        a.push(rbx)?;
        a.mov(rbx, rdi)?;
        a.call(malloc)?;
        a.push(rax)?;
        a.mov(rdi, rbx)?;
        a.call(free)?;
        a.pop(rax)?;
        a.pop(rbx)?;
        a.ret()?;

        labels.set(a, "free", &mut free)?;
        a.test(rdi, rdi)?;
        a.ret()?;

        function(a, labels, "cfree")?;
        a.sub(rsp, 8)?;
        a.call(free)?;
        a.add(rsp, 8)?;
        a.ret()?;

        function(a, labels, "posix_memalign")?;
        a.nop()?;
        a.mov(r12, RESULT)?;
        a.mov(rax, ptr(r12))?;
        a.mov(ptr(rdi), rax)?;
        a.mov(r12, STATUS)?;
        a.mov(eax, ptr(r12))?;
        a.ret()?;

        function(a, labels, "_Znwm")?;
        a.push(rbx)?;
        a.mov(rbx, RESULT)?;
        a.mov(rax, ptr(rbx))?;
        a.pop(rbx)?;
        a.ret()?;

        // A first instruction that the engine does not emulate.
        function(a, labels, "valloc")?;
        a.cld()?;
        a.mov(r12, RESULT)?;
        a.mov(rax, ptr(r12))?;
        a.ret()?;

        for (name, callee) in [
            ("call_malloc", "malloc"),
            ("call_calloc", "calloc"),
            ("call_realloc", "realloc"),
            ("call_free", "free"),
            ("call_cfree", "cfree"),
            ("call_memalign", "posix_memalign"),
            ("call_new", "_Znwm"),
            ("call_valloc", "valloc"),
        ] {
            function(a, labels, name)?;
            let callee = labels.of(callee);
            a.call(callee)?;
            a.mov(rbx, rax)?;
            a.hlt()?;
        }

        // The instruction that malloc returns to is itself a call.
        function(a, labels, "call_malloc_twice")?;
        a.call(malloc)?;
        a.call(malloc)?;
        a.nop()?;
        a.hlt()?;

        function(a, labels, "call_malloc_deeper")?;
        a.sub(rsp, 0x100)?;
        a.call(malloc)?;
        a.test(rax, rax)?;
        a.hlt()?;

        // A program's own breakpoint.
        function(a, labels, "int3")?;
        a.int3()?;
        a.hlt()?;

        function(a, labels, "rest")?;
        a.mov(r12d, 1)?;
        a.hlt()
    })
}

/// A dynamic linker.
pub(in crate::ptrace) fn interpreter() -> Program {
    build(|a, labels| {
        function(a, labels, "_dl_debug_state")?;
        a.endbr64()?;
        a.ret()?;
        function(a, labels, "tell")?;
        let state = labels.of("_dl_debug_state");
        a.call(state)?;
        a.hlt()
    })
}

/// A library with an allocator.
pub(in crate::ptrace) fn plugin() -> Program {
    build(|a, labels| {
        function(a, labels, "mi_malloc")?;
        a.endbr64()?;
        a.mov(rax, DATA)?;
        a.ret()?;
        function(a, labels, "call_mi_malloc")?;
        let callee = labels.of("mi_malloc");
        a.call(callee)?;
        a.mov(rbx, rax)?;
        a.hlt()
    })
}

#[derive(Default)]
struct Labels(Vec<(&'static str, CodeLabel)>);

impl Labels {
    fn of(&self, name: &str) -> CodeLabel {
        self.0.iter().find(|(known, _)| *known == name).expect("a label that was set").1
    }
}

fn function(a: &mut CodeAssembler, labels: &mut Labels, name: &'static str) -> Result<(), IcedError> {
    let mut label = a.create_label();
    labels.set(a, name, &mut label)
}

impl Labels {
    fn set(&mut self, a: &mut CodeAssembler, name: &'static str, label: &mut CodeLabel) -> Result<(), IcedError> {
        a.set_label(label)?;
        self.0.push((name, *label));
        Ok(())
    }
}

fn build(assemble: impl FnOnce(&mut CodeAssembler, &mut Labels) -> Result<(), IcedError>) -> Program {
    let mut a = CodeAssembler::new(64).expect("64 bits");
    let mut labels = Labels::default();
    assemble(&mut a, &mut labels).expect("valid instructions");
    let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let assembled = a.assemble_options(TEXT, options).expect("encodable instructions");
    let labels: BTreeMap<&'static str, u64> = labels
        .0
        .iter()
        .map(|(name, label)| (*name, assembled.label_ip(label).expect("a label that was set")))
        .collect();
    let text = assembled.inner.code_buffer;
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&elf(&text, &labels)).expect("room in the temporary file");
    Program { file, text, labels }
}

/// A shared object of one segment with a symbol table (System V gABI, chapters 4 and 5).
fn elf(text: &[u8], labels: &BTreeMap<&'static str, u64>) -> Vec<u8> {
    let mut strings = vec![0];
    let mut symbols = vec![0; 24];
    for (name, address) in labels {
        symbols.extend((strings.len() as u32).to_le_bytes());
        symbols.extend([0x12, 0]); // STB_GLOBAL, STT_FUNC
        symbols.extend(1_u16.to_le_bytes());
        symbols.extend(address.to_le_bytes());
        symbols.extend(8_u64.to_le_bytes());
        strings.extend(name.bytes().chain([0]));
    }
    let end_of_text = TEXT + text.len() as u64;
    let symbols_at = end_of_text.next_multiple_of(8);
    let strings_at = symbols_at + symbols.len() as u64;
    let sections_at = (strings_at + strings.len() as u64).next_multiple_of(8);

    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend([3_u16.to_le_bytes(), 62_u16.to_le_bytes()].concat()); // ET_DYN, EM_X86_64
    elf.extend(1_u32.to_le_bytes());
    elf.extend([0_u64, 64, sections_at].map(u64::to_le_bytes).concat());
    elf.extend(0_u32.to_le_bytes());
    elf.extend([64_u16, 56, 1, 64, 4, 3].map(u16::to_le_bytes).concat());
    elf.extend([1_u32, 5].map(u32::to_le_bytes).concat()); // PT_LOAD, PF_R | PF_X
    elf.extend([0, 0, 0, end_of_text, end_of_text, 0x1000].map(u64::to_le_bytes).concat());
    elf.resize(TEXT as usize, 0);
    elf.extend(text);
    elf.resize(symbols_at as usize, 0);
    elf.extend(&symbols);
    elf.extend(&strings);
    elf.resize(sections_at as usize, 0);
    let mut section = |kind: u32, flags: u64, address: u64, offset: u64, size: u64, link: u32, entry: u64| {
        elf.extend([0, kind].map(u32::to_le_bytes).concat());
        elf.extend([flags, address, offset, size].map(u64::to_le_bytes).concat());
        elf.extend([link, 1].map(u32::to_le_bytes).concat());
        elf.extend([1, entry].map(u64::to_le_bytes).concat());
    };
    section(0, 0, 0, 0, 0, 0, 0);
    section(1, 6, TEXT, TEXT, text.len() as u64, 0, 0); // SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR
    section(2, 0, 0, symbols_at, symbols.len() as u64, 3, 24); // SHT_SYMTAB
    section(3, 0, 0, strings_at, strings.len() as u64, 0, 0); // SHT_STRTAB
    elf
}
