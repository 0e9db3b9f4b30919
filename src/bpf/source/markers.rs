//! Probes at functions that the user has named.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use memleax_platform::Tracer;

use super::{AttachError, BpfSource};
use crate::bpf::hooks;
use crate::bpf::kernel::Probe;
use crate::marker::Marker;
use crate::source::Notice;
use crate::unwind::Module;

impl<T: Tracer> BpfSource<T> {
    /// Sets them in a module that has the probes `present`, and takes note of all. What cannot be is warned of: the rest is of use without.
    pub(super) fn set_markers(&mut self, module: &Arc<Module>, mut present: Vec<Probe>) {
        match self.attach_markers(module, &present) {
            Ok(probes) => present.extend(probes),
            Err(why) => {
                self.notices.push(Notice::Warning(format!("no snapshots at calls there: {why}")));
            }
        }
        if !present.is_empty() {
            self.hooked.insert(module.file_id, present);
        }
    }

    fn attach_markers(&mut self, module: &Arc<Module>, present: &[Probe]) -> Result<Vec<Probe>, AttachError> {
        let mut probes = Vec::new();
        for marker in self.markers_of(module) {
            let Some(probe) = hooks::marker(module, &marker) else { continue };
            let is_taken = present.iter().any(|other| other.address == probe.address);
            if is_taken && self.kernel.has_one_probe_an_address() {
                let name = self.markers.name(marker.number);
                self.notices.push(Notice::Warning(format!(
                    "cannot take snapshots at calls of {name}, which allocates or frees: this kernel does not tell two probes there apart; use --backend=ptrace"
                )));
                continue;
            }
            tracing::info!("snapshots at calls of {} of {}", self.markers.name(marker.number), module.path.display());
            probes.push(probe);
        }
        if !probes.is_empty() {
            let file = self.open(module).map_err(|cause| self.cannot_attach(module, cause))?;
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            self.kernel.moved(module, &probes).map_err(|cause| self.cannot_attach(module, cause))?;
            self.kernel
                .attach(self.target, path.as_ref(), &probes)
                .map_err(|cause| self.cannot_attach(module, cause))?;
        }
        Ok(probes)
    }

    fn markers_of(&mut self, module: &Module) -> Vec<Marker> {
        let Some(image) = &module.image else { return Vec::new() };
        let debug_files = &mut self.debug_files;
        self.markers.of(image.bytes(), || debug_files(module).map(|image| image.shared()))
    }
}
