//! Guards found in a process's memory, whoever put them there.

use std::io;
use std::ops::Range;

use super::action::Action;
use super::guard_table::{MAGIC, TABLES, Table, VERSION, header};
use super::remote::Remote;
use super::{code_map, memory};
use crate::{Error, Guard, Mapping, Pid, Tid};

const PAGE: usize = 4096;

/// A guard in the memory of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GuardImage {
    /// Address of its header.
    pub(super) base: u64,
    /// Of its layout.
    version: u32,
    /// It was removed, though not from memory.
    pub(super) retired: bool,
}

impl GuardImage {
    /// All guards in executable memory that belongs to no file.
    pub(super) fn find(tid: Tid, mappings: &[Mapping]) -> Result<Vec<Self>, Error> {
        let mut images = Vec::new();
        let candidates = mappings.iter().filter(|mapping| {
            mapping.executable && !mapping.writable && !mapping.shared && mapping.path.as_os_str().is_empty()
        });
        for mapping in candidates {
            // The kernel merges adjacent mappings, so it may begin in the midst of one.
            for base in (mapping.start..mapping.end).step_by(PAGE) {
                let mut bytes = [0; header::CURRENT as usize];
                if memory::read_memory(tid, base, &mut bytes)? == bytes.len() && bytes.starts_with(&MAGIC) {
                    let version = std::array::from_fn(|index| bytes[header::VERSION as usize + index]);
                    let retired = bytes[header::RETIRED as usize] != 0;
                    images.push(GuardImage { base, version: u32::from_le_bytes(version), retired });
                }
            }
        }
        Ok(images)
    }

    /// The error if its layout is not the one that this file knows.
    pub(super) fn check_version(&self, pid: Pid) -> Result<(), Error> {
        if self.is_known() {
            return Ok(());
        }
        let cause = io::Error::other(format!("another version of memleax left them (layout {})", self.version));
        Err(Error::Memory { what: "interpret", length: header::SIZE as usize, address: self.base, pid, cause })
    }

    /// Its layout is the one that this file knows.
    pub(super) fn is_known(&self) -> bool {
        self.version == VERSION
    }

    /// The address of its handler.
    pub(super) fn handler(&self) -> u64 {
        self.base + header::SIZE
    }

    /// The action of the program's own.
    pub(super) fn old_action(&self, tid: Tid) -> Result<Action, Error> {
        Action::read(tid, self.base + header::OLD_ACTION)
    }

    /// Its breakpoints.
    pub(super) fn breakpoints(&self, tid: Tid) -> Result<Vec<Guard>, Error> {
        let mut current = [0];
        memory::read_exactly(tid, self.base + header::CURRENT, &mut current)?;
        match self.tables(tid)?.get(usize::from(current[0])) {
            Some(range) => {
                let mut bytes = vec![0; (range.end - range.start) as usize];
                memory::read_exactly(tid, range.start, &mut bytes)?;
                Ok(Table::breakpoints(&bytes))
            }
            None => Ok(Vec::new()),
        }
    }

    /// Marks it as out of use.
    pub(super) fn retire(&self, tid: Tid) -> Result<(), Error> {
        memory::write_memory(tid, self.base + header::RETIRED, &[1])
    }

    /// Its mapping.
    pub(super) fn range(&self, tid: Tid) -> Result<Range<u64>, Error> {
        Ok(self.base..self.base + read_word(tid, self.base + header::LENGTH)?)
    }

    /// Unmaps it and its tables. No thread may be in it.
    pub(super) fn unmap(&self, remote: &Remote) -> Result<(), Error> {
        let range = self.range(remote.tid())?;
        // The first table is in the guard's own mapping.
        for table in self.tables(remote.tid())?.iter().skip(1) {
            code_map::unmap(remote, table.start, (table.end - table.start) as usize)?;
        }
        code_map::unmap(remote, range.start, (range.end - range.start) as usize)
    }

    /// Where its tables are.
    fn tables(&self, tid: Tid) -> Result<Vec<Range<u64>>, Error> {
        let mut tables = Vec::new();
        for index in 0..TABLES as u64 {
            let address = read_word(tid, self.base + header::TABLES + 8 * index)?;
            if address == 0 {
                break;
            }
            let capacity = read_word(tid, address)? as usize + 1;
            tables.push(address..address + Table::size(capacity) as u64);
        }
        Ok(tables)
    }
}

fn read_word(tid: Tid, address: u64) -> Result<u64, Error> {
    let mut bytes = [0; 8];
    memory::read_exactly(tid, address, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
