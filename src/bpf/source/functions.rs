//! Probes at functions that allocate and free, or hand out objects.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use memleax_platform::Tracer;

use super::{AttachError, BpfSource, HookedFunction};
use crate::allocator::{self, Hook};
use crate::bpf::hooks;
use crate::bpf::kernel::{Probe, Role};
use crate::source::{HookedModule, Notice};
use crate::unwind::{Module, Role as ModuleRole, state_changed_function};

impl<T: Tracer> BpfSource<T> {
    /// Sets them in a module, once for each file.
    ///
    /// # Errors
    /// Why they cannot be set; then none is.
    pub(super) fn hook(&mut self, module: &Arc<Module>) -> Result<(), AttachError> {
        if let Some(probes) = self.hooked.get(&module.file_id) {
            self.kernel.moved(module, probes).map_err(|cause| self.cannot_attach(module, cause))?;
            return Ok(());
        }
        let mut probes = Vec::new();
        let mut names = Vec::new();
        for hook in self.functions_of(module) {
            let Ok(number) = u32::try_from(self.functions.len()) else { break };
            let Some((probe, place)) = hooks::probe(module, &hook, number) else { continue };
            if self.kernel.has_one_probe_an_address()
                && probes.iter().any(|other: &Probe| other.address == probe.address)
            {
                let (function, module) = (hook.function.name, module.path.display().to_string());
                return Err(AttachError::Ambiguous { function, module });
            }
            if !place.emulated {
                tracing::debug!("{} of {}: no emulated instruction", hook.function.name, module.path.display());
            }
            self.functions.push(HookedFunction {
                file: module.file_id,
                address: hook.address,
                class: hook.function.class,
            });
            probes.push(probe);
            names.push(hook.function.name);
        }
        if module.role == ModuleRole::Interpreter
            && let Some(run_time_address) = state_changed_function(module)
        {
            let address = module.file_address(run_time_address);
            let probe =
                module.file_offset(address).map(|offset| Probe { role: Role::Loader, offset, address, cookie: 1 });
            probes.extend(probe);
        }
        if probes.is_empty() {
            self.set_markers(module, probes);
            return Ok(());
        }
        let file = self.open(module).map_err(|cause| self.cannot_attach(module, cause))?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        self.kernel.moved(module, &probes).map_err(|cause| self.cannot_attach(module, cause))?;
        self.kernel.attach(self.target, path.as_ref(), &probes).map_err(|cause| self.cannot_attach(module, cause))?;
        self.set_markers(module, probes);
        if !names.is_empty() {
            // A glob names several, and several types may have the same.
            names.dedup();
            let path = module.path.display().to_string();
            self.notices.push(Notice::Hooked(HookedModule { path, functions: names }));
        }
        Ok(())
    }

    fn functions_of(&mut self, module: &Module) -> Vec<Hook> {
        let Some(image) = &module.image else { return Vec::new() };
        // A stripped static program, whose symbols may be in its debug file.
        let debug_file = || match module.role {
            ModuleRole::Executable => (self.debug_files)(module).map(|image| image.shared()),
            _ => None,
        };
        let found = allocator::observed(&module.path, image.bytes(), debug_file, self.mmap);
        if !found.indirect.is_empty() {
            self.notices.push(Notice::Warning(format!(
                "cannot observe {} of {}: which code they are is chosen at run time",
                found.indirect.join(", "),
                module.path.display()
            )));
        }
        let debug_files = &mut self.debug_files;
        found.and(self.named.of(image.bytes(), || debug_files(module).map(|image| image.shared())))
    }

    pub(super) fn cannot_attach(&self, module: &Module, cause: libbpf_rs::Error) -> AttachError {
        AttachError::Attach { module: module.path.display().to_string(), pid: self.target, cause }
    }

    /// The file that is mapped, whatever its path names now.
    pub(super) fn open(&mut self, module: &Module) -> libbpf_rs::Result<File> {
        let mappings = self.facts.mappings(self.target).map_err(std::io::Error::other)?;
        let mapping = mappings
            .iter()
            .find(|mapping| mapping.file_id == module.file_id && module.range.contains(&mapping.start))
            .ok_or_else(|| std::io::Error::other("it is not mapped any more"))?;
        Ok(self.facts.open_mapping(self.target, mapping)?)
    }
}
