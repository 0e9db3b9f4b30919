//! A call stack as lines of text.
//!
//! A frame has an address, a module, and a function with source file and line as far as they are known: the module is
//! followed by `+0x…`, the address in the module's file, where the function is not; it is `??` for code in no file.
//! Functions that the compiler inlined stand above the one they are in, with `[inlined]` for an address. Nothing is printed
//! beyond `main`; a stack that ends before says why in a last line that begins with `--`.

use std::io::{self, Write};

use super::style::{FAINT, FUNCTION, Printable};
use super::wording;
use crate::symbol::{Function, NamedFrame, NamedStack};

/// Writes a call stack, coloured, each line indented by four spaces.
///
/// # Errors
/// Those of `output`.
pub(super) fn write(stack: &NamedStack, output: &mut dyn Write) -> io::Result<()> {
    let mut reached_main = false;
    for frame in &stack.frames {
        if let Some(thread) = frame.thread() {
            writeln!(output, "    {}", Printable(thread))?;
            continue;
        }
        write_frame(frame, output)?;
        reached_main = frame.functions.last().is_some_and(|function| function.name == "main");
        if reached_main {
            break;
        }
    }
    if let Some(thread) = stack.frames.last().filter(|_| reached_main).and_then(|frame| frame.thread()) {
        writeln!(output, "    {}", Printable(thread))?;
    }
    if stack.by_frame_pointer {
        write_remark(wording::BY_FRAME_POINTER, output)?;
    }
    match wording::ending(stack.ending) {
        Some(why) if !reached_main => write_remark(why, output),
        _ => Ok(()),
    }
}

fn write_remark(text: &str, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "    {FAINT}-- backtrace {text}{FAINT:#}")
}

fn write_frame(frame: &NamedFrame, output: &mut dyn Write) -> io::Result<()> {
    let address = frame.address;
    let module = module_name(&frame.module);
    let Some((called, inlined)) = frame.functions.split_last() else {
        write!(output, "    {FAINT}0x{address:016x}{FAINT:#}  {}", Printable(module))?;
        return if frame.module.is_empty() { writeln!(output) } else { writeln!(output, "+0x{:x}", frame.offset) };
    };
    for function in inlined {
        // As wide as an address.
        write!(output, "    {FAINT}{:18}{FAINT:#}  {}", "[inlined]", Printable(module))?;
        write_function(function, output)?;
    }
    write!(output, "    {FAINT}0x{address:016x}{FAINT:#}  {}", Printable(module))?;
    write_function(called, output)
}

pub(super) fn write_function(function: &Function, output: &mut dyn Write) -> io::Result<()> {
    let name = if function.name.is_empty() { "?" } else { &function.name };
    let call = if has_parameters(name) { "" } else { "()" };
    write!(output, "  {FUNCTION}{}{call}{FUNCTION:#}", Printable(name))?;
    if let Some(offset) = function.offset {
        write!(output, "+{offset}")?;
    }
    if let Some(file) = &function.file {
        write!(output, "  {}", Printable(file))?;
        if let Some(line) = function.line {
            write!(output, ":{line}")?;
        }
    }
    writeln!(output)
}

/// The last part of a module's path.
fn module_name(path: &str) -> &str {
    match path.rsplit('/').next() {
        None | Some("") => "??",
        Some(name) => name,
    }
}

/// C++ names bring their parameters; `()` marks the others as functions.
fn has_parameters(name: &str) -> bool {
    let mut name = name.split(" [").next().unwrap_or(name);
    while let Some(shorter) =
        [" const", " volatile", " &", "&"].iter().find_map(|qualifier| name.strip_suffix(qualifier))
    {
        name = shorter;
    }
    name.ends_with(')') && !name.ends_with("operator()")
}
