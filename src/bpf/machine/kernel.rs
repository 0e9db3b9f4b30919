//! The programs for the whole machine: loading, attaching, and their maps.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, UprobeMultiOpts, UprobeOpts};
use memleax_platform::native::read_hash_map;
use memleax_platform::{Pid, SharedWords};

use super::cgroups;
use super::layout::{BUCKET_SLOTS, BUCKET_WORDS, Control, PLACES, PROCESS_WORDS, SLOT_FREE, Word, place, place_of};
use crate::bpf::attachment::{Aligned, Attachment, NoVariant, program};
use crate::bpf::kernel::{Probe, Role, log, map};

static MACHINE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/machine.bpf.o")));

/// Best first. Before 6.1 live blocks could not take memory as needed.
const VARIANTS: [Attachment; 3] = [Attachment::Session, Attachment::Multi, Attachment::Perf];

/// Programs that tell of processes.
const TELLING: [&str; 3] = ["process_forked", "process_executed", "process_exited"];

/// Sizes fixed when the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// 2^this buckets of eight live blocks, 128 bytes each.
    pub(super) bucket_bits: u32,
    /// Live blocks beyond those, which take memory only when they are there.
    pub(super) overflow: u32,
    /// Processes at a time; at most [`PLACES`].
    pub(super) places: u32,
}

/// The loaded programs. Dropping it removes every probe.
pub(super) struct Kernel {
    links: Vec<Link>,
    attachment: Attachment,
    control: SharedWords,
    processes: SharedWords,
    live: SharedWords,
    overflow: MapHandle,
    free_places: MapHandle,
    object: Object,
}

