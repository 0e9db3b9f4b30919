//! What launched programs allocate, free and leak, against other tools' counts of the same programs: valgrind's memcheck, call stack by
//! call stack, and heaptrack's peak.
//!
//! Two things are counted otherwise there, and reckoned with here: each `realloc` is a free and a new block to valgrind and heaptrack, while a
//! block that stays where it is stays the same block to memleax (it tells how many did); and such a block belongs to the call
//! stack of its first allocation, not to that of the last `realloc`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use memleax_targets::Target;
use serde_json::Value;

use crate::harness::{Backend, has_program, memleax};

/// A program with its arguments, and what it reads.
struct Run<'a> {
    command: Vec<String>,
    input: &'a str,
}

fn run<'a>(command: &[&str]) -> Run<'a> {
    Run { command: command.iter().map(|word| (*word).to_owned()).collect(), input: "" }
}

/// The project's own program that plants leaks when told to.
fn planted(target: &Target) -> Run<'static> {
    let program = target.build();
    Run { command: vec![program.path.display().to_string()], input: "go 3\ngo 1\nquit\n" }
}

/// Blocks and bytes.
type Tally = (u64, u64);
/// From the outermost caller of the allocator on: the module's file name, and the last three hexadecimal digits of the call's address, which
/// are the same wherever the module is loaded.
type Chain = Vec<(String, u64)>;

#[derive(Debug, PartialEq, Eq)]
struct Counts {
    allocated: Tally,
    frees: u64,
    live: Tally,
}

/// What a tool has found.
struct Found {
    counts: Counts,
    /// Never freed.
    sites: BTreeMap<Chain, Tally>,
}

/// What programs are given instead of their environment: some count its variables, and hash by random seeds. (A shell is no program for
/// this: it keeps its process id as text, which may be a digit longer the next time.)
fn environment(command: &mut Command) -> &mut Command {
    command.env_clear().envs([
        ("PATH", "/usr/bin:/bin"),
        ("HOME", "/nonexistent"),
        ("LC_ALL", "C"),
        ("PYTHONHASHSEED", "0"),
        ("PERL_HASH_SEED", "0"),
        ("PERL_PERTURB_KEYS", "0"),
        // What valgrind does not bear, or counts although it failed; and what would make all else vanish in a rounded number.
        ("LEAVE_OUT", "pvalloc bad_alloc realloc_failed huge"),
    ])
}

fn finish(command: &mut Command, input: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(inner, _)| inner)
}

fn number(text: &str) -> u64 {
    text.replace(',', "").trim().parse().unwrap_or_else(|_| panic!("no number: {text:?}"))
}

/// The wrapper that Debian puts around it changes the environment.
fn valgrind() -> Command {
    let program = if Path::new("/usr/bin/valgrind.bin").exists() { "/usr/bin/valgrind.bin" } else { "valgrind" };
    let mut valgrind = Command::new(program);
    environment(&mut valgrind);
    valgrind
}

fn by_valgrind(run: &Run<'_>, folder: &Path) -> Found {
    let log = folder.join("log");
    let command = |options: &[&str]| {
        let mut valgrind = valgrind();
        valgrind
            .args(["--run-libc-freeres=no", "--run-cxx-freeres=no", "--leak-check=full", "--show-leak-kinds=all"])
            .args(options)
            .arg(format!("{}{}", if options.is_empty() { "--log-file=" } else { "--xml-file=" }, log.display()))
            .args(&run.command);
        finish(&mut valgrind, run.input);
        fs::read_to_string(&log).expect("valgrind's log")
    };
    // The totals are not in its XML.
    let text = command(&[]);
    let usage = between(&text, "total heap usage: ", " bytes allocated").expect("totals");
    let usage: Vec<u64> =
        usage.split(' ').filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(number).collect();
    let in_use = between(&text, "in use at exit: ", " blocks").expect("what is in use");
    let (bytes, blocks) = in_use.split_once(" bytes in ").expect("bytes and blocks");
    let counts = Counts { allocated: (usage[0], usage[2]), frees: usage[1], live: (number(blocks), number(bytes)) };

    let mut sites = BTreeMap::<Chain, Tally>::new();
    let xml = command(&[
        "--xml=yes",
        "--num-callers=300",
        "--show-below-main=yes",
        "--read-inline-info=no",
        "--leak-resolution=high",
    ]);
    for error in xml.split("<error>").skip(1) {
        let text = between(error, "<text>", "</text>").expect("a text");
        // `48 (16 direct, 32 indirect) bytes in 1 blocks are definitely lost…`; what is lost indirectly is told on its own, too.
        let (bytes, rest) = text.split_once(" bytes in ").expect("bytes");
        let bytes = between(bytes, "(", " direct").unwrap_or(bytes);
        let (blocks, _) = rest.split_once(" blocks").expect("blocks");
        let stack = between(error, "<stack>", "</stack>").expect("a stack");
        let frames = stack.split("<frame>").skip(1).map(|frame| {
            let object = between(frame, "<obj>", "</obj>").unwrap_or_default();
            let address = between(frame, "<ip>0x", "</ip>").expect("an address");
            (file_name(object), u64::from_str_radix(address, 16).expect("an address") & 0xfff)
        });
        // Without its own replacements of functions, and what it takes for callers of the first function.
        let chain = frames
            .take_while(|(object, _)| !object.is_empty())
            .filter(|(object, _)| !object.starts_with("vgpreload"))
            .collect();
        let site = sites.entry(chain).or_default();
        *site = (site.0 + number(blocks), site.1 + number(bytes));
    }
    Found { counts, sites }
}

fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn json_of(run: &Run<'_>, path: &Path, preload: &str) -> Value {
    let mut command = memleax();
    environment(&mut command)
        .args(["--quiet", "--depth", "300", "--all-frames", "--format", "json", "--output"])
        .arg(path)
        .arg("--")
        .args(&run.command);
    if !preload.is_empty() {
        // As many variables, as long, as under the other tool; no such files.
        command.env("LD_PRELOAD", preload);
    }
    let errors = finish(&mut command, run.input);
    let json = fs::read(path).unwrap_or_else(|error| panic!("{error}: {errors}"));
    serde_json::from_slice(&json).expect("JSON")
}

fn amount(value: &Value) -> Tally {
    let part = |name: &str| value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"));
    (part("count"), part("bytes"))
}

/// What memleax found, and how many blocks `realloc` left where they were.
fn by_memleax(json: &Value) -> (Found, u64) {
    assert_eq!((&json["losses"], &json["unknown_frees"]), (&Value::Array(Vec::new()), &Value::from(0)));
    let totals = &json["totals"];
    let (allocated, freed, resized) =
        (amount(&totals["allocated"]), amount(&totals["freed"]), amount(&totals["resized"]));
    let counts = Counts {
        allocated: (allocated.0 + resized.0, allocated.1 + resized.1),
        frees: freed.0 + resized.0,
        live: amount(&totals["live"]),
    };
    let mut sites = BTreeMap::<Chain, Tally>::new();
    for site in json["sites"].as_array().expect("a list") {
        let live = amount(&site["live"]);
        if live.0 == 0 {
            continue;
        }
        assert_eq!(site["stack"]["ending"], "complete", "{site}");
        let frames = site["stack"]["frames"].as_array().expect("a list").iter();
        let frames =
            frames.map(|index| &json["frames"][usize::try_from(index.as_u64().expect("an index")).expect("small")]);
        let chain = frames
            .enumerate()
            .skip_while(|(index, frame)| *index == 0 || is_allocator(frame))
            .map(|(_, frame)| {
                let address =
                    frame["address"].as_str().and_then(|address| address.strip_prefix("0x")).expect("an address");
                let call = u64::from_str_radix(address, 16).expect("an address") - 1;
                (file_name(frame["module"].as_str().unwrap_or_default()), call & 0xfff)
            })
            .collect();
        let total = sites.entry(chain).or_default();
        *total = (total.0 + live.0, total.1 + live.1);
    }
    (Found { counts, sites }, resized.0)
}

fn is_allocator(frame: &Value) -> bool {
    let name =
        frame["functions"].as_array().and_then(|functions| functions.last()?["name"].as_str()).unwrap_or_default();
    ["malloc", "calloc", "realloc", "reallocarray", "memalign", "aligned_alloc", "posix_memalign", "valloc", "pvalloc"]
        .contains(&name)
        || name.starts_with("operator new")
}

/// What valgrind puts into `LD_PRELOAD`, each file's name changed so that there is none.
fn preload_of_valgrind() -> String {
    let output = valgrind().args(["-q", "env"]).output().expect("valgrind runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let preload = text.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")).expect("it preloads libraries");
    preload.replace("vgpreload", "xgpreload")
}

