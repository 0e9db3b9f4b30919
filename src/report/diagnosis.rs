//! What the doctor found, as text.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use memleax_platform::Remark;

use crate::doctor::Diagnosis;

const HEADING: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Writes a diagnosis: a heading a section, a line a finding, and what may help below it.
///
/// # Errors
/// Those of `output`.
pub fn write_diagnosis(diagnosis: &Diagnosis, output: &mut dyn Write) -> io::Result<()> {
    for (heading, remarks) in &diagnosis.sections {
        writeln!(output, "{HEADING}{heading}{HEADING:#}")?;
        for remark in remarks {
            write_remark(remark, output)?;
        }
    }
    writeln!(output, "{HEADING}Conclusion{HEADING:#}")?;
    write_remark(&diagnosis.conclusion, output)
}

fn write_remark(remark: &Remark, output: &mut dyn Write) -> io::Result<()> {
    let (style, verdict) = if remark.fine { (GOOD, "ok") } else { (BAD, "no") };
    writeln!(output, "  {style}{verdict}{style:#}  {}", remark.text)?;
    match &remark.remedy {
        Some(remedy) => writeln!(output, "      {remedy}"),
        None => Ok(()),
    }
}