impl Kernel {
    /// Loads the first variant that this kernel takes.
    ///
    /// # Errors
    /// Why it takes none.
    pub(super) fn load(sizes: Sizes) -> Result<Kernel, NoVariant> {
        libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Info, log)));
        let mut reasons = Vec::new();
        for attachment in VARIANTS {
            match Kernel::load_variant(attachment, sizes) {
                Ok(kernel) => {
                    tracing::info!("probes by {}", attachment.name());
                    return Ok(kernel);
                }
                Err(why) => reasons.push((attachment, why)),
            }
        }
        Err(NoVariant::new(reasons))
    }

    fn load_variant(attachment: Attachment, sizes: Sizes) -> libbpf_rs::Result<Kernel> {
        attachment.try_out()?;
        let mut open = ObjectBuilder::default().open_memory(&MACHINE.0)?;
        for mut map in open.maps_mut() {
            match map.name().to_str() {
                Some("live") => map.set_max_entries(1 << sizes.bucket_bits)?,
                Some("overflow") => map.set_max_entries(sizes.overflow)?,
                _ => {}
            }
        }
        let probes = programs(attachment);
        for mut program in open.progs_mut() {
            let wanted = program.name().to_str().is_some_and(|name| probes.contains(&name) || TELLING.contains(&name));
            program.set_autoload(wanted);
        }
        let object = open.load()?;
        let words = |name: &str, words: usize| {
            SharedWords::new(map(&object, name)?.as_fd(), words).map_err(libbpf_rs::Error::from)
        };
        let handle = |name: &str| MapHandle::try_from(&map(&object, name)?);
        let kernel = Kernel {
            links: Vec::new(),
            attachment,
            control: words("machine", Control::WORDS)?,
            processes: words("processes", PLACES as usize * PROCESS_WORDS)?,
            live: words("live", BUCKET_WORDS << sizes.bucket_bits)?,
            overflow: handle("overflow")?,
            free_places: handle("free_places")?,
            object,
        };
        kernel.set(Control::OwnPid, u64::from(std::process::id()));
        kernel.set(Control::BucketBits, u64::from(sizes.bucket_bits));
        // The first ones are to be taken first, and place 0 is none.
        for place in (1..sizes.places.min(PLACES)).rev() {
            kernel.free_places.update(&[], &place.to_ne_bytes(), MapFlags::ANY)?;
        }
        Ok(kernel)
    }

    /// The programs that tell of processes begin.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn watch_processes(&mut self, folders: &[File]) -> libbpf_rs::Result<()> {
        let asked_for = map(&self.object, "cgroups")?;
        for (index, folder) in (0u32..).zip(folders.iter().take(cgroups::AT_MOST)) {
            let descriptor = folder.as_raw_fd().cast_unsigned();
            asked_for.update(&index.to_ne_bytes(), &descriptor.to_ne_bytes(), MapFlags::ANY)?;
        }
        self.set(Control::Cgroups, folders.len() as u64);
        for name in TELLING {
            self.links.push(program(&self.object, name, |program| program.attach())?);
        }
        Ok(())
    }

    /// Sets probes in the file at `path` in one process, or all.
    ///
    /// # Errors
    /// That of the first probe that could not be set. Then none of them is.
    pub(super) fn attach(&mut self, target: Option<Pid>, path: &Path, probes: &[Probe]) -> libbpf_rs::Result<()> {
        let before = self.links.len();
        let result = self.attach_each(target.map_or(-1, |pid| pid.0), path, probes);
        if result.is_err() {
            self.links.truncate(before);
        }
        result
    }

    fn attach_each(&mut self, pid: i32, path: &Path, probes: &[Probe]) -> libbpf_rs::Result<()> {
        // Frees first, and the returns before the entries that they belong to.
        let of = |role: Role| probes.iter().copied().filter(|probe| probe.role == role).collect::<Vec<_>>();
        let (frees, calls) = (of(Role::Free), of(Role::Call));
        match self.attachment {
            Attachment::Session => {
                self.attach_multi("multi_free", pid, path, &frees, false)?;
                self.attach_multi("session_call", pid, path, &calls, false)
            }
            Attachment::Multi => {
                self.attach_multi("multi_free", pid, path, &frees, false)?;
                self.attach_multi("multi_return", pid, path, &calls, true)?;
                self.attach_multi("multi_enter", pid, path, &calls, false)
            }
            Attachment::Perf | Attachment::Old => {
                self.attach_perf("perf_free", pid, path, &frees, false)?;
                self.attach_perf("perf_return", pid, path, &calls, true)?;
                self.attach_perf("perf_enter", pid, path, &calls, false)
            }
        }
    }

    fn attach_multi(
        &mut self,
        name: &str,
        pid: i32,
        path: &Path,
        probes: &[Probe],
        retprobe: bool,
    ) -> libbpf_rs::Result<()> {
        if probes.is_empty() {
            return Ok(());
        }
        let options = UprobeMultiOpts {
            offsets: probes.iter().map(|probe| probe.offset as usize).collect(),
            cookies: probes.iter().map(|probe| probe.cookie).collect(),
            retprobe,
            session: name == "session_call",
            ..Default::default()
        };
        let link =
            program(&self.object, name, |program| program.attach_uprobe_multi_with_opts(pid, path, "", options))?;
        self.links.push(link);
        Ok(())
    }

    fn attach_perf(
        &mut self,
        name: &str,
        pid: i32,
        path: &Path,
        probes: &[Probe],
        retprobe: bool,
    ) -> libbpf_rs::Result<()> {
        for probe in probes {
            let options = UprobeOpts { cookie: probe.cookie, retprobe, ..Default::default() };
            let offset = probe.offset as usize;
            let link =
                program(&self.object, name, |program| program.attach_uprobe_with_opts(pid, path, offset, options))?;
            self.links.push(link);
        }
        Ok(())
    }

    /// Programs that begin from now on are seen from their beginning.
    pub(super) fn is_ready(&self) {
        self.set(Control::IsReady, 1);
    }

    /// A counter's value.
    pub(super) fn counter(&self, counter: Control) -> u64 {
        self.control[counter as usize].load(Relaxed)
    }

    fn set(&self, counter: Control, value: u64) {
        self.control[counter as usize].store(value, Relaxed);
    }

    /// Places that were ever used, their words, and what each is used for.
    pub(super) fn places(&self) -> impl Iterator<Item = (u32, &[AtomicU64], u64)> {
        let highest = usize::try_from(self.counter(Control::Highest)).unwrap_or(0);
        let used = self.processes.chunks_exact(PROCESS_WORDS).take(highest + 1).skip(1);
        (1u32..).zip(used).map(|(place, words)| (place, words, words[Word::Place as usize].load(Acquire)))
    }

    /// The process of a place has been told of, but some of its blocks are still in the books.
    pub(super) fn hold(&self, place: u32) {
        self.processes[place as usize * PROCESS_WORDS].store(place::HELD, Release);
    }

    /// Lets a place be used anew, whose blocks have been swept out.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn free(&self, place: u32) -> libbpf_rs::Result<()> {
        self.processes[place as usize * PROCESS_WORDS].store(place::FREE, Release);
        self.free_places.update(&[], &place.to_ne_bytes(), MapFlags::ANY)
    }

    /// Takes all blocks out that are of places of which `is_dead` says so.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn sweep(&self, is_dead: impl Fn(usize) -> bool) -> libbpf_rs::Result<()> {
        for bucket in self.live.chunks_exact(BUCKET_WORDS) {
            for key in &bucket[..BUCKET_SLOTS] {
                let found = key.load(Relaxed);
                if is_dead(place_of(found)) {
                    _ = key.compare_exchange(found, SLOT_FREE, AcqRel, Relaxed);
                }
            }
        }
        if self.counter(Control::Overflowed) == 0 {
            return Ok(());
        }
        let mut dead = Vec::new();
        read_hash_map(self.overflow.as_fd(), |key, _: [u64; 1]| {
            if is_dead(place_of(key)) {
                dead.push(key);
            }
        })?;
        for key in dead {
            self.overflow.delete(&key.to_ne_bytes())?;
            self.control[Control::Overflowed as usize].fetch_sub(1, Relaxed);
        }
        Ok(())
    }

    /// Removes every probe; calls before frees, so that no free is missed of what was counted.
    pub(super) fn detach(&mut self) {
        while let Some(link) = self.links.pop() {
            drop(link);
        }
    }
}

