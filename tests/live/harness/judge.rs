//! Compares a report with the ground truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use memleax_targets::{Process, Program, Site, Step, Truth};
use object::{Object, ObjectSegment, ObjectSymbol};

use super::state::load_address;
use super::{CallStack, Frame, Report};

/// The function symbols of the watched program by run-time address: names the frames of a stripped one.
pub(crate) struct Symbols {
    /// The last part of the program's path.
    module: String,
    /// Run-time address of the file's address 0.
    bias: u64,
    /// Start to (end, name).
    functions: BTreeMap<u64, (u64, String)>,
    /// The program itself has symbols, so that memleax must name every frame in it.
    named: bool,
}

/// Reads the symbols of a program that is running.
pub(crate) fn program_symbols(program: &Program, target: &Process) -> Symbols {
    program_symbols_of(program, target.id())
}

/// The same by pid.
pub(crate) fn program_symbols_of(program: &Program, pid: u32) -> Symbols {
    let module = program.path.to_str().expect("test paths are UTF-8").to_owned();
    let bytes = fs::read(&program.unstripped).unwrap_or_else(|e| panic!("cannot read {module}: {e}"));
    let file = object::File::parse(&*bytes).unwrap_or_else(|e| panic!("{module}: {e}"));
    let first = file.segments().map(|segment| segment.address()).min().unwrap_or(0) & !0xfff;
    let load = load_address(pid, &module).unwrap_or_else(|| panic!("{module} is not mapped"));
    let bias = load.wrapping_sub(first);
    let functions = file
        .symbols()
        .filter(|symbol| symbol.kind() == object::SymbolKind::Text && symbol.size() > 0)
        .filter_map(|symbol| {
            let start = symbol.address().wrapping_add(bias);
            Some((start, (start + symbol.size(), demangled(symbol.name().ok()?))))
        })
        .collect();
    let module = module.rsplit('/').next().unwrap_or_default().to_owned();
    Symbols { module, bias, functions, named: program.path == program.unstripped }
}

fn demangled(name: &str) -> String {
    let symbol = cpp_demangle::Symbol::new(name).ok();
    symbol.and_then(|symbol| symbol.demangle().ok()).unwrap_or_else(|| name.to_owned())
}

/// Checks that the report shows exactly the leaks that the program says it planted: every call stack right to main, every
/// number exact, and nothing else.
pub(crate) fn assert_truth(report: &Report, truth: &Truth, symbols: &Symbols) {
    let own: BTreeSet<&str> = truth.functions().collect();
    let mut found: BTreeMap<&str, CallStack> = BTreeMap::new();
    let mut faults = Vec::new();
    for stack in report.statistics.iter().filter(|stack| stack.may_leak.blocks > 0) {
        let frames: Vec<Frame> =
            stack.frames.iter().enumerate().map(|(i, frame)| symbols.name(frame, i == 0)).collect();
        if truth.ignored.iter().any(|name| frames.iter().any(|frame| frame.is(name))) {
            continue;
        }
        let mut candidates = truth.sites.iter().filter(|site| matches(&site.chain, &frames, &own));
        match (candidates.next(), candidates.next()) {
            (Some(site), None) => found.entry(&site.name).or_default().add(stack),
            (Some(one), Some(other)) => panic!("the ground truth confuses {} and {}", one.name, other.name),
            (None, _) => faults.push(format!("a call stack that is no planted leak:\n{}", show(stack))),
        }
    }
    for site in &truth.sites {
        let stack = found.remove(&*site.name).unwrap_or_default();
        let reported = (stack.may_leak.blocks, stack.may_leak.bytes);
        // How often a library calls the allocator on the way, and from how many places, is its own affair.
        if reported != (site.blocks, site.bytes) {
            faults.push(format!("{}: {:?} planted, {reported:?} reported", site.name, (site.blocks, site.bytes)));
        } else if site.blocks > 0
            && !site.chain.contains(&Step::Library)
            && (stack.alloc.blocks, stack.free.blocks) != (site.allocations, site.frees)
        {
            let reported = (stack.alloc.blocks, stack.free.blocks);
            let planted = (site.allocations, site.frees);
            faults.push(format!("{}: {planted:?} allocated and freed, {reported:?} reported", site.name));
        }
    }
    assert!(faults.is_empty(), "{}\n\n{report:?}", faults.join("\n"));
}

impl CallStack {
    fn add(&mut self, other: &CallStack) {
        for (sum, count) in
            [(&mut self.may_leak, other.may_leak), (&mut self.alloc, other.alloc), (&mut self.free, other.free)]
        {
            sum.blocks += count.blocks;
            sum.bytes += count.bytes;
        }
    }
}

