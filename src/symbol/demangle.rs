//! From the linker's names to those of the source.

use std::fmt::{self, Write};

use cpp_demangle::DemangleOptions;

use super::plt;

/// The longest name that is made: template arguments can repeat each other until memory is full.
const LONGEST: usize = 16 << 10;

/// The longest name of a constructor that is looked into: the cost grows with the square.
const LONGEST_CONSTRUCTOR: usize = 4 << 10;

/// The name as its language writes it; any other name as it is. Control characters are replaced, since the name comes
/// from the target and goes to a terminal.
#[must_use]
pub fn demangle(raw: &str) -> String {
    if let Some(called) = raw.strip_suffix(plt::SUFFIX) {
        return demangle(called) + plt::SUFFIX;
    }
    let name = rust(raw).or_else(|| cpp(raw)).unwrap_or_else(|| raw.to_owned());
    printable(name)
}

/// `text` without characters that a terminal could take for commands.
pub(super) fn printable(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, "\u{fffd}") } else { text }
}

/// Rust, v0 and legacy, without the hash.
fn rust(raw: &str) -> Option<String> {
    // A legacy name looks like a C++ one, but for its hash: the C++ demangler would take it, too.
    let name = rustc_demangle::try_demangle(raw).ok()?;
    let mut text = Bounded::default();
    write!(text, "{name:#}").ok()?;
    Some(text.0)
}

fn cpp(raw: &str) -> Option<String> {
    if !raw.starts_with("_Z") && !raw.starts_with("_GLOBAL__") {
        return None;
    }
    if let Some(name) =
        with_constructor_result(raw).and_then(|raw| cpp_text(&raw)).filter(|name| !name.contains("(void,"))
    {
        return Some(name);
    }
    cpp_text(raw)
}

fn cpp_text(raw: &str) -> Option<String> {
    let symbol = cpp_demangle::Symbol::new(raw).ok()?;
    let mut text = Bounded::default();
    // Template functions state their result, others do not: that is noise in a call stack, and gdb omits it, too.
    let options = DemangleOptions::new().no_return_type().hide_expression_literal_types();
    symbol.structured_demangle(&mut text, &options).ok()?;
    // cpp_demangle 0.5 writes a comma before an empty parameter pack.
    Some(text.0.replace(", >", ">").replace(", )", ")"))
}

/// cpp_demangle 0.5 takes the first parameter of a template constructor for its result, as other templates state theirs
/// (its issue 129): this puts one in. `None` for all other names.
fn with_constructor_result(raw: &str) -> Option<String> {
    let constructor = template_constructor(raw.as_bytes()).filter(|_| raw.len() < LONGEST_CONSTRUCTOR)?;
    // The constructor's name ends where what stands before is a whole name.
    let mut ends = raw.match_indices('E').map(|(at, _)| at + 1).filter(|&end| end > constructor && end < raw.len());
    let end = ends.find(|&end| cpp_demangle::Symbol::new(&raw[..end]).is_ok())?;
    Some(format!("{}v{}", &raw[..end], &raw[end..]))
}

/// Where a template constructor is named (`C1I`), outside of identifiers: Itanium C++ ABI, 5.1.
fn template_constructor(raw: &[u8]) -> Option<usize> {
    let (mut at, mut found) = (2, None);
    while at < raw.len() {
        let digits = raw[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_literal = at >= 2 && raw[at - 2] == b'L' && raw[at - 1].is_ascii_lowercase();
        at += match raw[at..] {
            [b'C', b'1'..=b'5', b'I', ..] => {
                found = Some(at);
                2
            }
            // Substitutions and template parameters: S_, S1A_, T0_.
            [b'S' | b'T', ..] => {
                let index =
                    raw[at + 1..].iter().take_while(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()).count();
                if raw.get(at + 1 + index) == Some(&b'_') { index + 2 } else { 1 }
            }
            [b'0'..=b'9', ..] if is_literal => digits,
            [b'0'..=b'9', ..] => {
                let length = std::str::from_utf8(&raw[at..at + digits]).ok()?.parse::<usize>().ok()?;
                digits + length.min(raw.len())
            }
            _ => 1,
        };
    }
    found
}

/// A text that refuses to grow beyond [`LONGEST`].
#[derive(Default)]
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.0.len() + part.len() > LONGEST {
            return Err(fmt::Error);
        }
        self.0.push_str(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_language_is_known_by_its_names() {
        for (raw, name) in [
            ("main", "main"),
            ("leak.constprop.0", "leak.constprop.0"),
            ("_Z4leakim", "leak(int, unsigned long)"),
            ("_Z4leakim@plt", "leak(int, unsigned long)@plt"),
            ("_ZN3one3two3funEv", "one::two::fun()"),
            (
                "_ZN4core3ptr42drop_in_place$LT$alloc..string..String$GT$17h0123456789abcdefE",
                "core::ptr::drop_in_place<alloc::string::String>",
            ),
            ("_RNvCsbmNqQUJIY6D_4core3fun", "core::fun"),
            ("_Z4makeIiJEEvT_DpT0_", "make<int>(int)"),
            ("_ZN4PoolIiEC4IcEEmRKT_", "Pool<int>::Pool<char>(unsigned long, char const&)"),
            ("_ZN4PoolC1IcJEEEmDpT0_", "Pool::Pool<char>(unsigned long)"),
            ("_ZN4PoolC1Ev", "Pool::Pool()"),
            ("_ZN9ABC2Image4loadEi", "ABC2Image::load(int)"),
            ("_ZN9ABC2Image4loadIcEEli", "ABC2Image::load<char>(int)"),
            ("_ZN5ArrayIiLm15EEC2IcEEmRKT_", "Array<int, 15>::Array<char>(unsigned long, char const&)"),
            (
                "_ZZN9__gnu_cxx6__stoaIddcJEEET0_PFT_PKT1_PPS3_DpT2_EPKcS5_PmS9_EN11_Save_errnoC1Ev",
                "__gnu_cxx::__stoa<double, double, char>(double (*)(char const*, char**), char const*, char const*, unsigned long*)::_Save_errno::_Save_errno()",
            ),
            ("_ZTooShort", "_ZTooShort"),
            ("_Z", "_Z"),
            ("", ""),
        ] {
            assert_eq!(demangle(raw), name);
        }
    }

    #[test]
    fn clones_keep_their_mark() {
        assert_eq!(demangle("_Z3foov.cold"), "foo() [clone .cold]");
    }

    #[test]
    fn a_name_that_explodes_stays_mangled() {
        // Each substitution doubles the one before.
        let mut raw = String::from("_Z1fSt4pairIiiE");
        for id in ["", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "A", "B", "C", "D", "E", "F", "G", "H"] {
            raw += &format!("St4pairIS{id}_S{id}_E");
        }
        assert!(demangle(&raw).len() <= LONGEST.max(raw.len()));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(demangle("evil\x1b[2J\n"), "evil\u{fffd}[2J\u{fffd}");
    }
}
