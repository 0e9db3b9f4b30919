//! A target's names in SVG and HTML, where they must not become markup.

use std::fmt::{self, Display, Write as _};

/// Text as content of an element or as a quoted attribute's value, in XML and HTML. What no such document may hold (control characters) and what would
/// turn the text around it (Unicode's bidirectional controls) is replaced.
pub(super) struct Escaped<T>(pub(super) T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_char(c))
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        match c {
            '&' => self.0.write_str("&amp;"),
            '<' => self.0.write_str("&lt;"),
            '>' => self.0.write_str("&gt;"),
            '"' => self.0.write_str("&quot;"),
            '\'' => self.0.write_str("&#39;"),
            c => self.0.write_char(printable(c)),
        }
    }
}

/// `c`, or the replacement character for what must not be shown; a line break stays.
pub(super) fn printable(c: char) -> char {
    match c {
        '\n' => c,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' => {
            char::REPLACEMENT_CHARACTER
        }
        // XML forbids these two.
        '\u{fffe}' | '\u{ffff}' => char::REPLACEMENT_CHARACTER,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// Name without what [`printable`] replaces, line breaks included.
pub(super) fn in_one_line(name: &str) -> String {
    name.chars().map(|c| if c == '\n' { char::REPLACEMENT_CHARACTER } else { printable(c) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_become_markup() {
        let name = "<script>alert('1')</script>&amp; \"q\"\u{1b}[31m\u{202e}\u{85}\u{ffff}\nλ";
        assert_eq!(
            Escaped(name).to_string(),
            "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;amp; &quot;q&quot;\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}\nλ"
        );
        assert_eq!(in_one_line("a\nb\t"), "a\u{fffd}b\u{fffd}");
    }
}