/// The programs that a way to attach needs.
fn programs(attachment: Attachment) -> &'static [&'static str] {
    match attachment {
        Attachment::Session => &["session_call", "multi_free"],
        Attachment::Multi => &["multi_enter", "multi_return", "multi_free"],
        Attachment::Perf | Attachment::Old => &["perf_enter", "perf_return", "perf_free"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_on_the_layout_of_the_maps() {
        let open = ObjectBuilder::default().open_memory(&MACHINE.0).unwrap();
        let mut compared = 0;
        for map in open.maps() {
            let words = match map.name().to_str().unwrap() {
                "machine" => Control::WORDS,
                "processes" => {
                    assert_eq!(map.max_entries(), PLACES);
                    PROCESS_WORDS
                }
                "live" => BUCKET_WORDS,
                "cgroups" => {
                    assert_eq!(map.max_entries() as usize, cgroups::AT_MOST);
                    continue;
                }
                _ => continue,
            };
            assert_eq!(map.value_size() as usize, words * size_of::<u64>(), "{}", map.name().display());
            compared += 1;
        }
        assert_eq!(compared, 3);
    }

    /// See the test of this name in `src/bpf/kernel.rs`.
    #[test]
    fn every_uprobe_program_has_a_tail_call() {
        const CALL: u8 = 0x85;
        const TAIL_CALL: i32 = 12;
        let open = ObjectBuilder::default().open_memory(&MACHINE.0).unwrap();
        let telling = |name: &std::ffi::OsStr| TELLING.iter().any(|telling| name == *telling);
        for program in open.progs().filter(|program| !telling(program.name())) {
            let insns = program.insns();
            let found = insns.iter().any(|insn| insn.code == CALL && insn.src_reg() == 0 && insn.imm == TAIL_CALL);
            assert!(found, "{}", program.name().display());
        }
    }
}
