//! Reads memleax's report.

use std::collections::BTreeMap;
use std::fmt;

/// All that memleax printed.
pub(crate) struct Report {
    /// Every line of stdout.
    pub(crate) lines: Vec<String>,
    /// All of stderr.
    pub(crate) errors: String,
    /// The final statistics.
    pub(crate) statistics: Vec<CallStack>,
    /// Those of objects, by type.
    pub(crate) objects: BTreeMap<String, Vec<CallStack>>,
}

/// One call stack of the final statistics.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallStack {
    pub(crate) id: u64,
    pub(crate) may_leak: Count,
    pub(crate) expired: Count,
    pub(crate) free_expired: Count,
    pub(crate) alloc: Count,
    pub(crate) free: Count,
    pub(crate) frames: Vec<Frame>,
    /// What is said below the frames: why they end.
    pub(crate) remarks: Vec<String>,
}

/// Blocks and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Count {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

/// One frame as printed: `    0xADDRESS  MODULE  FUNC()+OFF  FILE:LINE`, or `    0xADDRESS  MODULE+0xOFFSET`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Frame {
    /// `None` for a function inlined into the next frame's.
    pub(crate) address: Option<u64>,
    /// The last part of its path.
    pub(crate) module: String,
    /// The address in the module's file, where there is no name.
    pub(crate) offset: Option<u64>,
    /// Without its offset, and without the `()` of a name that brings no parameters.
    pub(crate) function: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    /// The whole line.
    pub(crate) text: String,
}

/// What follows the type in the heading of objects' statistics.
const OBJECTS: &str = ": callstack statistics: (in ascending order)";

impl Report {
    /// Reads the lines of stdout.
    pub(crate) fn parse(lines: &[String], errors: String) -> Self {
        // By type; those of memory have none.
        let mut statistics: BTreeMap<String, Vec<CallStack>> = BTreeMap::new();
        let mut section = None;
        for line in lines {
            if let Some(heading) = line.strip_prefix("== ") {
                let of_type = heading.strip_prefix("Objects ").and_then(|rest| rest.strip_suffix(OBJECTS));
                let is_memory = heading.starts_with("Callstack statistics:");
                let name = of_type.map(str::to_owned).or(is_memory.then(String::new));
                section = name.map(|name| statistics.entry(name).or_default());
                continue;
            }
            let Some(section) = &mut section else { continue };
            if line.starts_with("CallStack[") {
                section.push(CallStack::parse(line));
            } else if let Some(stack) = section.last_mut().filter(|_| !line.is_empty()) {
                stack.take(line);
            }
        }
        let memory = statistics.remove("").unwrap_or_default();
        Report { lines: lines.to_vec(), errors, statistics: memory, objects: statistics }
    }

    /// True if a line of stdout contains `text`.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stdout:\n{}\nstderr:\n{}", self.lines.join("\n"), self.errors)
    }
}

impl CallStack {
    fn parse(line: &str) -> Self {
        let label = line.strip_prefix("CallStack[").and_then(|rest| Some(rest.split_once(']')?.0));
        let id = label.and_then(|label| label.rsplit(' ').next()?.parse().ok());
        let id = id.unwrap_or_else(|| panic!("no call stack number: {line:?}"));
        let mut stack = CallStack { id, ..CallStack::default() };
        stack.take_counts(line.split_once(": ").map_or("", |(_, counts)| counts));
        stack
    }

    fn take(&mut self, line: &str) {
        // What stands at the margin belongs to the report as a whole.
        let Some(line) = line.strip_prefix("    ") else { return };
        if line.starts_with("0x") || line.starts_with("[inlined]") {
            self.frames.push(Frame::parse(line));
        } else if line.starts_with("expired=") || line.starts_with("alloc=") {
            self.take_counts(line);
        } else if line.starts_with("-- ") {
            self.remarks.push(line.to_owned());
        }
    }

    /// `expired=3 (192 bytes), free_expired=0 (0 bytes)`; of objects without a size `expired=3, free_expired=0`.
    fn take_counts(&mut self, text: &str) {
        for part in text.split(", ") {
            let Some((name, rest)) = part.split_once('=') else { continue };
            let numbers = rest.split_once(" (").and_then(|(blocks, bytes)| {
                Some(Count { blocks: blocks.parse().ok()?, bytes: bytes.split(' ').next()?.parse().ok()? })
            });
            let of_objects = || Some(Count { blocks: rest.parse().ok()?, bytes: 0 });
            let count = numbers.or_else(of_objects).unwrap_or_else(|| panic!("no counts: {text:?}"));
            match name {
                "may-leak" => self.may_leak = count,
                "expired" => self.expired = count,
                "free_expired" => self.free_expired = count,
                "alloc" => self.alloc = count,
                "free" => self.free = count,
                _ => panic!("unknown count {name:?}: {text:?}"),
            }
        }
    }
}

impl Frame {
    fn parse(line: &str) -> Self {
        let hexadecimal = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let mut fields = line.split("  ").map(str::trim).filter(|field| !field.is_empty());
        let address = fields.next().and_then(hexadecimal);
        assert!(address.is_some() || line.starts_with("[inlined]"), "no address: {line:?}");
        let mut frame = Frame { address, text: line.to_owned(), ..Frame::default() };
        let module = fields.next().unwrap_or_default();
        frame.offset = module.rsplit_once('+').and_then(|(_, offset)| hexadecimal(offset));
        let end = frame.offset.and(module.rfind('+')).unwrap_or(module.len());
        module[..end].clone_into(&mut frame.module);
        if let Some(function) = fields.next() {
            let offset = function.rsplit_once('+').filter(|(_, offset)| offset.parse::<u64>().is_ok());
            let function = offset.map_or(function, |(function, _)| function);
            frame.function = Some(function.strip_suffix("()").unwrap_or(function).to_owned());
        }
        if let Some((file, line)) = fields.next().and_then(|place| place.rsplit_once(':')) {
            (frame.file, frame.line) = (Some(file.to_owned()), line.parse().ok());
        }
        frame
    }
}

#[test]
fn reads_frames() {
    let expect = |text: &str, address, module: &str, function: Option<&str>, line| {
        let frame = Frame::parse(text);
        assert_eq!((frame.address, &*frame.module, frame.function.as_deref()), (address, module, function), "{text}");
        assert_eq!(frame.line, line, "{text}");
    };
    expect(
        "0x000055d0c8a0184e  a.out  main()+14  leak sites.c:12",
        Some(0x55d0_c8a0_184e),
        "a.out",
        Some("main"),
        Some(12),
    );
    expect("[inlined]           a.out  f(int)  a.cc:3", None, "a.out", Some("f(int)"), Some(3));
    expect("0x0000000000400000  lib+c.so+0x1234", Some(0x40_0000), "lib+c.so", None, None);
    assert_eq!(Frame::parse("0x0000000000400000  lib+c.so+0x1234").offset, Some(0x1234));
}

#[test]
fn reads_counts() {
    let mut stack = CallStack::parse("CallStack[7]: may-leak=3 (192 bytes)");
    stack.take("    expired=4 (256 bytes), free_expired=1 (64 bytes)");
    let count = |blocks, bytes| Count { blocks, bytes };
    assert_eq!((stack.id, stack.may_leak, stack.expired), (7, count(3, 192), count(4, 256)));
    assert_eq!(stack.free_expired, count(1, 64));
}