fn equals_valgrind(run: &Run<'_>) {
    if !has_program("valgrind") || !has_program(&run.command[0]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let theirs = by_valgrind(run, folder.path());
    let (ours, resized) = by_memleax(&json_of(run, &folder.path().join("ours.json"), &preload_of_valgrind()));
    assert_eq!(ours.counts, theirs.counts, "{:?}", run.command);
    let blocks = |found: &Found| found.sites.values().map(|site| site.0).sum::<u64>();
    assert_eq!(blocks(&ours), blocks(&theirs), "{:?}", run.command);
    // A block that stays where it is when it is resized is listed where it was first allocated: once too few there, once too many here.
    let differing: Vec<_> =
        theirs.sites.iter().filter(|(chain, tally)| ours.sites.get(*chain) != Some(tally)).collect();
    let most = usize::try_from(2 * resized).expect("few");
    assert!(differing.len() <= most, "{:?}, {resized} resized: {differing:?}\nours: {:?}", run.command, ours.sites);
}

macro_rules! equal_valgrinds {
    ($($name:ident: $run:expr;)*) => {
        $(
            #[test]
            fn $name() {
                equals_valgrind(&$run);
            }
        )*
    };
}

equal_valgrinds! {
    own_c: planted(&Target::c("leak_sites"));
    own_cpp: planted(&Target::cpp("cpp_sites"));
    own_rust: planted(&Target::rust("rust_sites"));
    ls: run(&["/bin/ls", "/"]);
    sqlite: run(&["/usr/bin/sqlite3", ":memory:", "create table t(a, b); insert into t values(1, 2), (3, 4); select sum(a) from t;"]);
    perl: run(&["/usr/bin/perl", "-e", "my %h; for (1..1000) { $h{$_} = [1..10]; } print scalar keys %h"]);
    python: run(&["/usr/bin/python3", "-c", "print(sum(len(str(i)) for i in range(1000)))"]);
    git: run(&["/usr/bin/git", "--version"]);
    awk: run(&["/usr/bin/awk", "BEGIN { for (i = 0; i < 1000; i++) a[i] = i; print length(a) }"]);
    sed: run(&["/bin/sed", "-n", "s/root/x/p", "/etc/passwd"]);
    grep: run(&["/bin/grep", "-r", "root", "/etc/passwd"]);
    tar: run(&["/bin/tar", "cf", "-", "/etc/hosts"]);
    xz: run(&["/usr/bin/xz", "-c", "/etc/passwd"]);
}

/// What heaptrack takes for the peak: the text is rounded to two decimals of the unit.
fn heaptracks_peak(run: &Run<'_>) -> Peak {
    let folder = tempfile::tempdir().expect("a folder");
    let mut heaptrack = Command::new("heaptrack");
    // Newer ones show the file otherwise.
    let help = Command::new("heaptrack").arg("--help").output().expect("heaptrack runs");
    if String::from_utf8_lossy(&help.stdout).contains("--record-only") {
        heaptrack.arg("--record-only");
    }
    environment(&mut heaptrack).arg("--output").arg(folder.path().join("recorded")).args(&run.command);
    finish(&mut heaptrack, run.input);
    let file = fs::read_dir(folder.path()).expect("a folder").next().expect("a file").expect("a file").path();
    let printed = Command::new("heaptrack_print").arg("-f").arg(&file).output().expect("it runs");
    assert!(printed.status.success(), "{printed:?}");
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    let peak = between(&text, "peak heap memory consumption: ", "\n").expect("a peak").trim();
    let (number, factor) = [("B", 1), ("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)]
        .iter()
        .find_map(|&(unit, factor)| Some((peak.strip_suffix(unit)?, factor)))
        .expect("a unit");
    let number = number.replace('.', "").parse::<u64>().expect("a number");
    let hundredths = if peak.contains('.') { 1 } else { 100 };
    Peak { bytes: number * hundredths * factor / 100, unit: (factor / 100).max(1) }
}

/// Bytes, and what the last digit is worth.
struct Peak {
    bytes: u64,
    unit: u64,
}

/// The peak of a program that does the same each time.
fn equals_heaptracks_peak(run: &Run<'_>) {
    // By bpf the peak is that of looks at the target.
    if Backend::under_test() == Backend::Bpf || !has_program("heaptrack") || !has_program("heaptrack_print") {
        return;
    }
    // The library that heaptrack puts into the program brings that of C++, which keeps some memory for hard times.
    let own = heaptracks_peak(&self::run(&["/bin/true"]));
    let theirs = heaptracks_peak(run);
    let folder = tempfile::tempdir().expect("a folder");
    let json = json_of(run, &folder.path().join("ours.json"), "");
    let ours = amount(&json["peak"]["live"]).1;
    let difference = ours.abs_diff(theirs.bytes - own.bytes);
    let rounding = own.unit + theirs.unit;
    assert!(difference <= rounding, "{:?}: {ours}, heaptrack {} - {}", run.command, theirs.bytes, own.bytes);
}

#[test]
fn peak_of_a_database() {
    equals_heaptracks_peak(&run(&[
        "/usr/bin/sqlite3",
        ":memory:",
        "create table t(a, b); with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) insert into t select i, hex(i) from n; select count(*) from t;",
    ]));
}

/// (heaptrack does not see `memalign`, which the one in C calls.)
#[test]
fn peak_of_own_program() {
    equals_heaptracks_peak(&planted(&Target::rust("rust_sites")));
}

#[test]
fn peak_of_an_editor() {
    equals_heaptracks_peak(&run(&["/bin/sed", "-n", "s/root/x/p", "/etc/passwd"]));
}
