//! What this machine, and a process on it, offer to memleax. Only looks; nothing is attached to.

use std::sync::Arc;

use memleax_platform::{Host, MappedFile, Mapping, NativeTracer, Pid, Remark, RootDirectory, Tracer, native};

use crate::allocator::{self, FUNCTIONS};
use crate::symbol::{DebugFileFinder, SymbolOptions, Symbolizer};
use crate::unwind::{Module, ModuleMap};

const DEBUG_FILES: &str = "its frames have fewer names; a debug package of the distribution (-dbgsym, -debuginfo) or a debug file (-d) brings them";

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnosis {
    /// A heading, and what belongs to it.
    pub sections: Vec<(String, Vec<Remark>)>,
    /// What it comes to.
    pub conclusion: Remark,
}

/// Looks at this machine and, if one is given, at a process.
#[must_use]
pub fn examine(target: Option<Pid>) -> Diagnosis {
    let Host { system, rights, tracing, programs } = native::host();
    let bpf = examine_bpf(programs);
    let bpf_works = bpf.last().is_some_and(|last| last.fine);
    let ptrace_works = tracing.iter().all(|remark| remark.fine);
    let mut sections = vec![(system, rights), ("--backend ptrace".into(), tracing), ("--backend bpf".into(), bpf)];
    let mut conclusion = match (bpf_works, ptrace_works) {
        (true, _) => Remark::fine("--backend auto takes bpf"),
        (false, true) => Remark::fine("--backend auto takes ptrace"),
        (false, false) => Remark::bad("no backend works here, except perhaps on our own children", "see above"),
    };
    if let Some(target) = target {
        let (remarks, is_watchable) = examine_process(target, bpf_works);
        sections.push((format!("Process {target}"), remarks));
        if !is_watchable {
            conclusion = Remark::bad(format!("process {target} cannot be watched"), "see above");
        }
    }
    Diagnosis { sections, conclusion }
}

/// The last remark says whether it works.
#[cfg(bpf)]
fn examine_bpf(mut remarks: Vec<Remark>) -> Vec<Remark> {
    let variants = crate::bpf::examine();
    let best = variants.iter().find(|(_, result)| result.is_ok()).map(|&(name, _)| name);
    remarks.extend(variants.into_iter().map(|(name, result)| match result {
        Ok(()) => Remark::fine(format!("{name}: the kernel takes the programs")),
        Err(why) => Remark { fine: false, text: format!("{name}: {why}"), remedy: None },
    }));
    remarks.push(match best {
        Some(best) => Remark::fine(format!("works, by {best}")),
        None => Remark::bad("does not work", crate::bpf::remedy()),
    });
    remarks
}

/// This build has no uprobes.
#[cfg(not(bpf))]
fn examine_bpf(_: Vec<Remark>) -> Vec<Remark> {
    vec![Remark::bad("not built in", "build with the feature bpf")]
}

/// Also whether it can be watched.
fn examine_process(target: Pid, bpf_works: bool) -> (Vec<Remark>, bool) {
    let mut facts = NativeTracer::default();
    let mut remarks = Vec::new();
    let access = native::check_access(target);
    if let Err(why) = &access {
        remarks.push(Remark { fine: false, text: format!("by ptrace: {why}"), remedy: None });
    }
    let modules = match modules(&mut facts, target) {
        Ok(modules) => modules,
        Err(why) => {
            if access.is_ok() {
                remarks.push(Remark { fine: false, text: why.to_string(), remedy: None });
            }
            return (remarks, false);
        }
    };
    let finder = DebugFileFinder::new(None, RootDirectory::of(target).ok());
    let found: Vec<Remark> = modules.iter().filter_map(|module| allocator_of(module, &finder)).collect();
    let allocates = !found.is_empty();
    remarks.extend(found);
    if !allocates {
        remarks.push(Remark::bad("no allocator was found", "a stripped static program needs its debug file: see -d"));
    }
    let options = SymbolOptions { target_root: RootDirectory::of(target).ok(), ..SymbolOptions::default() };
    let mut symbolizer = Symbolizer::new(options);
    remarks.extend(modules.iter().filter(|module| module.file_id != (0, 0)).map(|module| {
        let path = module.path.display();
        match symbolizer.gap(module) {
            None => Remark::fine(format!("{path}: function names and source lines")),
            Some(missing) => Remark::bad(format!("{path}: {missing}"), DEBUG_FILES),
        }
    }));
    (remarks, allocates && (bpf_works || access.is_ok()))
}

fn modules(facts: &mut NativeTracer, target: Pid) -> Result<Vec<Arc<Module>>, memleax_platform::Error> {
    let mappings = facts.mappings(target)?;
    let auxiliary = facts.auxiliary_vector(target)?;
    let mut map = ModuleMap::default();
    let mut open = |mapping: &Mapping| MappedFile::new(&facts.open_mapping(target, mapping)?);
    // Only what is in files matters here, so that the process need not be stopped.
    map.refresh(&mappings, &auxiliary, &mut open, &mut |_, _| 0);
    Ok(map.live().to_vec())
}

fn allocator_of(module: &Module, finder: &DebugFileFinder) -> Option<Remark> {
    let image = module.image.as_ref()?;
    let debug_file = finder.find(module).ok().flatten();
    let more: Vec<&[u8]> = debug_file.iter().map(|image| image.bytes()).collect();
    let hooks = allocator::hooks(&module.path, image.bytes(), &more, FUNCTIONS).hooks;
    let names: Vec<&str> = hooks.iter().map(|hook| hook.function.name).collect();
    (!names.is_empty()).then(|| Remark::fine(format!("{} allocates: {}", module.path.display(), names.join(", "))))
}
