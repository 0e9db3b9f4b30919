//! Keeps the hooks in step with what is mapped: at attach, after exec, dlopen and dlclose.

use std::sync::Arc;

use memleax_platform::{Error, Pid, Stop, Tracer};

use super::breakpoints::Meaning;
use super::engine::Engine;
use super::isa::native;
use super::sites::SiteError;
use crate::allocator::{self, Class, Hook};
use crate::marker::Marker;
use crate::source::{HookedModule, Notice};
use crate::unwind::{Changes, Module, Role, state_changed_function};

/// A function that could not be hooked.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot hook {function} of {module} (address {address:#x}) in process {pid}: {cause}; if another debugger, tracer or \
     uprobe is at work on the process, end that first"
)]
pub struct HookError {
    function: &'static str,
    module: String,
    address: u64,
    pid: Pid,
    cause: SiteError,
}

impl<T: Tracer> Engine<T> {
    /// Looks at what is mapped now; hooks what is new, forgets what is gone. Failures become warnings.
    pub(super) fn refresh_images(&mut self, stop: &Stop) -> Result<(), Error> {
        for error in self.hook_images(stop)? {
            self.warn(error.to_string());
        }
        Ok(())
    }

    /// The same; returns the failures.
    pub(super) fn hook_images(&mut self, stop: &Stop) -> Result<Vec<HookError>, Error> {
        let changes = self.images.refresh(&mut self.tracer, stop)?;
        self.follow(stop, &changes)
    }

    /// Hooks what came and forgets what went.
    pub(super) fn follow(&mut self, stop: &Stop, changes: &Changes) -> Result<Vec<HookError>, Error> {
        if changes.added.is_empty() && changes.removed.is_empty() {
            return Ok(Vec::new());
        }
        self.callers.modules_changed();
        self.unobservable.clear();
        for module in &changes.removed {
            tracing::debug!("{} is gone from {:#x}", module.path.display(), module.range.start);
            self.unhook(stop, module)?;
        }
        let mut errors = Vec::new();
        for module in &changes.added {
            tracing::debug!("{} is mapped at {:#x}", module.path.display(), module.range.start);
            errors.extend(self.hook(stop, module)?);
        }
        Ok(errors)
    }

    fn hook(&mut self, stop: &Stop, module: &Arc<Module>) -> Result<Vec<HookError>, Error> {
        let mut errors = Vec::new();
        let mut functions = Vec::new();
        for Hook { function, address } in self.functions_of(module) {
            let address = module.run_time_address(address);
            let meaning = match function.class {
                Class::MEMORY => Meaning { function: Some(function), ..Meaning::default() },
                _ => Meaning { has_objects: true, ..Meaning::default() },
            };
            match self.set_breakpoint(stop, address, meaning) {
                Ok(()) => {
                    functions.push(function.name);
                    match function.class {
                        Class::MEMORY => self.hooked_functions += 1,
                        _ => self.object_functions.entry(address).or_default().push(function),
                    }
                }
                Err(SiteError::Platform(error @ Error::Gone(_))) => return Err(error),
                Err(cause) => errors.push(HookError {
                    function: function.name,
                    module: module.path.display().to_string(),
                    address,
                    pid: self.settings.pid,
                    cause,
                }),
            }
        }
        if !functions.is_empty() {
            // A glob names several.
            functions.dedup();
            let path = module.path.display().to_string();
            self.notices.push(Notice::Hooked(HookedModule { path, functions }));
        }
        self.set_markers(stop, module)?;
        if let Some(why) = &module.image_error {
            self.warn(format!("{why}; its symbols and unwind information may be missing"));
        }
        if module.role == Role::Interpreter {
            let told = match state_changed_function(module) {
                Some(address) => {
                    self.set_breakpoint(stop, address, Meaning { is_loader_state: true, ..Meaning::default() })
                }
                None => Err(SiteError::Unreadable),
            };
            match told {
                Ok(()) => {}
                Err(SiteError::Platform(error @ Error::Gone(_))) => return Err(error),
                Err(cause) => self.warn(format!(
                    "cannot observe {} ({cause}); allocators in libraries that are loaded from now on are missed",
                    module.path.display()
                )),
            }
        }
        Ok(errors)
    }

    /// Has the calls told of that the user asked for. What cannot be is warned of: the rest is of use without.
    fn set_markers(&mut self, stop: &Stop, module: &Module) -> Result<(), Error> {
        let Some(image) = &module.image else { return Ok(()) };
        let images = &mut self.images;
        let debug_file = || images.debug_file(module).map(|image| image.shared());
        for Marker { address, purpose } in self.settings.markers.of(image.bytes(), debug_file) {
            let meaning = Meaning { purpose, ..Meaning::default() };
            let task = self.settings.markers.describe(purpose);
            match self.set_breakpoint(stop, module.run_time_address(address), meaning) {
                Ok(()) => tracing::info!("going to {task} of {}", module.path.display()),
                Err(SiteError::Platform(error @ Error::Gone(_))) => return Err(error),
                Err(cause) => {
                    self.warn(format!("cannot {task} of {} (address {address:#x}): {cause}", module.path.display()))
                }
            }
        }
        Ok(())
    }

    fn functions_of(&mut self, module: &Module) -> Vec<Hook> {
        let Some(image) = &module.image else { return Vec::new() };
        // A stripped static program, whose symbols may be in its debug file.
        let debug_file = || match module.role {
            Role::Executable => self.images.debug_file(module).map(|image| image.shared()),
            _ => None,
        };
        let found = allocator::observed(&module.path, image.bytes(), debug_file, self.settings.mmap);
        if !found.indirect.is_empty() {
            self.warn(format!(
                "cannot observe {} of {}: which code they are is chosen at run time",
                found.indirect.join(", "),
                module.path.display()
            ));
        }
        let debug_file = || self.images.debug_file(module).map(|image| image.shared());
        found.and(self.settings.named.of(image.bytes(), debug_file))
    }

    /// Forgets the breakpoints of a module that is no longer what is mapped there.
    fn unhook(&mut self, stop: &Stop, module: &Module) -> Result<(), Error> {
        // The same file may be there still, perhaps known by another name, and another file may have the byte of a
        // breakpoint as its own.
        for address in self.breakpoints.within(&module.range) {
            if self.images.byte_in_file(address).is_some_and(|byte| byte != native::BREAKPOINT) {
                self.breakpoints.lift(&mut self.tracer, stop, address)?;
            }
        }
        self.breakpoints.forget(&module.range);
        self.object_functions.retain(|address, _| !module.range.contains(address));
        Ok(())
    }
}
