//! Patterns with wildcards, as suppression files and shells have them.

/// A pattern: literal text, `*` for any text, `?` for any character where the syntax has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wildcard {
    text: Vec<char>,
    /// `?` stands for any one character.
    question_marks: bool,
    /// May begin, and end, anywhere in what is matched.
    open: (bool, bool),
}

impl Wildcard {
    /// Valgrind's, and a shell's for names: the whole name must match; `*` and `?` are wild.
    #[must_use]
    pub fn whole(pattern: &str) -> Wildcard {
        Wildcard { text: pattern.chars().collect(), question_marks: true, open: (false, false) }
    }

    /// The sanitizers': a part of the name must match, unless `^` and `$` tie the pattern to its ends; `*` is wild.
    #[must_use]
    pub fn part(pattern: &str) -> Wildcard {
        let after = pattern.strip_prefix('^');
        let pattern = after.unwrap_or(pattern);
        let before = pattern.strip_suffix('$');
        let text = before.unwrap_or(pattern).chars().collect();
        Wildcard { text, question_marks: false, open: (after.is_none(), before.is_none()) }
    }

    /// True if it matches, in time proportional to the product of both lengths at worst.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let stars = |open: bool| if open { &['*'][..] } else { &[] };
        let pattern: Vec<char> = [stars(self.open.0), &self.text, stars(self.open.1)].concat();
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut place) = (0, 0);
        // Where to go on when the last star takes one character more.
        let mut retry: Option<(usize, usize)> = None;
        while at < name.len() {
            match pattern.get(place) {
                Some('*') => {
                    retry = Some((place + 1, at));
                    place += 1;
                }
                Some(&c) if c == name[at] || c == '?' && self.question_marks => {
                    place += 1;
                    at += 1;
                }
                _ => {
                    let Some((after_star, taken)) = retry else { return false };
                    retry = Some((after_star, taken + 1));
                    (place, at) = (after_star, taken + 1);
                }
            }
        }
        pattern[place..].iter().all(|&c| c == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valgrind_matches_whole_names() {
        for (pattern, name, matches) in [
            ("malloc", "malloc", true),
            ("malloc", "xmalloc", false),
            ("*alloc", "xmalloc", true),
            ("?alloc", "calloc", true),
            ("?alloc", "alloc", false),
            ("g_*_new*x", "g_type_new_x_0x", true),
            ("*", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Wildcard::whole(pattern).matches(name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn sanitizers_match_parts_of_names() {
        for (pattern, name, matches) in [
            ("alloc", "xmalloc_or_die", true),
            ("^alloc", "malloc", false),
            ("^m*c$", "malloc", true),
            ("alloc$", "mallocs", false),
            ("a?c", "abc", false),
            ("libfoo*bar", "/usr/lib/libfoo.so/bar/x", true),
            ("$", "anything", true),
            ("^$", "x", false),
        ] {
            assert_eq!(Wildcard::part(pattern).matches(name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_do_not_take_forever() {
        assert!(!Wildcard::part(&"a*".repeat(200)).matches(&"a".repeat(150)));
        assert!(!Wildcard::whole(&format!("{}b", "*a".repeat(1_000))).matches(&"a".repeat(2_000)));
    }
}
