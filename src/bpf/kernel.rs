//! The programs in the kernel: loading the variant that this kernel takes, attaching, and its maps.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use libbpf_rs::{
    Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, RingBuffer, RingBufferBuilder, UprobeMultiOpts,
    UprobeOpts,
};
use memleax_platform::native::read_hash_map;
use memleax_platform::{Pid, SharedWords};

use super::attachment::{Aligned, Attachment, NoVariant, program};
use super::books::{self, LiveBlock};
use super::layout::{CACHED_RULE_WORDS, Control, REFERENCES, RULE_CACHE, RULES, SCRATCH_PER_CPU, SITES, Site, bucket};
use super::table::KernelTable;
use crate::event::Class;
use crate::unwind::Module;

/// `PROC_PID_INIT_INO`, `include/linux/proc_ns.h`.
pub(super) const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// `PAGE` of `layout.bpf.h`.
const PAGE: u64 = 4096;

static CURRENT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/current.bpf.o")));
static OLD: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/old.bpf.o")));

/// Sizes fixed when the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Rows of both tables, the one in use and its successor.
    pub(super) rows: u32,
    /// 2^this buckets of eight live blocks, 256 bytes each.
    pub(super) bucket_bits: u32,
    /// Live blocks beyond those, which take memory (about 100 bytes) only when they are there. Not for old kernels.
    pub(super) overflow: u32,
    /// Bytes of the ring buffer; a power of two.
    pub(super) records: u32,
    /// What is sent of a stack that has to be walked here.
    pub(super) copies: Copies,
    /// There are other classes than memory.
    pub(super) objects: bool,
}

impl Sizes {
    /// `loading` of `control.bpf.h`.
    fn words(self) -> [u64; 3] {
        [self.copies.length.into(), self.copies.all.into(), self.objects.into()]
    }
}

/// Copies of stacks for the general unwinder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Copies {
    /// Bytes of each of the two; whole pages, at most 64 KiB.
    pub(super) length: u32,
    /// Of each new stack, to compare both ways to walk; not only of those that the rule table does not suffice for.
    pub(super) all: bool,
}

impl Copies {
    /// Where the rule table does not suffice.
    pub(super) const WHERE_NEEDED: Copies = Copies { length: 8192, all: false };
}

/// What a probe is to do when it is hit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// A call whose return matters.
    Call,
    /// A deallocation.
    Free,
    /// The dynamic linker's notification.
    Loader,
    /// A function that the user has named.
    Marker,
}

/// One probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Probe {
    pub(super) role: Role,
    /// Offset in the file of the instruction.
    pub(super) offset: u64,
    /// Address of the instruction, as the file counts.
    pub(super) address: u64,
    pub(super) cookie: u64,
}

/// The loaded programs. Dropping it removes every probe.
pub(super) struct Kernel {
    /// In order of attachment.
    links: Vec<Link>,
    attachment: Attachment,
    control: SharedWords,
    rows: SharedWords,
    rules: SharedWords,
    rule_cache: SharedWords,
    sites: SharedWords,
    site_numbers: MapHandle,
    site_cache: SharedWords,
    references: SharedWords,
    live: Option<SharedWords>,
    overflow: MapHandle,
    cookies: Option<MapHandle>,
    object: Object,
}