fn show(stack: &CallStack) -> String {
    let frames: Vec<&str> = stack.frames.iter().map(|frame| &*frame.text).collect();
    format!("{:?}\n{}\n{}", stack.may_leak, frames.join("\n"), stack.remarks.join("\n"))
}

impl Symbols {
    /// Names a frame in the program if memleax could not, because the program is stripped.
    fn name(&self, frame: &Frame, exact: bool) -> Frame {
        let mut frame = frame.clone();
        if let (None, Some(address)) = (&frame.function, frame.address)
            && frame.module == self.module
            && !self.named
        {
            assert_eq!(frame.offset, Some(address.wrapping_sub(self.bias)), "the address in the file: {}", frame.text);
            let address = address - u64::from(!exact);
            let symbol = self.functions.range(..=address).next_back().filter(|(_, (end, _))| address < *end);
            frame.function = symbol.map(|(_, (_, name))| name.clone());
        }
        frame
    }
}

impl Frame {
    /// True if the frame is one of the function `name`, given without parameters, return type and scope.
    pub(crate) fn is(&self, name: &str) -> bool {
        let Some(function) = &self.function else { return false };
        let function = bare(function);
        function == name
            || [" ", "::"].iter().any(|before| function.strip_suffix(name).is_some_and(|rest| rest.ends_with(before)))
    }
}

/// A demangled name without its parameters, and without what compilers append to copies.
fn bare(function: &str) -> &str {
    let function = function.split(" [clone").next().unwrap_or(function);
    let suffix = [".constprop", ".isra", ".part", ".cold", ".llvm"].iter().filter_map(|end| function.find(end)).min();
    let function = &function[..suffix.unwrap_or(function.len())];
    let function = function.strip_suffix(" const").unwrap_or(function);
    let function = without_last_brackets(function, b'(', b')');
    // Rust's generic arguments are part of the name only in its newer mangling.
    let generic = without_last_brackets(function, b'<', b'>');
    generic.strip_suffix("::").unwrap_or(function)
}

/// The text without a bracketed part that it ends with.
fn without_last_brackets(text: &str, open: u8, close: u8) -> &str {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate().rev() {
        depth += i32::from(byte == close) - i32::from(byte == open);
        if depth == 0 {
            // At the very end: there are no brackets.
            return if at + 1 == text.len() { text } else { &text[..at] };
        }
    }
    text
}

/// True if the frames are those of the chain. Frames beyond its end (what called main) do not matter.
fn matches(chain: &[Step], frames: &[Frame], own: &BTreeSet<&str>) -> bool {
    let Some((step, later)) = chain.split_first() else { return true };
    match step {
        Step::Library => {
            matches(later, frames, own)
                || frames
                    .split_first()
                    .is_some_and(|(frame, rest)| !own.iter().any(|name| frame.is(name)) && matches(chain, rest, own))
        }
        Step::Function { names, line, frames: count, inlined } => {
            let right = |(i, frame): (usize, &Frame)| {
                names.iter().any(|name| frame.is(name))
                    && (i > 0 || frame.line.is_none_or(|found| line.is_none_or(|line| line == found)))
            };
            (frames.len() >= *count
                && frames[..*count].iter().enumerate().all(right)
                && matches(later, &frames[*count..], own))
                || (*inlined && frames.first().is_some_and(|frame| frame.line.is_none()) && matches(later, frames, own))
        }
    }
}

/// The line of the call of each site, as far as there is debug information: how many frames were checked that way.
pub(crate) fn lines_checked(report: &Report, truth: &Truth) -> usize {
    let lines = |site: &Site| {
        site.chain.iter().any(|step| match step {
            Step::Function { names, line: Some(line), .. } => report.statistics.iter().any(|stack| {
                stack.frames.iter().any(|frame| frame.line == Some(*line) && names.iter().any(|name| frame.is(name)))
            }),
            _ => false,
        })
    };
    truth.sites.iter().filter(|site| lines(site)).count()
}

#[test]
fn bares_names() {
    assert_eq!(
        bare("site_lambda(unsigned int)::{lambda()#1}::operator()() const"),
        "site_lambda(unsigned int)::{lambda()#1}::operator()"
    );
    assert_eq!(bare("Deep<0>::leak(unsigned int)"), "Deep<0>::leak");
    assert_eq!(bare("churn.constprop.0"), "churn");
    assert_eq!(bare("operator new(unsigned long)"), "operator new");
    assert_eq!(bare("rust_sites::generic::<core::option::Option<u32>>"), "rust_sites::generic");
}
