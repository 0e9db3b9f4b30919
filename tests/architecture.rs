//! Holds the sources to the invariants that ARCHITECTURE.md states.

use std::fs;
use std::path::{Path, PathBuf};

/// Files longer than the limit, and what they may grow to. To be emptied, not filled.
const LENGTH_BUDGETS: &[(&str, usize)] = &[];
const LENGTH_LIMIT: usize = 600;

/// For each module with a closed list: the modules of the crate that it may import.
const MAY_IMPORT_ONLY: &[(&str, &[&str])] = &[
    ("event", &[]),
    ("config", &["objects"]),
    ("objects", &["allocator"]),
    ("allocator", &["event", "config", "likeness", "symbol", "wildcard"]),
    ("likeness", &[]),
    ("marker", &["likeness"]),
    ("wildcard", &[]),
    ("stack", &["event"]),
    ("histogram", &[]),
    ("notable", &["event"]),
    ("machine", &["event"]),
    ("tracker", &["event", "config", "histogram", "notable"]),
    ("profile", &["event", "histogram", "symbol"]),
    ("trend", &["event", "profile"]),
    ("recording", &["config", "event", "histogram", "notable", "profile", "symbol", "tracker", "unwind"]),
    ("filter", &["event", "histogram", "symbol", "profile", "wildcard"]),
];

/// For each module: what it must not know.
const MUST_NOT_IMPORT: &[(&str, &[&str])] = &[
    ("report", &["ptrace", "bpf", "session", "cli"]),
    ("unwind", &["ptrace", "bpf", "tracker", "report", "session", "cli"]),
    ("symbol", &["ptrace", "bpf", "tracker", "report", "session", "cli"]),
    ("ptrace", &["bpf", "tracker", "symbol", "report", "session", "cli"]),
    ("bpf", &["ptrace", "tracker", "symbol", "report", "session", "cli"]),
    ("source", &["ptrace", "bpf", "tracker", "symbol", "report", "session", "cli"]),
    // Of reports and of rendering it knows the names of what may be asked for.
    ("cli", &["session", "source", "ptrace", "bpf", "tracker"]),
    ("rendering", &["session", "source", "ptrace", "bpf", "tracker", "cli"]),
    ("session", &["cli", "doctor", "metrics"]),
    ("metrics", &["source", "ptrace", "bpf", "tracker", "recording", "report", "cli"]),
    ("doctor", &["cli", "session", "ptrace", "tracker", "report"]),
];

struct SourceFile {
    /// Relative to the repository.
    path: String,
    text: String,
    /// Without comments, strings and the unit tests.
    code: String,
}

impl SourceFile {
    /// The module of the memleax crate that the file belongs to: `tracker` for `src/tracker/…` and `src/tracker.rs`;
    /// none for unit tests that fill a folder of their own (`src/symbol/tests/…`).
    fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/").filter(|below| !below.contains("/tests/"))?;
        let first = below.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    fn imports(&self, module: &str) -> bool {
        imported_modules(&self.code).iter().any(|name| name == module)
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<SourceFile> {
    let mut paths = Vec::new();
    for folder in ["src", "platform", "tests", "benches"] {
        collect(&repository().join(folder), &mut paths);
    }
    assert!(paths.len() > 10, "found only {paths:?}");
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a readable source file");
            let code = without_unit_tests(&without_comments_and_strings(&text)).to_owned();
            let path = path.strip_prefix(repository()).expect("a path below the repository").display().to_string();
            SourceFile { path, text, code }
        })
        .collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    paths.sort();
}

/// Blanks comments, and the contents of strings and character literals; keeps line breaks.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            string_length(rest)
        } else if let Some(hashes) = raw_string_hashes(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len())
        } else if rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'') && first == '\'' {
            let escape = usize::from(rest.starts_with("'\\"));
            let start = 1 + rest.chars().take(2 + escape).skip(1).map(char::len_utf8).sum::<usize>();
            rest[start..].find('\'').map_or(rest.len(), |at| start + at + 1)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.extend(rest[..length].chars().filter(|&c| c == '\n'));
        code.push(' ');
        rest = &rest[length..];
    }
    code
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_hashes(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Unit tests stand at the end of a file, or in a file of their own.
fn without_unit_tests(code: &str) -> &str {
    let is_inline = |at: usize| code[at..].find(['{', ';']).is_some_and(|end| code[at + end..].starts_with('{'));
    let mut starts = code.match_indices("#[cfg(test)]\nmod ").map(|(at, _)| at);
    starts.find(|&at| is_inline(at)).map_or(code, |at| &code[..at])
}

/// The first segments after `crate::`, also of `crate::{a, b::c}`.
fn imported_modules(code: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        if code[..at].ends_with('$') {
            continue;
        }
        let path = &code[at + start.len()..];
        match path.strip_prefix('{') {
            None => modules.push(identifier(path)),
            Some(group) => {
                let (mut depth, mut at_start) = (0, true);
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => at_start = true,
                        c if c.is_whitespace() => {}
                        _ => {
                            if at_start && depth == 0 {
                                modules.push(identifier(&group[at..]));
                            }
                            at_start = false;
                        }
                    }
                }
            }
        }
    }
    modules
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect()
}

/// True if `word` stands in `code`, not as a part of a longer identifier.
fn mentions(code: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(part_of_name) && !code[at + word.len()..].starts_with(part_of_name))
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\nARCHITECTURE.md says why.", complaints.join("\n"));
}

