//! What binutils' `addr2line` and LLVM's say, and the comparison with them: where they differ, either may be right (binutils
//! 2.40 takes the wrong file for some inlined functions of DWARF 5).

use std::collections::{BTreeMap, HashMap};

use object::{Object, ObjectSymbol, SymbolKind};

use super::workshop::{Named, Workshop};
use crate::symbol::Function;

/// The linker's name of a function; file and line where known.
type Level = (String, Option<(String, u32)>);

/// The functions of a program by name, with their addresses and sizes.
type Symbols = HashMap<String, (u64, u64)>;

/// Asserts that memleax says of each address what `addr2line` says of the `reference`, which has all debug information.
/// Returns how many levels had a place and how many were inlined, so that a test can show that it tested something.
#[track_caller]
pub(super) fn assert_same(workshop: &Workshop, reference: &str, named: &Named) -> (usize, usize) {
    let symbols = symbols(workshop, reference);
    let addresses = addresses(&symbols, 1500);
    let oracles = ["addr2line", "llvm-addr2line"].map(|tool| addr2line(tool, workshop, reference, &addresses));
    let mut differences = Vec::new();
    let (mut placed, mut inlined) = (0, 0);
    for address in addresses {
        let found = named.at(address);
        placed += found.iter().filter(|function| function.line.is_some()).count();
        inlined += found.iter().filter(|function| function.inlined).count();
        let expected = oracles.each_ref().map(|oracle| &oracle[&address]);
        if !expected.iter().any(|expected| same(expected, &found, &symbols)) {
            let found: Vec<Level> = found.iter().map(level).collect();
            differences.push(format!("{address:#x}:\n  theirs  {expected:?}\n  memleax {found:?}"));
        }
    }
    let shown = differences.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{} differences in {reference}, the first:\n{shown}", differences.len());
    (placed, inlined)
}

fn symbols(workshop: &Workshop, program: &str) -> Symbols {
    let bytes = workshop.open(program);
    let file = object::File::parse(&bytes[..]).expect("an ELF file");
    let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
    functions
        .filter(|symbol| symbol.size() > 0)
        .map(|symbol| (symbol.name().expect("a name").to_owned(), (symbol.address(), symbol.size())))
        .collect()
}

/// Addresses inside the functions, at most about `count`, evenly chosen.
fn addresses(symbols: &Symbols, count: usize) -> Vec<u64> {
    let mut all: Vec<u64> = symbols.values().flat_map(|&(start, size)| start..start + size).collect();
    all.sort_unstable();
    all.dedup();
    assert!(all.len() > 100, "there are functions");
    let step = all.len().div_ceil(count);
    all.into_iter().step_by(step).collect()
}

/// `addr2line -i -f` for each address.
fn addr2line(tool: &str, workshop: &Workshop, program: &str, addresses: &[u64]) -> BTreeMap<u64, Vec<Level>> {
    let mut arguments: Vec<String> = ["-a", "-i", "-f", "-e", program].map(str::to_owned).into();
    arguments.extend(addresses.iter().map(|address| format!("{address:#x}")));
    let output = workshop.run(tool, arguments);
    let mut answers = BTreeMap::new();
    let mut current = 0;
    let mut lines = output.lines();
    while let Some(line) = lines.next() {
        if let Some(address) = line.strip_prefix("0x") {
            current = u64::from_str_radix(address, 16).expect("an address");
            answers.insert(current, Vec::new());
            continue;
        }
        let place = lines.next().expect("a place after each function");
        let place = place.split(" (discriminator").next().expect("a place");
        let (file, line_number) = place.rsplit_once(':').expect("FILE:LINE");
        let place = line_number.parse().ok().filter(|&number| number > 0).map(|number| (base_name(file), number));
        answers.entry(current).or_insert_with(Vec::new).push((line.to_owned(), place));
    }
    answers
}

fn same(expected: &[Level], found: &[Function], symbols: &Symbols) -> bool {
    expected.len() == found.len()
        && expected
            .iter()
            .zip(found)
            .all(|((name, place), ours)| same_name(name, ours, symbols) && *place == level(ours).1)
}

/// Inlined functions have one name. The others have aliases, and the debug information of some says no more than what
/// stands in the source: there memleax prefers the symbol.
fn same_name(theirs: &str, ours: &Function, symbols: &Symbols) -> bool {
    let address = |name| symbols.get(name).map(|&(start, _)| start);
    theirs == ours.raw
        || (!ours.inlined
            && (ours.raw.contains(theirs) || address(theirs).is_some_and(|at| Some(at) == address(&ours.raw))))
}

fn level(function: &Function) -> Level {
    let place = function.line.map(|line| (base_name(function.file.as_deref().unwrap_or("??")), line));
    (function.raw.clone(), place)
}

fn base_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}
