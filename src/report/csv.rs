//! The course of a run as a table, a row a moment: for spreadsheets and plots (RFC 4180).

use std::io::Write;

use super::format::{Detail, WriteError};
use crate::event::Tally;
use crate::profile::{Profile, Site, View};
use crate::trend::Trends;

/// The course with as many call stacks as usual.
///
/// # Errors
/// If `output` fails.
pub(super) fn write(profile: &Profile, view: &View, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
    write_detail(profile, view, &Detail::default(), output)
}

/// Seconds; the calls of each reference until then; what all had live; then what each call stack had, those first that the trends have first.
///
/// # Errors
/// If `output` fails.
pub(super) fn write_detail(
    profile: &Profile,
    _: &View,
    detail: &Detail,
    output: &mut dyn Write,
) -> Result<Vec<String>, WriteError> {
    let trends = Trends::of(profile);
    let all = trends.sites.len();
    let sites: Vec<&Site> =
        trends.sites.iter().take(detail.top).filter_map(|trend| profile.sites.get(trend.site)).collect();
    let mut header = vec!["seconds".to_owned()];
    header.extend(profile.references.iter().map(|reference| format!("reference:{}", reference.name)));
    header.extend(["live bytes".to_owned(), "live blocks".to_owned()]);
    for (number, site) in (1..).zip(&sites) {
        let function = site.stack.calls().nth(1).or_else(|| site.stack.calls().next());
        let name = function.map(|call| call.name()).unwrap_or_default();
        header.extend(["bytes", "blocks"].map(|unit| format!("{number} {name} {unit}")));
    }
    write_row(&header, output)?;
    let mut live: Vec<(Tally, &[(usize, Tally)])> =
        sites.iter().map(|site| (Tally::default(), site.growth.as_slice())).collect();
    for (index, moment) in profile.timeline.iter().enumerate() {
        let nanoseconds = moment.at.0;
        let mut row = vec![format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)];
        let calls = profile.references.iter().map(|reference| reference.counts.get(index).copied().unwrap_or(0));
        row.extend(calls.map(|calls| calls.to_string()));
        row.extend([moment.live.bytes, moment.live.count].map(|number| number.to_string()));
        for (tally, growth) in &mut live {
            while let [(from, now), later @ ..] = growth
                && *from <= index
            {
                *tally = *now;
                *growth = later;
            }
            row.extend([tally.bytes, tally.count].map(|number| number.to_string()));
        }
        write_row(&row, output)?;
    }
    let left_out = all - sites.len();
    Ok(if left_out > 0 { vec![format!("{left_out} call stacks have no column in CSV (--top).")] } else { Vec::new() })
}

fn write_row(fields: &[String], output: &mut dyn Write) -> std::io::Result<()> {
    let quoted: Vec<String> = fields.iter().map(|field| quote(field)).collect();
    write!(output, "{}\r\n", quoted.join(","))
}

/// In quotes if it has to be; without line ends, which few readers take.
fn quote(field: &str) -> String {
    let field = field.replace(char::is_control, " ");
    if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sample;

    #[test]
    fn a_row_is_a_moment() {
        let mut output = Vec::new();
        let unsaid = write(&sample::profile(), &View::Leaks, &mut output).expect("a Vec takes everything");
        let text = String::from_utf8(output).expect("UTF-8");
        let rows: Vec<&str> = text.split_terminator("\r\n").collect();
        assert!(rows[0].starts_with("seconds,reference:handle_request,live bytes,live blocks,1 "), "{text}");
        // A function's name may have quotes and commas.
        assert!(rows[0].contains("\" evil;") || rows[0].contains("\"\"") && !rows[0].contains('\u{1b}'), "{text}");
        assert!(
            rows[1].starts_with("1.000000000,2,128,2,") && rows[3].starts_with("10.000000000,100,1024,9,"),
            "{text}"
        );
        assert_eq!((rows.len(), unsaid.len()), (4, 0));
    }

    #[test]
    fn call_stacks_without_room_are_said() {
        let (mut output, detail) = (Vec::new(), Detail { top: 1, ..Detail::default() });
        let unsaid =
            write_detail(&sample::profile(), &View::Leaks, &detail, &mut output).expect("a Vec takes everything");
        assert_eq!(unsaid, ["2 call stacks have no column in CSV (--top)."]);
        assert_eq!(
            output.split(|&byte| byte == b'\r').next().map(|row| row.split(|&byte| byte == b',').count()),
            Some(6)
        );
    }
}
