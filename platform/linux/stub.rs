//! The code by which a thread makes a borrowed system call, and finds its way back should the tracer be killed.
//!
//! It is put for the moment where no code ever runs: into the page that ends a module's executable segment, behind the
//! segment's last byte. The kernel maps the file by whole pages, so there are bytes, and nothing names them; linkers fill
//! them with 0 or with `int3`. If the tracer is killed, the stub stays, until a later one finds and removes it.

use std::io;
use std::ops::Range;

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::isa::user_regs_struct;
use super::memory;
use crate::{Error, Mapping, Pid, Tid};

/// What a stub begins with. One that is there already was left by a killed tracer, and a thread may be in it.
const MAGIC: [u8; 7] = *b"memleax";

/// Room that a stub takes at the most.
const ROOM: usize = 256;

const PAGE: u64 = 4096;

/// The size of the kernel's `sigset_t`.
const SIGNAL_SET_SIZE: i32 = 8;

/// Where a stub may be put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    address: u64,
    /// The byte that is there, over and over.
    filler: u8,
}

impl Place {
    /// A place in the memory of a thread's process.
    pub(super) fn find(tid: Tid, mappings: &[Mapping]) -> Result<Option<Self>, Error> {
        for address in places(tid, mappings)? {
            let mut bytes = [0; ROOM];
            if memory::read_memory(tid, address, &mut bytes)? == ROOM && bytes.iter().all(|byte| *byte == bytes[0]) {
                return Ok(Some(Place { address, filler: bytes[0] }));
            }
        }
        Ok(None)
    }

    /// What it takes.
    pub(super) fn range(&self) -> Range<u64> {
        self.address..self.address + ROOM as u64
    }

    /// Puts a stub there; returns the address of its `syscall` instruction. Behind that is what gives a thread its signal
    /// mask and its `registers` back and lets it go on.
    pub(super) fn put(&self, pid: Pid, tid: Tid, registers: &user_regs_struct, mask: u64) -> Result<u64, Error> {
        let entry = self.address + MAGIC.len() as u64 + 1;
        let code = assemble(entry, registers, mask).map_err(|error| {
            let cause = io::Error::other(error);
            Error::Remote { what: "make system calls", pid, cause }
        })?;
        memory::write_memory(tid, self.address, &[&MAGIC[..], &[self.filler], &code].concat())?;
        Ok(entry)
    }

    /// Takes the stub away.
    pub(super) fn clear(&self, tid: Tid) -> Result<(), Error> {
        memory::write_memory(tid, self.address, &[self.filler; ROOM])
    }

    /// The stubs that killed tracers left.
    pub(super) fn left(tid: Tid, mappings: &[Mapping]) -> Result<Vec<Self>, Error> {
        let mut left = Vec::new();
        for address in places(tid, mappings)? {
            let mut bytes = [0; MAGIC.len() + 1];
            if memory::read_memory(tid, address, &mut bytes)? == bytes.len() && bytes.starts_with(&MAGIC) {
                left.push(Place { address, filler: bytes[MAGIC.len()] });
            }
        }
        Ok(left)
    }
}

/// Addresses with room for a stub, whatever is there.
fn places(tid: Tid, mappings: &[Mapping]) -> Result<Vec<u64>, Error> {
    let mut places = Vec::new();
    for module in mappings.iter().filter(|mapping| mapping.offset == 0 && mapping.file_id != (0, 0)) {
        for end in executable_ends(tid, module)? {
            let is_code = |mapping: &&Mapping| {
                let range = mapping.start..mapping.end;
                mapping.executable && !mapping.shared && mapping.file_id == module.file_id && range.contains(&(end - 1))
            };
            if let Some(code) = mappings.iter().find(is_code) {
                let page_end = end.next_multiple_of(PAGE).min(code.end);
                let starts = (end.next_multiple_of(16)..page_end).step_by(ROOM);
                places.extend(starts.filter(|start| start + ROOM as u64 <= page_end));
            }
        }
    }
    Ok(places)
}

/// Where the executable segments end of the module that is mapped from its first byte at `header` on: from the ELF and
/// program headers in memory (`elf(5)`).
fn executable_ends(tid: Tid, header: &Mapping) -> Result<Vec<u64>, Error> {
    const PT_LOAD: u64 = 1;
    const PF_X: u64 = 1;
    let mut page = vec![0; PAGE as usize];
    let count = memory::read_memory(tid, header.start, &mut page)?;
    let page = &page[..count];
    let word = |offset: usize, size: usize| {
        let bytes = page.get(offset..offset + size).unwrap_or_default();
        bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
    };
    if !page.starts_with(b"\x7fELF") {
        return Ok(Vec::new());
    }
    let (table, size, count) = (word(0x20, 8) as usize, word(0x36, 2) as usize, word(0x38, 2) as usize);
    let headers = (0..count).map(|index| table.saturating_add(index * size));
    let segments: Vec<usize> = headers.filter(|&at| at < page.len() && word(at, 4) == PT_LOAD).collect();
    let Some(&first) = segments.first() else { return Ok(Vec::new()) };
    let bias = header.start.wrapping_sub(word(first + 0x10, 8) & !(PAGE - 1));
    let executable = segments.into_iter().filter(|&at| word(at + 4, 4) & PF_X != 0);
    let ends = executable.map(|at| bias.wrapping_add(word(at + 0x10, 8)).wrapping_add(word(at + 0x20, 8)));
    Ok(ends.filter(|&end| end > header.start && end < u64::MAX - 2 * PAGE).collect())
}

