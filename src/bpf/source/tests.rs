//! Sources with sizes of their own, on real processes.

mod exactness;
mod marks;
mod objects;
mod references;
mod shortage;

use memleax_platform::NativeTracer;
use memleax_targets::{Process, unable};

use super::*;
use crate::config::{Backend, Color, Keep, Limits, LiveForm, Target};

/// As deep as the kernel walks, and the allocator's function.
const DEPTH: usize = super::super::layout::FRAMES + 1;

/// Nothing is counted here.
struct Nothing;

impl Sink for Nothing {
    fn event(&mut self, _: Timestamp, _: Event) {}
    fn counted(&mut self, _: Timestamp, _: StackId, _: &Totals) {}
}

/// What this kernel takes best, and what only old kernels have to make do with.
const BEST: &[Attachment] = &Attachment::BEST_FIRST;
const OLD: &[Attachment] = &[Attachment::Old];

/// Watches a process by one of `variants`. `None` if this machine does not let us.
fn attach(
    target: &Process,
    expire: Duration,
    variants: &[Attachment],
    sizes: Sizes,
) -> Option<BpfSource<NativeTracer>> {
    attach_as(&config(target, expire), variants, sizes)
}

fn config(target: &Process, expire: Duration) -> Config {
    let pid = Pid(target.pid().as_raw());
    Config {
        target: Target::Process(pid),
        limits: Limits::none(expire),
        debug_file: None,
        depth: DEPTH,
        backend: Backend::Bpf,
        duration: None,
        by_thread: false,
        mmap: false,
        live: LiveForm::Text,
        color: Color::Never,
        follow_forks: false,
        error_exit_code: None,
        keep: Keep::Nothing,
        interval: None,
        snapshot_at: Vec::new(),
        objects: crate::objects::Objects::default(),
        references: Vec::new(),
        control: false,
        quiet: true,
    }
}

fn attach_as(config: &Config, variants: &[Attachment], sizes: Sizes) -> Option<BpfSource<NativeTracer>> {
    let Target::Process(pid) = config.target else { unreachable!("a process is watched") };
    match BpfSource::attach_with(pid, config, NativeTracer::default(), Box::new(|_| None), variants, sizes) {
        Err(error @ AttachError::Load { .. }) => {
            unable(&error.to_string());
            None
        }
        source => Some(source.expect("probes in a program of our own")),
    }
}
