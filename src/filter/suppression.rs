//! Known leaks, as the files of other tools name them: LeakSanitizer's and valgrind's.
//!
//! LeakSanitizer's, a line a suppression (<https://clang.llvm.org/docs/AddressSanitizer.html#suppressing-memory-leaks>):
//!
//! ```text
//! # comment
//! leak:part of a function's, source file's or module's name, with * wild, ^ and $ at its ends
//! ```
//!
//! Valgrind's (its manual, 2.5), a block a suppression. Frames are matched from the allocator on; those beyond the last pattern may be
//! any. Symbols are matched as the linker writes them or as their language does. Blocks for other errors than leaks are skipped.
//!
//! ```text
//! {
//!    a name
//!    Memcheck:Leak
//!    match-leak-kinds: definite
//!    fun:malloc
//!    ...
//!    obj:*/libfoo.so*
//!    src:bar.c:12
//! }
//! ```

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::profile::Call;
use crate::symbol::NamedStack;
use crate::wildcard::Wildcard;

/// Why a suppression file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SuppressionError {
    /// It cannot be read.
    #[error("cannot read the suppression file {}: {cause}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It is not written as it should be.
    #[error("cannot use the suppression file {}, line {line}: {what}", path.display())]
    Syntax {
        /// Its path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        what: String,
    },
}

