//! framehop, the unwinder of established profilers, as the reference that ours is held against.

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Unwinder};
use memleax::unwind::{Module, ModuleMap};
use memleax_platform::Registers;
use object::{Object, ObjectSection};

/// The bytes of a section.
type Bytes = Vec<u8>;

/// framehop with the live modules of a [`ModuleMap`].
pub(crate) struct Reference {
    unwinder: UnwinderX86_64<Bytes>,
    cache: CacheX86_64,
}

impl Reference {
    pub(crate) fn new(modules: &ModuleMap) -> Self {
        let mut unwinder = UnwinderX86_64::new();
        for module in modules.live() {
            let name = module.path.display().to_string();
            let sections = sections(module).unwrap_or_default();
            unwinder.add_module(framehop::Module::new(name, module.range.clone(), module.bias, sections));
        }
        Reference { unwinder, cache: CacheX86_64::new() }
    }

    /// The stack of a thread stopped anywhere, innermost frame first, into `frames`.
    #[allow(dead_code, reason = "the benchmark walks from call entries only")]
    pub(crate) fn unwind_from_registers(
        &mut self,
        registers: &Registers,
        read: &mut dyn FnMut(u64) -> Option<u64>,
        depth: usize,
        frames: &mut Vec<u64>,
    ) {
        let start = UnwindRegsX86_64::new(registers.rip, registers.rsp, registers.rbp);
        frames.clear();
        self.walk(FrameAddress::from_instruction_pointer(registers.rip), start, read, depth, frames);
    }

    /// The stack of a thread at the first instruction of a function, innermost frame first, into `frames`.
    #[allow(dead_code, reason = "the tests walk from registers only")]
    pub(crate) fn unwind_from_call_entry(
        &mut self,
        registers: &Registers,
        read: &mut dyn FnMut(u64) -> Option<u64>,
        depth: usize,
        frames: &mut Vec<u64>,
    ) {
        frames.clear();
        frames.push(registers.rip);
        let Some(caller) = read(registers.rsp) else { return };
        let Some(address) = FrameAddress::from_return_address(caller) else { return };
        let start = UnwindRegsX86_64::new(caller, registers.rsp + 8, registers.rbp);
        self.walk(address, start, read, depth, frames);
    }

    fn walk(
        &mut self,
        mut address: FrameAddress,
        mut registers: UnwindRegsX86_64,
        read: &mut dyn FnMut(u64) -> Option<u64>,
        depth: usize,
        frames: &mut Vec<u64>,
    ) {
        let mut read = |address| read(address).ok_or(());
        while frames.len() < depth {
            frames.push(address.address());
            let caller = self.unwinder.unwind_frame(address, &mut registers, &mut self.cache, &mut read);
            let Ok(Some(caller)) = caller else { return };
            let Some(caller) = FrameAddress::from_return_address(caller) else { return };
            address = caller;
        }
    }
}

/// What framehop wants to know of a module; `None` if the module has no image.
fn sections(module: &Module) -> Option<ExplicitModuleSectionInfo<Bytes>> {
    let file = object::File::parse(module.image.as_ref()?.bytes()).ok()?;
    let section = |name: &str| file.section_by_name(name);
    let range = |name: &str| section(name).map(|found| found.address()..found.address() + found.size());
    let bytes = |name: &str| Some(section(name)?.uncompressed_data().ok()?.into_owned());
    Some(ExplicitModuleSectionInfo {
        text_svma: range(".text"),
        got_svma: range(".got"),
        eh_frame_svma: range(".eh_frame"),
        eh_frame: bytes(".eh_frame"),
        eh_frame_hdr_svma: range(".eh_frame_hdr"),
        eh_frame_hdr: bytes(".eh_frame_hdr"),
        debug_frame: bytes(".debug_frame"),
        ..ExplicitModuleSectionInfo::default()
    })
}