#[test]
fn the_scanner_sees_code_only() {
    let text = "use crate::{a, b::{x, y}, c};\n// crate::d\nlet s = \"crate::e \\\" \"; r#\"crate::f\"#; '\"'; crate::g::h();\n";
    assert_eq!(imported_modules(&without_comments_and_strings(text)), ["a", "b", "c", "g"]);
    assert_eq!(without_comments_and_strings("let c: &'static str = 'x'; /* \" */ y"), "let c: &'static str =  ;   y");
    assert_eq!(without_comments_and_strings("x = '…'; y = '\\''; z"), "x =  ; y =  ; z");
    assert_eq!(without_unit_tests("code\n#[cfg(test)]\nmod tests { crate::x; }"), "code\n");
    assert_eq!(without_unit_tests("#[cfg(test)]\nmod tests;\ncode {}"), "#[cfg(test)]\nmod tests;\ncode {}");
    assert!(mentions("unsafe {", "unsafe") && !mentions("unsafe_code", "unsafe"));
}

#[test]
fn modules_import_what_they_may() {
    let mut complaints = Vec::new();
    for file in sources() {
        let Some(module) = file.module() else { continue };
        if let Some((_, allowed)) = MAY_IMPORT_ONLY.iter().find(|(name, _)| *name == module) {
            for import in imported_modules(&file.code) {
                if import != module && !allowed.contains(&import.as_str()) {
                    complaints.push(format!("{}: {module} may import only {allowed:?}, not {import}", file.path));
                }
            }
        }
        if let Some((_, forbidden)) = MUST_NOT_IMPORT.iter().find(|(name, _)| *name == module) {
            for import in forbidden.iter().filter(|import| file.imports(import)) {
                complaints.push(format!("{}: {module} must not import {import}", file.path));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn the_platform_knows_nothing_of_memleax() {
    let mut complaints = Vec::new();
    for file in sources() {
        if file.path.starts_with("platform/") && mentions(&file.code, "memleax") {
            complaints.push(format!("{}: names memleax", file.path));
        }
    }
    let manifest = fs::read_to_string(repository().join("platform/Cargo.toml")).expect("platform/Cargo.toml");
    if manifest.lines().any(|line| line.starts_with("memleax")) {
        complaints.push("platform/Cargo.toml: depends on memleax".into());
    }
    assert_none(&complaints);
}

#[test]
fn unsafe_code_stands_in_the_platform_only() {
    let mut complaints = Vec::new();
    for file in sources() {
        if file.path.starts_with("src/") && mentions(&file.code, "unsafe") {
            complaints.push(format!("{}: unsafe", file.path));
        }
        if ["src/lib.rs", "src/main.rs"].contains(&file.path.as_str()) && !file.text.contains("#![forbid(unsafe_code)]")
        {
            complaints.push(format!("{}: does not forbid unsafe code", file.path));
        }
    }
    assert_none(&complaints);
}

#[test]
fn systems_are_told_apart_in_one_place() {
    let mut complaints = Vec::new();
    for file in sources() {
        let is_product = ["src/", "platform/"].iter().any(|folder| file.path.starts_with(folder));
        let may = ["platform/lib.rs", "platform/shim/lib.rs"].contains(&file.path.as_str());
        if !is_product || file.path.starts_with("platform/tests/") || may {
            continue;
        }
        for (number, line) in file.code.lines().enumerate() {
            if mentions(line, "target_os") {
                complaints.push(format!("{}:{}: cfg(target_os)", file.path, number + 1));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn only_the_ends_of_the_program_print_and_exit() {
    let mut complaints = Vec::new();
    for file in sources() {
        let Some(module) = file.module() else { continue };
        let prints = ["stdout", "println!", "print!"].iter().any(|name| mentions(&file.code, name));
        if prints && !["main", "cli", "report"].contains(&module) {
            complaints.push(format!("{}: writes to standard output", file.path));
        }
        let exits = ["process::exit", "ExitCode", "process::abort"].iter().any(|name| file.code.contains(name));
        if exits && !["main", "cli"].contains(&module) {
            complaints.push(format!("{}: ends the process", file.path));
        }
    }
    assert_none(&complaints);
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    let mut complaints = Vec::new();
    for file in sources() {
        let limit =
            LENGTH_BUDGETS.iter().find(|(path, _)| *path == file.path).map_or(LENGTH_LIMIT, |&(_, limit)| limit);
        let lines = file.text.lines().count();
        if lines > limit {
            complaints.push(format!("{}: {lines} lines, {limit} are the limit: split it by concept", file.path));
        }
        for part in file.path.split('/') {
            let name = part.strip_suffix(".rs").unwrap_or(part);
            if ["util", "utils", "common", "helper", "helpers", "misc", "shared"].contains(&name) {
                complaints.push(format!("{}: {name} says nothing of what is in it", file.path));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn the_list_of_modules_is_complete() {
    let text = fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let listed: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("    ")?.split_whitespace().next()).collect();
    let mut complaints: Vec<String> = listed
        .iter()
        .filter(|path| !repository().join(path).exists())
        .map(|path| format!("ARCHITECTURE.md lists {path}, which does not exist"))
        .collect();
    for file in sources() {
        let Some(module) = file.module().filter(|&module| module != "lib") else { continue };
        if ![format!("src/{module}.rs"), format!("src/{module}/")].iter().any(|path| listed.contains(&path.as_str())) {
            complaints.push(format!("{}: {module} is not in ARCHITECTURE.md's list", file.path));
        }
    }
    assert_none(&complaints);
}