/// One known leak.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Suppression {
    /// `leak:foo`, or a valgrind suppression's name.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) line: usize,
    rule: Rule,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Rule {
    /// LeakSanitizer's: any function, file or module.
    Any(Wildcard),
    /// Valgrind's: calls from the innermost on.
    Calls(Vec<Pattern>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Pattern {
    Function(Wildcard),
    Object(Wildcard),
    /// A file, and the line if one is given.
    Source(Wildcard, Option<u32>),
    /// `...`: any number of calls.
    Any,
}

/// Reads a file of either syntax.
///
/// # Errors
/// If it cannot be read, or is neither.
pub(super) fn read(path: &Path) -> Result<Vec<Suppression>, SuppressionError> {
    let bytes = fs::read(path).map_err(|cause| SuppressionError::Read { path: path.to_owned(), cause })?;
    parse(&String::from_utf8_lossy(&bytes), path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Suppression>, SuppressionError> {
    let is_valgrind = content(text).next().is_some_and(|(_, line)| line == "{");
    let parsed = if is_valgrind { valgrind(text, path) } else { sanitizer(text, path) };
    parsed.map_err(|(line, what)| SuppressionError::Syntax { path: path.to_owned(), line, what })
}

/// The lines that are neither empty nor comments, trimmed, with their numbers.
fn content(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

type Problem = (usize, String);

fn sanitizer(text: &str, path: &Path) -> Result<Vec<Suppression>, Problem> {
    content(text)
        .map(|(line, content)| match content.strip_prefix("leak:") {
            Some("") => Err((line, "there is nothing after leak:".into())),
            Some(pattern) => Ok(Suppression {
                name: content.into(),
                path: path.to_owned(),
                line,
                rule: Rule::Any(Wildcard::part(pattern)),
            }),
            None => Err((line, format!("expected leak:PATTERN (LeakSanitizer) or {{ (valgrind), not {content:?}"))),
        })
        .collect()
}

fn valgrind(text: &str, path: &Path) -> Result<Vec<Suppression>, Problem> {
    let mut suppressions = Vec::new();
    let mut lines = content(text);
    while let Some((start, brace)) = lines.next() {
        if brace != "{" {
            return Err((start, format!("expected {{, which begins a suppression, not {brace:?}")));
        }
        let mut block = Vec::new();
        loop {
            match lines.next() {
                Some((_, "}")) => break,
                Some((line, "{")) => return Err((line, format!("the suppression of line {start} has no end yet: }}"))),
                Some(content) => block.push(content),
                None => return Err((start, "this suppression has no end: }".into())),
            }
        }
        if let Some(rule) = valgrind_rule(&block, start)? {
            let name = block.first().map(|&(_, name)| name.to_owned()).unwrap_or_default();
            suppressions.push(Suppression { name, path: path.to_owned(), line: start, rule: Rule::Calls(rule) });
        }
    }
    Ok(suppressions)
}

/// The patterns of a block; `None` if it is not about leaks.
fn valgrind_rule(block: &[(usize, &str)], start: usize) -> Result<Option<Vec<Pattern>>, Problem> {
    let (Some(_name), Some(&(line, kind))) = (block.first(), block.get(1)) else {
        return Err((start, "a suppression has a name, a kind (Memcheck:Leak) and frames".into()));
    };
    let Some((tools, kind)) = kind.split_once(':') else {
        return Err((line, format!("expected a kind as Memcheck:Leak, not {kind:?}")));
    };
    if kind != "Leak" || !tools.split(',').any(|tool| tool.trim() == "Memcheck") {
        return Ok(None);
    }
    let mut frames = &block[2..];
    let mut matches_leaks = true;
    if let Some((&(line, first), rest)) = frames.split_first()
        && let Some(kinds) = first.strip_prefix("match-leak-kinds:")
    {
        matches_leaks = leak_kinds(kinds).map_err(|what| (line, what))?;
        frames = rest;
    }
    if frames.is_empty() {
        return Err((start, "a suppression has at least one frame (fun:, obj:, src: or ...)".into()));
    }
    let patterns = frames.iter().map(|&(line, frame)| {
        valgrind_frame(frame)
            .ok_or_else(|| (line, format!("expected fun:NAME, obj:FILE, src:FILE[:LINE] or ..., not {frame:?}")))
    });
    let patterns: Vec<Pattern> = patterns.collect::<Result<_, _>>()?;
    Ok(matches_leaks.then_some(patterns))
}

fn valgrind_frame(frame: &str) -> Option<Pattern> {
    if frame == "..." {
        return Some(Pattern::Any);
    }
    let (kind, pattern) = frame.split_once(':')?;
    match kind {
        "fun" => Some(Pattern::Function(Wildcard::whole(pattern))),
        "obj" => Some(Pattern::Object(Wildcard::whole(pattern))),
        "src" => Some(match pattern.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse().ok()?))) {
            Some((file, line)) => Pattern::Source(Wildcard::whole(file), Some(line)),
            None => Pattern::Source(Wildcard::whole(pattern), None),
        }),
        _ => None,
    }
}

/// False if the list is empty of kinds. memleax does not look for pointers to blocks, so it cannot tell the kinds apart.
fn leak_kinds(kinds: &str) -> Result<bool, String> {
    let mut any = false;
    for kind in kinds.split(',').map(str::trim) {
        match kind {
            "definite" | "indirect" | "possible" | "reachable" | "all" => any = true,
            "none" => {}
            _ => {
                let known = "definite, indirect, possible, reachable, all and none";
                return Err(format!("the kinds of leaks are {known}; {kind:?} is not one"));
            }
        }
    }
    Ok(any)
}

impl Suppression {
    /// True if this call stack's leaks are known.
    pub(super) fn matches(&self, stack: &NamedStack) -> bool {
        match &self.rule {
            Rule::Any(pattern) => {
                let calls: Vec<Call<'_>> = stack.calls().collect();
                let callers = &calls[allocators(&calls)..];
                let has_function =
                    |call: &Call<'_>| call.function.is_some_and(|function| pattern.matches(&function.name));
                // Where the allocators lie says nothing of the leak: else a library that has `operator new` would be in all of C++.
                let is_there = |call: &Call<'_>| {
                    [call.file(), Some(&*call.frame.module)].into_iter().flatten().any(|text| pattern.matches(text))
                };
                calls.iter().any(has_function) || callers.iter().any(is_there)
            }
            Rule::Calls(patterns) => {
                let calls: Vec<Call<'_>> = stack.calls().collect();
                // Valgrind puts its own operators in place of the program's, so no malloc is called by them.
                let outermost = allocators(&calls).saturating_sub(1);
                begins_with(&calls, patterns) || begins_with(&calls[outermost..], patterns)
            }
        }
    }
}

/// How many of the innermost calls are allocators': the function that was observed, and the operators that called it.
fn allocators(calls: &[Call<'_>]) -> usize {
    let is_operator = |call: &&Call<'_>| {
        call.function.is_some_and(|function| function.raw.starts_with("_Znw") || function.raw.starts_with("_Zna"))
    };
    calls.len().min(1) + calls.iter().skip(1).take_while(is_operator).count()
}

/// Where it stands.
impl fmt::Display for Suppression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.name, self.path.display(), self.line)
    }
}