/// The code of a stub whose `syscall` instruction is at `entry`.
///
/// It uses no stack (signals may be delivered again before its end), and no instruction in it changes the flags. All
/// registers but those for a system call's number, arguments and result must be right when it is entered.
fn assemble(entry: u64, registers: &user_regs_struct, mask: u64) -> Result<Vec<u8>, IcedError> {
    let mut asm = CodeAssembler::new(64)?;
    let mut mask_at = asm.create_label();
    let mut values_at = asm.create_label();
    let mut rip_at = asm.create_label();
    asm.syscall()?;
    asm.mov(edi, libc::SIG_SETMASK)?;
    asm.lea(rsi, ptr(mask_at))?;
    asm.mov(edx, 0)?;
    asm.mov(r10d, SIGNAL_SET_SIZE)?;
    asm.mov(eax, libc::SYS_rt_sigprocmask as i32)?;
    asm.syscall()?;
    // r11 points to the others, and so comes last.
    let values = [
        (rdi, registers.rdi),
        (rsi, registers.rsi),
        (rdx, registers.rdx),
        (r10, registers.r10),
        (r8, registers.r8),
        (r9, registers.r9),
        (rcx, registers.rcx),
        (rax, registers.rax),
        (r11, registers.r11),
    ];
    asm.lea(r11, ptr(values_at))?;
    for (index, &(register, _)) in values.iter().enumerate() {
        asm.mov(register, qword_ptr(r11 + 8 * index))?;
    }
    asm.jmp(qword_ptr(rip_at))?;
    asm.set_label(&mut mask_at)?;
    asm.dq(&[mask])?;
    asm.set_label(&mut values_at)?;
    asm.dq(&values.map(|(_, value)| value))?;
    asm.set_label(&mut rip_at)?;
    asm.dq(&[registers.rip])?;
    asm.assemble(entry)
}

/// The registers with which the thread goes on when it leaves the kernel: the kernel restarts an interrupted system call
/// by setting the program counter back (`arch_do_signal_or_restart`, `arch/x86/kernel/signal.c`).
pub(super) fn registers_in_user_mode(stopped: &user_regs_struct) -> user_regs_struct {
    // The internal results of `include/linux/errno.h`.
    const ERESTARTSYS: i64 = -512;
    const ERESTARTNOINTR: i64 = -513;
    const ERESTARTNOHAND: i64 = -514;
    const ERESTART_RESTARTBLOCK: i64 = -516;
    let mut registers = user_regs_struct { orig_rax: u64::MAX, ..*stopped };
    let restarted = match stopped.rax as i64 {
        _ if (stopped.orig_rax as i64) < 0 => return registers,
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => stopped.orig_rax,
        ERESTART_RESTARTBLOCK => libc::SYS_restart_syscall as u64,
        _ => return registers,
    };
    registers.rax = restarted;
    registers.rip -= super::remote::SYSCALL.len() as u64;
    registers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pid;

    fn zero() -> user_regs_struct {
        // SAFETY: a structure of integers.
        unsafe { std::mem::zeroed() }
    }

    #[test]
    fn a_stub_fits_into_its_room() {
        for entry in [0x40_0000, 0x7fff_f7ff_0000] {
            let code = assemble(entry, &zero(), !0).expect("assembled");
            assert!(MAGIC.len() + 1 + code.len() <= ROOM, "{}", code.len());
            assert!(code.starts_with(&super::super::remote::SYSCALL));
        }
    }

    #[test]
    fn a_place_is_behind_the_code_of_a_module() {
        let pid = Pid(std::process::id() as i32);
        let mappings = super::super::facts::mappings(pid).expect("readable");
        let place = Place::find(Tid(pid.0), &mappings).expect("readable").expect("there is one").range();
        let mapping =
            mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&place.start)).expect("mapped");
        assert!(
            mapping.executable && place.end <= mapping.end && mapping.end - place.start < PAGE,
            "{place:?} {mapping:?}"
        );
        assert_eq!(Place::left(Tid(pid.0), &mappings).expect("readable"), []);
    }

    #[test]
    fn interrupted_calls_are_made_once_more() {
        let stopped = |call: i64, result: i64| {
            let registers = user_regs_struct { orig_rax: call as u64, rax: result as u64, rip: 0x1002, ..zero() };
            let registers = registers_in_user_mode(&registers);
            assert_eq!(registers.orig_rax, u64::MAX);
            (registers.rip, registers.rax as i64)
        };
        assert_eq!(stopped(0, -512), (0x1000, 0), "read, ERESTARTSYS");
        assert_eq!(stopped(34, -514), (0x1000, 34), "pause, ERESTARTNOHAND");
        assert_eq!(stopped(35, -516), (0x1000, 219), "nanosleep, ERESTART_RESTARTBLOCK");
        assert_eq!(stopped(0, 5), (0x1002, 5), "returned");
        assert_eq!(stopped(-1, -512), (0x1002, -512), "in no call");
    }
}
