//! How the user names a function, and which symbols are meant.

use crate::symbol::demangle;
use crate::wildcard::Wildcard;

/// Identifiers shorter than this are part of too many names to say anything.
const SHORTEST: usize = 3;

/// A name: the linker's (`conn_new`), or the source's (`net::Pool::take`), which needs no parameter list (`net::Pool::take(int)`). With `*` (any
/// text) or `?` (any character) it is a glob for either.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pattern {
    text: String,
    glob: Option<Wildcard>,
    /// Identifiers in it: mangled names have them as they are.
    identifiers: Vec<String>,
    /// The one that names the function itself, if a mangled name must have it.
    own: Option<String>,
}

/// A symbol's names.
pub(super) struct Names<'a> {
    raw: &'a str,
    /// As the source has it; if it is mangled and was asked for.
    demangled: Option<String>,
}

impl<'a> Names<'a> {
    /// Of a symbol, as the table has it. `None` if it is no function of its own, but a part of one.
    pub(super) fn of(symbol: &'a str) -> Option<Names<'a>> {
        // Followed by a version.
        let name = symbol.split('@').next().unwrap_or(symbol);
        // Functions that were local to a file before link-time optimisation.
        let local = [".llvm.", ".lto_priv."].iter().find_map(|mark| name.find(mark));
        let raw = &name[..local.unwrap_or(name.len())];
        (!raw.contains(".cold")).then_some(Names { raw, demangled: None })
    }

    /// The linker's name.
    pub(super) fn raw(&self) -> &'a str {
        self.raw
    }

    /// The source's name, if the linker's is another.
    fn demangled(&mut self) -> &str {
        self.demangled.get_or_insert_with(|| demangle(self.raw))
    }
}

impl Pattern {
    pub(super) fn new(text: &str) -> Pattern {
        let is_glob = text.contains(['*', '?']);
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let path = without_parameters(text).split('<').next().unwrap_or(text);
        let identifiers = |of: &str| -> Vec<String> {
            let all = of.split(|c| !is_part(c)).filter(|name| name.len() >= SHORTEST && *name != "std");
            all.map(str::to_owned).collect()
        };
        // Of the standard library some names are abbreviated, and operators have codes.
        let is_literal = !text.starts_with("std::") && !text.contains("operator");
        let last = path.rsplit("::").next().unwrap_or(path).trim_start_matches('~');
        Pattern {
            text: text.to_owned(),
            glob: is_glob.then(|| Wildcard::whole(text)),
            identifiers: identifiers(path),
            own: identifiers(last).into_iter().max_by_key(String::len).filter(|_| is_literal),
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// True if it is like many names, or none.
    pub(super) fn is_glob(&self) -> bool {
        self.glob.is_some()
    }

    /// True if a symbol is meant. What the compiler has split off or specialised (`conn_free.isra.0`) is only meant by its full name: its arguments
    /// may be others.
    pub(super) fn matches(&self, names: &mut Names<'_>) -> bool {
        if names.raw.contains('.') && !self.text.contains('.') {
            return false;
        }
        self.is(names.raw)
            || is_mangled(names.raw)
                && self.own.as_ref().is_none_or(|own| names.raw.contains(own.as_str()))
                && (self.is(names.demangled()) || self.is(without_parameters(names.demangled())))
    }

    /// The name by which a symbol may be like this one, as this one is written.
    pub(super) fn comparable<'n>(&self, names: &'n mut Names<'_>) -> &'n str {
        let is_akin = || self.identifiers.iter().any(|identifier| names.raw.contains(identifier.as_str()));
        if is_mangled(names.raw) && is_akin() {
            let is_full = self.text.ends_with(')');
            let demangled = names.demangled();
            return if is_full { demangled } else { without_parameters(demangled) };
        }
        names.raw
    }

    fn is(&self, name: &str) -> bool {
        self.glob.as_ref().map_or(name == self.text, |glob| glob.matches(name))
    }
}

fn is_mangled(raw: &str) -> bool {
    raw.starts_with("_Z") || raw.starts_with("_R")
}

/// `ns::f` of `ns::f(int) const`.
fn without_parameters(name: &str) -> &str {
    let mut end = name.trim_end();
    while let Some(before) = ["const", "volatile", "&"].iter().find_map(|mark| end.strip_suffix(mark)) {
        end = before.trim_end();
    }
    if !end.ends_with(')') {
        return name;
    }
    let mut depth = 0;
    for (at, c) in end.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return if at == 0 || end[..at].ends_with("operator") { name } else { &end[..at] };
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, symbol: &str) -> bool {
        Names::of(symbol).is_some_and(|mut names| Pattern::new(pattern).matches(&mut names))
    }

    #[test]
    fn functions_are_named_by_linker_or_source() {
        for (pattern, symbol, expected) in [
            ("conn_new", "conn_new", true),
            ("conn_new", "conn_new@@LIB_1.2", true),
            ("conn_new", "conn_new2", false),
            ("conn_new", "_Z8conn_newi", true),
            ("conn_new(int)", "_Z8conn_newi", true),
            ("conn_new(long)", "_Z8conn_newi", false),
            ("net::Pool::take", "_ZN3net4Pool4takeEPKcm", true),
            ("net::Pool::take(char const*, unsigned long)", "_ZN3net4Pool4takeEPKcm", true),
            ("net::Pool::take", "_ZNK3net4Pool4takeEv", true),
            ("Pool::take", "_ZN3net4Pool4takeEv", false),
            ("*::Pool::take", "_ZN3net4Pool4takeEv", true),
            ("net::Pool::Pool", "_ZN3net4PoolC1Ev", true),
            ("net::Pool::~Pool", "_ZN3net4PoolD1Ev", true),
            ("net::Pool<int>::take", "_ZN3net4PoolIiE4takeEv", true),
            ("(anonymous namespace)::make", "_ZN12_GLOBAL__N_14makeEi", true),
            ("net::Pool::operator()", "_ZN3net4PoolclEi", true),
            ("net::pool::take", "_ZN3net4pool4take17h0123456789abcdefE", true),
            ("SSL_*new", "SSL_new", true),
            ("SSL_*new", "SSL_CTX_new", true),
            ("SSL_*new", "SSL_renewed", false),
        ] {
            assert_eq!(matches(pattern, symbol), expected, "{pattern} {symbol}");
        }
    }

    #[test]
    fn what_the_compiler_split_off_is_meant_by_its_full_name_only() {
        assert!(!matches("conn_*", "conn_free.isra.0"));
        assert!(matches("conn_free.isra.0", "conn_free.isra.0"));
        assert!(!matches("conn_*.*", "conn_new.cold"));
        assert!(matches("conn_new", "conn_new.llvm.1234"));
        assert!(matches("net::make", "_ZN3netL4makeEi.lto_priv.0"));
    }

    #[test]
    fn a_parameter_list_is_told_from_other_parentheses() {
        for (name, without) in [
            ("f(int)", "f"),
            ("f(void (*)(int)) const", "f"),
            ("(anonymous namespace)::f", "(anonymous namespace)::f"),
            ("a::operator()(int) const &", "a::operator()"),
            ("a::operator()", "a::operator()"),
            ("f", "f"),
        ] {
            assert_eq!(without_parameters(name), without);
        }
    }
}