/// True if the innermost calls match all the patterns, in time proportional to the product of both lengths at worst.
fn begins_with(calls: &[Call<'_>], patterns: &[Pattern]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(pattern) = patterns.get(place) {
        if matches!(pattern, Pattern::Any) {
            place += 1;
            retry = Some((place, at));
        } else if calls.get(at).is_some_and(|call| pattern.matches(call)) {
            place += 1;
            at += 1;
        } else {
            let Some((after_any, taken)) = retry.filter(|&(_, taken)| taken < calls.len()) else { return false };
            retry = Some((after_any, taken + 1));
            (place, at) = (after_any, taken + 1);
        }
    }
    true
}

impl Pattern {
    fn matches(&self, call: &Call<'_>) -> bool {
        match self {
            Pattern::Function(name) => {
                call.function.is_some_and(|function| name.matches(&function.raw) || name.matches(&function.name))
            }
            Pattern::Object(path) => path.matches(&call.frame.module),
            Pattern::Source(file, line) => {
                // Valgrind knows a file's name; memleax its path, too.
                let path = call.file().unwrap_or_default();
                let name = path.rsplit('/').next().unwrap_or_default();
                let is_file = !path.is_empty() && (file.matches(path) || file.matches(name));
                is_file && line.is_none_or(|line| call.line() == Some(line))
            }
            Pattern::Any => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::profile::sample;
    use crate::symbol::{Function, NamedFrame};

    fn parsed(text: &str) -> Result<Vec<Suppression>, String> {
        parse(text, Path::new("known.supp")).map_err(|error| error.to_string())
    }

    /// Which of the sample's sites the only suppression of `text` matches.
    fn matched(text: &str) -> Vec<usize> {
        let suppressions = parsed(text).expect("the syntax is right");
        assert_eq!(suppressions.len(), 1);
        let sites = sample::profile().sites;
        (0..sites.len()).filter(|&site| suppressions[0].matches(&sites[site].stack)).collect()
    }

    #[test]
    fn leak_sanitizers_patterns_match_functions_files_and_modules() {
        for (pattern, sites) in [
            ("Pool::take", &[0][..]),
            ("^serve(", &[0]),
            ("^ain", &[]),
            ("main$", &[0, 1]),
            ("plug in.so", &[1]),
            ("server.c*p", &[0, 1]),
            ("libc.so", &[]),
            ("malloc", &[0, 1, 2]),
            ("nothing", &[]),
        ] {
            assert_eq!(matched(&format!("# known\n\nleak:{pattern}\n")), sites, "{pattern}");
        }
    }

    #[test]
    fn valgrinds_patterns_match_from_the_allocator_on() {
        for (frames, sites) in [
            ("fun:malloc", &[0, 1, 2][..]),
            ("fun:_ZN4Pool4takeEi", &[]),
            ("fun:malloc\nfun:_ZN4Pool4takeEi\nfun:serve*", &[0]),
            ("fun:malloc\nfun:Pool::take(int)", &[0]),
            ("...\nfun:main", &[0, 1]),
            ("fun:?alloc\n...\nobj:*/plug in.so\nfun:main", &[1]),
            ("...\nobj:*/plug in.so\n...\nfun:malloc", &[]),
            ("...\nsrc:server.cpp:44", &[0]),
            ("...\nsrc:/src/*.cpp", &[0, 1]),
            ("...", &[0, 1, 2]),
            ("obj:*\nobj:*\nobj:*\nobj:*\nobj:*", &[]),
        ] {
            let text = format!("{{\n  a name\n  Memcheck:Leak\n  match-leak-kinds: definite,possible\n{frames}\n}}\n");
            assert_eq!(matched(&text), sites, "{frames}");
        }
    }

    #[test]
    fn an_operator_between_malloc_and_the_program_is_an_allocator() {
        let mut stack = sample::profile().sites.remove(0).stack;
        let function = Function {
            name: "operator new(unsigned long)".into(),
            raw: "_Znwm".into(),
            offset: Some(30),
            file: None,
            line: None,
            inlined: false,
        };
        let module = "/usr/lib/libstdc++.so.6".into();
        let operator = NamedFrame { address: 1, module, offset: 1, functions: vec![function] };
        stack.frames.insert(1, Arc::new(operator));
        let matches = |text: &str| parsed(text).expect("right")[0].matches(&stack);
        assert!(!matches("leak:libstdc++"));
        assert!(matches("leak:operator new"));
        for frames in
            ["fun:_Znwm\nfun:_ZN4Pool*", "fun:malloc\nfun:_Znwm\nfun:_ZN4Pool*", "...\nobj:*libstdc++*\nfun:_ZN4Pool*"]
        {
            assert!(matches(&format!("{{\nn\nMemcheck:Leak\n{frames}\n}}\n")), "{frames}");
        }
        assert!(!matches("{\nn\nMemcheck:Leak\nfun:_ZN4Pool*\n}\n"));
    }

    #[test]
    fn blocks_about_other_errors_and_other_tools_are_skipped() {
        let text = "{\ncond\nMemcheck:Cond\nfun:f\n}\n{\nrace\nHelgrind:Race\nfun:f\n}\n{\nnone\nMemcheck:Leak\n\
                    match-leak-kinds: none\nfun:f\n}\n{\nboth\nAddrcheck,Memcheck:Leak\nfun:f\n}\n";
        let names: Vec<String> = parsed(text).expect("right").into_iter().map(|found| found.to_string()).collect();
        assert_eq!(names, ["both (known.supp:17)"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        for (text, message) in [
            ("leak:a\nrace:b\n", "line 2: expected leak:PATTERN (LeakSanitizer) or { (valgrind), not \"race:b\""),
            ("leak:\n", "line 1: there is nothing after leak:"),
            ("{\nname\nMemcheck:Leak\nfun:a\n", "line 1: this suppression has no end: }"),
            ("{\nname\nMemcheck:Leak\nfun:a\n{\n", "line 5: the suppression of line 1 has no end yet: }"),
            ("{\nname\n}\n", "line 1: a suppression has a name, a kind (Memcheck:Leak) and frames"),
            ("{\nname\nLeak\n}\n", "line 3: expected a kind as Memcheck:Leak, not \"Leak\""),
            ("{\nname\nMemcheck:Leak\n}\n", "line 1: a suppression has at least one frame (fun:, obj:, src: or ...)"),
            (
                "{\nname\nMemcheck:Leak\nfn:a\n}\n",
                "line 4: expected fun:NAME, obj:FILE, src:FILE[:LINE] or ..., not \"fn:a\"",
            ),
            (
                "{\nname\nMemcheck:Leak\nmatch-leak-kinds: some\nfun:a\n}\n",
                "line 4: the kinds of leaks are definite, indirect, possible, reachable, all and none; \"some\" is not one",
            ),
            (
                "{\nn\nMemcheck:Leak\nfun:a\n}\nleak:x\n",
                "line 6: expected {, which begins a suppression, not \"leak:x\"",
            ),
        ] {
            let expected = format!("cannot use the suppression file known.supp, {message}");
            assert_eq!(parsed(text), Err(expected), "{text}");
        }
        let missing = read(Path::new("/nonexistent/a.supp")).expect_err("no such file").to_string();
        assert!(missing.starts_with("cannot read the suppression file /nonexistent/a.supp: No such file"), "{missing}");
    }
}
