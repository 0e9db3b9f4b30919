//! Probes at functions that the user has named.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use memleax_platform::Tracer;

use super::{AttachError, BpfSource};
use crate::bpf::hooks;
use crate::bpf::kernel::Probe;
use crate::bpf::layout::{Control, REFERENCES};
use crate::event::{Event, Loss, Sink, Timestamp};
use crate::marker::{Marker, References};
use crate::source::Notice;
use crate::unwind::Module;

impl<T: Tracer> BpfSource<T> {
    /// Sets them in a module that has the probes `present`, and takes note of all. What cannot be is warned of: the rest is of use without.
    pub(super) fn set_markers(&mut self, module: &Arc<Module>, mut present: Vec<Probe>) {
        match self.attach_markers(module, &present) {
            Ok(probes) => present.extend(probes),
            Err(why) => {
                self.notices
                    .push(Notice::Warning(format!("calls of functions that you have named are not seen there: {why}")));
            }
        }
        if !present.is_empty() {
            self.hooked.insert(module.file_id, present);
        }
    }

    fn attach_markers(&mut self, module: &Arc<Module>, present: &[Probe]) -> Result<Vec<Probe>, AttachError> {
        let mut probes = Vec::new();
        for marker in self.markers_of(module) {
            let place = self.place_of(marker.purpose.references);
            let Some(probe) = hooks::marker(module, &marker, place) else { continue };
            let task = self.markers.describe(marker.purpose);
            let is_taken = present.iter().any(|other| other.address == probe.address);
            if is_taken && self.kernel.has_one_probe_an_address() {
                self.notices.push(Notice::Warning(format!(
                    "cannot {task}, which allocates or frees: this kernel does not tell two probes there apart; use --backend=ptrace"
                )));
                continue;
            }
            tracing::info!("going to {task} of {}", module.path.display());
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

    /// A place where the kernel counts the calls of a function, for these references.
    fn place_of(&mut self, references: References) -> Option<u32> {
        if references.is_empty() {
            return None;
        }
        if self.places.len() == REFERENCES {
            let message = format!(
                "calls of functions of --reference in more than {REFERENCES} places: the others are not counted"
            );
            self.notices.push(Notice::Warning(message));
            return None;
        }
        self.places.push(references);
        u32::try_from(self.places.len() - 1).ok()
    }

    /// Tells of the calls that were counted since the last time.
    pub(super) fn tell_calls(&mut self, at: Timestamp, sink: &mut dyn Sink) {
        let mut calls = vec![0; self.markers.count_references()];
        for (references, counted) in self.places.iter().zip(self.kernel.references()) {
            let counted = counted.load(Relaxed);
            references.iter().for_each(|number| calls[number as usize] += counted);
        }
        for ((reference, &now), seen) in (0..).zip(&calls).zip(&self.calls) {
            if now > *seen {
                sink.event(at, Event::Called { reference, count: now - seen });
            }
        }
        self.calls = calls;
        let lost = self.kernel.counter(Control::LostNamed);
        let new = lost - std::mem::replace(&mut self.lost_named, lost);
        let kinds =
            [(self.markers.take_snapshots(), Loss::SnapshotNotTaken), (!self.calls.is_empty(), Loss::CallNotCounted)];
        for (_, loss) in kinds.into_iter().filter(|(is_meant, _)| *is_meant && new > 0) {
            sink.event(at, Event::Lost(loss, new));
        }
    }
}