impl Kernel {
    /// Loads the first of `variants` that this kernel takes.
    ///
    /// # Errors
    /// Why it takes none.
    pub(super) fn load(variants: &[Attachment], sizes: Sizes) -> Result<Kernel, NoVariant> {
        libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Info, log)));
        let mut reasons = Vec::new();
        for &attachment in variants {
            match Kernel::load_variant(attachment, sizes) {
                Ok(kernel) => {
                    tracing::info!("probes by {}", attachment.name());
                    return Ok(kernel);
                }
                Err(why) => {
                    tracing::debug!("no {} here: {why:#}", attachment.name());
                    reasons.push((attachment, why));
                }
            }
        }
        Err(NoVariant::new(reasons))
    }

    /// Loads each variant and takes it out again.
    pub(super) fn examine() -> Vec<(&'static str, Result<(), String>)> {
        libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Info, log)));
        let sizes =
            Sizes { rows: 1, bucket_bits: 1, overflow: 1, records: 4096, copies: Copies::WHERE_NEEDED, objects: false };
        let examine = |attachment| Kernel::load_variant(attachment, sizes).map(drop).map_err(|why| format!("{why:#}"));
        Attachment::BEST_FIRST.map(|attachment| (attachment.name(), examine(attachment))).to_vec()
    }

    fn load_variant(attachment: Attachment, sizes: Sizes) -> libbpf_rs::Result<Kernel> {
        attachment.try_out()?;
        let bytes = if attachment == Attachment::Old { &OLD.0 } else { &CURRENT.0 };
        let cpus = u32::try_from(libbpf_rs::num_possible_cpus()?).unwrap_or(1);
        let mut open = ObjectBuilder::default().open_memory(bytes)?;
        for mut map in open.maps_mut() {
            if map.name().to_str().is_some_and(|name| name.ends_with(".rodata")) {
                map.set_initial_value(sizes.words().map(u64::to_ne_bytes).as_flattened())?;
                continue;
            }
            let entries = match map.name().to_str() {
                Some("rows") => sizes.rows,
                Some("records") => sizes.records,
                Some("scratch") => cpus * SCRATCH_PER_CPU,
                Some("live") => 1 << sizes.bucket_bits,
                // All of it is allocated at once, and there are no buckets.
                Some("overflow") if attachment == Attachment::Old => 8 << sizes.bucket_bits,
                Some("overflow") => sizes.overflow,
                // Of old kernels: they allocate all of it at once.
                Some("object_calls" | "hold_calls") if attachment == Attachment::Old && !sizes.objects => 1,
                _ => continue,
            };
            map.set_max_entries(entries)?;
        }
        for mut program in open.progs_mut() {
            let wanted = program.name().to_str().is_some_and(|name| attachment.programs().contains(&name));
            program.set_autoload(wanted);
        }
        let object = open.load()?;
        let words = |name: &str, words: usize| {
            SharedWords::new(map(&object, name)?.as_fd(), words).map_err(libbpf_rs::Error::from)
        };
        let control = words("control", Control::WORDS)?;
        control[Control::BucketBits as usize].store(u64::from(sizes.bucket_bits), Relaxed);
        control[Control::Closed as usize].store(1, Relaxed);
        control[Control::DepthAndCpus as usize].store(u64::from(cpus) << 32, Relaxed);
        let is_old = attachment == Attachment::Old;
        Ok(Kernel {
            links: Vec::new(),
            attachment,
            control,
            rows: words("rows", sizes.rows as usize)?,
            rules: words("rules", RULES)?,
            rule_cache: words("rule_cache", RULE_CACHE * CACHED_RULE_WORDS)?,
            sites: words("sites", SITES * Site::WORDS)?,
            site_numbers: MapHandle::try_from(&map(&object, "site_numbers")?)?,
            site_cache: words("site_cache", SITES)?,
            references: words("references", REFERENCES)?,
            live: (!is_old).then(|| words("live", bucket::WORDS << sizes.bucket_bits)).transpose()?,
            overflow: MapHandle::try_from(&map(&object, "overflow")?)?,
            cookies: is_old.then(|| MapHandle::try_from(&map(&object, "cookies")?)).transpose()?,
            object,
        })
    }

    /// Hands every record that the programs write to `take`, when the buffer is polled.
    pub(super) fn records<'take>(&self, take: impl FnMut(&[u8]) + 'take) -> libbpf_rs::Result<RingBuffer<'take>> {
        let mut take = take;
        let records = map(&self.object, "records")?;
        let mut builder = RingBufferBuilder::new();
        builder.add(&records, move |bytes| {
            take(bytes);
            0
        })?;
        builder.build()
    }

    /// Where the rule table goes.
    pub(super) fn table(&self) -> KernelTable<'_> {
        KernelTable {
            rows: &self.rows,
            rules: &self.rules,
            rule_cache: &self.rule_cache,
            in_use: &self.control[Control::Rows as usize],
        }
    }

    /// A counter's value.
    pub(super) fn counter(&self, counter: Control) -> u64 {
        self.control[counter as usize].load(Relaxed)
    }

    /// The totals of all sites.
    pub(super) fn sites(&self) -> &[AtomicU64] {
        &self.sites
    }

    /// How often functions were called, by place.
    pub(super) fn references(&self) -> &[AtomicU64] {
        &self.references
    }

    /// The buckets of live blocks; none where live blocks are kept in the overflow map only.
    pub(super) fn live(&self) -> &[AtomicU64] {
        self.live.as_deref().unwrap_or(&[])
    }

    /// Hands every live block that is in no bucket to `take`.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn overflow(&self, mut take: impl FnMut(LiveBlock)) -> libbpf_rs::Result<()> {
        read_hash_map(self.overflow.as_fd(), |key, [size, time, site]| take(LiveBlock::new(key, size, time, site)))?;
        Ok(())
    }

    /// What could not be counted of a class's objects because they are not known.
    pub(super) fn unknown_objects(&self, class: Class) -> u64 {
        let words = &self.control[Control::UnknownObjects as usize..];
        words.get(usize::from(class.0)).map_or(0, |word| word.load(Relaxed))
    }

    /// True if probes are told apart by their addresses: then there cannot be two at one.
    pub(super) fn has_one_probe_an_address(&self) -> bool {
        self.cookies.is_some()
    }

    /// Learns where a module with probes, or one that is about to get them, is mapped now.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn moved(&self, module: &Module, probes: &[Probe]) -> libbpf_rs::Result<()> {
        let Some(cookies) = &self.cookies else { return Ok(()) };
        for probe in probes {
            let cookie = probe.cookie.to_ne_bytes();
            let address = module.run_time_address(probe.address);
            cookies.update(&address.to_ne_bytes(), &cookie, MapFlags::ANY)?;
            let place = (address % PAGE).to_ne_bytes();
            let other = cookies.lookup(&place, MapFlags::ANY)?.is_some_and(|other| other != cookie);
            let of_place = if other { [0; 8] } else { cookie };
            cookies.update(&place, &of_place, MapFlags::ANY)?;
        }
        Ok(())
    }

    /// Takes the blocks out of the books that are older than `time` (of the kernel's monotonic clock).
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn forget_blocks_before(&self, time: u64, mut gone: impl FnMut(LiveBlock)) -> libbpf_rs::Result<()> {
        books::forget_before(time, self.live(), &mut gone);
        let mut old = Vec::new();
        read_hash_map(self.overflow.as_fd(), |key, [size, at, site]| {
            if at < time {
                old.push((key, LiveBlock::new(key, size, at, site)));
            }
        })?;
        for (key, block) in old {
            match self.overflow.delete(&key.to_ne_bytes()) {
                Ok(()) => gone(block),
                // The new program was faster.
                Err(why) if why.kind() == libbpf_rs::ErrorKind::NotFound => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Lets the stack of this hash have a new number when it is seen again.
    pub(super) fn forget_stack(&self, hash: u64) {
        // It is not there if the programs have not kept it.
        let _ = self.site_numbers.delete(&hash.to_ne_bytes());
        let cached = &self.site_cache[hash as usize % SITES];
        let entry = cached.load(Relaxed);
        if (entry ^ hash) >> 16 == 0 {
            let _ = cached.compare_exchange(entry, 0, Relaxed, Relaxed);
        }
    }

    /// Begins to count, everywhere at once: when the first probes are set. As loaded, programs count nothing.
    pub(super) fn open_books(&self) {
        self.control[Control::Closed as usize].store(0, Relaxed);
    }

    /// Ends counting, everywhere at once; then removes every probe, one after the other.
    pub(super) fn detach(&mut self) {
        self.control[Control::Closed as usize].store(1, Relaxed);
        while let Some(link) = self.links.pop() {
            drop(link);
        }
    }

    /// Sets what calls are followed by from now on.
    pub(super) fn configure(&self, expire: Duration, frames: u32) {
        let expire = u64::try_from(expire.as_nanos()).unwrap_or(u64::MAX);
        self.control[Control::Expire as usize].store(expire, Relaxed);
        let cpus = self.control[Control::DepthAndCpus as usize].load(Relaxed) >> 32 << 32;
        self.control[Control::DepthAndCpus as usize].store(cpus | u64::from(frames), Relaxed);
    }

    /// Learns of execs from now on. Whose they are the kernel tells by its first pid namespace: from another, `target` means nothing
    /// there, and is learnt at the target's first call instead.
    pub(super) fn watch_exec(&mut self, target: Pid) -> libbpf_rs::Result<()> {
        if fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace.as_os_str() == FIRST_PID_NAMESPACE) {
            self.control[Control::Tgid as usize].store(u64::from(target.0.cast_unsigned()), Relaxed);
        }
        let link = program(&self.object, "exec", |program| program.attach_raw_tracepoint("sched_process_exec"))?;
        self.links.push(link);
        Ok(())
    }

    /// Attaches to the file at `path`, for one process only.
    ///
    /// # Errors
    /// The error of the first probe that could not be attached. Then none of them is: were they attached once more, with the module mapped
    /// anew, what they count would be counted twice.
    pub(super) fn attach(&mut self, target: Pid, path: &Path, probes: &[Probe]) -> libbpf_rs::Result<()> {
        let before = self.links.len();
        let result = self.attach_each(target, path, probes);
        if result.is_err() {
            self.links.truncate(before);
        }
        result
    }

    fn attach_each(&mut self, target: Pid, path: &Path, probes: &[Probe]) -> libbpf_rs::Result<()> {
        for role in [Role::Loader, Role::Marker, Role::Free, Role::Call] {
            let probes: Vec<Probe> = probes.iter().copied().filter(|probe| probe.role == role).collect();
            if probes.is_empty() {
                continue;
            }
            match (self.attachment, role) {
                (Attachment::Session | Attachment::Multi, Role::Loader) => {
                    self.attach_multi("multi_loader", target, path, &probes, false)?
                }
                (Attachment::Session | Attachment::Multi, Role::Marker) => {
                    self.attach_multi("multi_mark", target, path, &probes, false)?
                }
                (Attachment::Session | Attachment::Multi, Role::Free) => {
                    self.attach_multi("multi_free", target, path, &probes, false)?
                }
                (Attachment::Session, Role::Call) => self.attach_multi("session_call", target, path, &probes, false)?,
                (Attachment::Multi, Role::Call) => {
                    self.attach_multi("multi_return", target, path, &probes, true)?;
                    self.attach_multi("multi_enter", target, path, &probes, false)?;
                }
                (Attachment::Perf | Attachment::Old, Role::Loader) => {
                    self.attach_perf("perf_loader", target, path, &probes, false)?
                }
                (Attachment::Perf | Attachment::Old, Role::Marker) => {
                    self.attach_perf("perf_mark", target, path, &probes, false)?
                }
                (Attachment::Perf | Attachment::Old, Role::Free) => {
                    self.attach_perf("perf_free", target, path, &probes, false)?
                }
                (Attachment::Perf | Attachment::Old, Role::Call) => {
                    self.attach_perf("perf_return", target, path, &probes, true)?;
                    self.attach_perf("perf_enter", target, path, &probes, false)?;
                }
            }
        }
        Ok(())
    }

    fn attach_multi(
        &mut self,
        name: &str,
        target: Pid,
        path: &Path,
        probes: &[Probe],
        retprobe: bool,
    ) -> libbpf_rs::Result<()> {
        let options = UprobeMultiOpts {
            offsets: probes.iter().map(|probe| probe.offset as usize).collect(),
            cookies: probes.iter().map(|probe| probe.cookie).collect(),
            retprobe,
            session: name == "session_call",
            ..Default::default()
        };
        let link =
            program(&self.object, name, |program| program.attach_uprobe_multi_with_opts(target.0, path, "", options))?;
        self.links.push(link);
        Ok(())
    }

    fn attach_perf(
        &mut self,
        name: &str,
        target: Pid,
        path: &Path,
        probes: &[Probe],
        retprobe: bool,
    ) -> libbpf_rs::Result<()> {
        for probe in probes {
            let options = UprobeOpts {
                cookie: if self.cookies.is_some() { 0 } else { probe.cookie },
                retprobe,
                ..Default::default()
            };
            let link = program(&self.object, name, |program| {
                program.attach_uprobe_with_opts(target.0, path, probe.offset as usize, options)
            })?;
            self.links.push(link);
        }
        Ok(())
    }
}

/// What libbpf has to say is of use to who looks for the reason of an error, which it returns besides.
pub(super) fn log(_: libbpf_rs::PrintLevel, message: String) {
    tracing::debug!("{}", message.trim_end());
}

pub(super) fn map<'object>(object: &'object Object, name: &str) -> libbpf_rs::Result<libbpf_rs::Map<'object>> {
    object.maps().find(|map| map.name() == name).ok_or_else(|| libbpf_rs::Error::from_raw_os_error(nix::libc::ENOENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_on_the_layout_of_the_maps() {
        for bytes in [&OLD.0, &CURRENT.0] {
            let open = ObjectBuilder::default().open_memory(bytes).unwrap();
            for map in open.maps() {
                let words = match map.name().to_str().unwrap() {
                    "control" => Control::WORDS,
                    "rule_cache" => CACHED_RULE_WORDS,
                    "rows" | "rules" | "site_cache" | "site_numbers" | "cookies" | "references" => 1,
                    "sites" => Site::WORDS,
                    "live" => bucket::WORDS,
                    "overflow" => bucket::BLOCK_WORDS,
                    "scratch" | "records" | "nowhere" | "nowhere_session" => continue,
                    "calls" | "object_calls" | "no_object_calls" | "hold_calls" | "no_hold_calls" => continue,
                    rodata if rodata.ends_with(".rodata") => 3,
                    other => panic!("what is in {other}?"),
                };
                assert_eq!(map.value_size() as usize, words * size_of::<u64>(), "{}", map.name().display());
            }
        }
    }

    /// What the verifier sees differs.
    #[test]
    fn all_variants_that_this_kernel_has_are_taken_with_objects_too() {
        let sizes =
            Sizes { rows: 1, bucket_bits: 1, overflow: 1, records: 4096, copies: Copies::WHERE_NEEDED, objects: false };
        for attachment in Attachment::BEST_FIRST {
            match Kernel::load_variant(attachment, sizes) {
                Ok(_) => {
                    drop(Kernel::load_variant(attachment, Sizes { objects: true, ..sizes }).expect("with objects"))
                }
                Err(why) => memleax_targets::unable(&format!("{}: {why:#}", attachment.name())),
            }
        }
    }

    /// `NO_PRIVATE_STACK` of `memleax.bpf.c`: without it kernels that preempt crash.
    #[test]
    fn every_uprobe_program_has_a_tail_call() {
        // BPF_JMP | BPF_CALL, BPF_FUNC_tail_call
        const CALL: u8 = 0x85;
        const TAIL_CALL: i32 = 12;
        let open = ObjectBuilder::default().open_memory(&CURRENT.0).unwrap();
        for program in open.progs().filter(|program| program.name() != "exec") {
            let insns = program.insns();
            let found = insns.iter().any(|insn| insn.code == CALL && insn.src_reg() == 0 && insn.imm == TAIL_CALL);
            assert!(found, "{}", program.name().display());
        }
    }

    /// As many as fill the kernel's hash buckets unevenly.
    #[test]
    fn every_element_of_a_hash_map_is_read() {
        const ELEMENTS: u64 = 50_000;
        let size = size_of::<[u64; 3]>() as u32;
        let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
            ..Default::default()
        };
        let created = MapHandle::create(libbpf_rs::MapType::Hash, Some("test"), 8, size, ELEMENTS as u32, &options);
        let map = match created {
            Err(why) if why.kind() == libbpf_rs::ErrorKind::PermissionDenied => {
                return memleax_targets::unable(&format!("BPF maps need root: {why}"));
            }
            map => map.expect("a hash map"),
        };
        for key in 0..ELEMENTS {
            let value = [key, key + 1, key + 2].map(u64::to_ne_bytes);
            map.update(&key.to_ne_bytes(), value.as_flattened(), MapFlags::ANY).expect("room");
        }
        let mut seen = vec![0; ELEMENTS as usize];
        read_hash_map(map.as_fd(), |key, value| {
            assert_eq!(value, [key, key + 1, key + 2]);
            seen[key as usize] += 1;
        })
        .expect("a readable map");
        assert!(seen.iter().all(|&times| times == 1));
        assert!(read_hash_map(map.as_fd(), |_, _: [u64; 2]| {}).is_err(), "not the map's value size");
    }
}
