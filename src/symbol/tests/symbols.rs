//! Which symbol an address belongs to.

use super::workshop::{Named, Workshop};

struct Library {
    workshop: Workshop,
    named: Named,
}

impl Library {
    fn new() -> Self {
        let workshop = Workshop::new();
        std::fs::write(workshop.path("versions"), "V1 { global: *; };\nV2 { global: *; } V1;\n").expect("written");
        workshop.sh("gcc -shared -nostdlib -Wl,--version-script=versions -o library.so symbols.s");
        let named = workshop.named("library.so");
        Self { workshop, named }
    }

    /// The function `offset` bytes after `symbol`, and the offset in it.
    #[track_caller]
    fn at(&self, symbol: &str, offset: u64) -> Option<(String, u64)> {
        let functions = self.named.at(self.workshop.symbol("library.so", symbol) + offset);
        functions.into_iter().next().map(|function| (function.name, function.offset.expect("an offset")))
    }
}

fn function(name: &str, offset: u64) -> Option<(String, u64)> {
    Some((name.to_owned(), offset))
}

#[test]
fn a_function_reaches_to_its_end_over_labels_within() {
    let library = Library::new();
    assert_eq!(library.at("sized", 0), function("sized", 0));
    assert_eq!(library.at("sized", 1), function("sized", 1));
    assert_eq!(library.at("sized", 2), function("sized", 2));
    assert_eq!(library.at("sized", 3), None);
}

#[test]
fn a_function_without_size_reaches_to_the_next() {
    let library = Library::new();
    assert_eq!(library.at("unsized", 1), function("unsized", 1));
    assert_eq!(library.at("untyped", 1), function("untyped", 1));
    assert_eq!(library.at("last", 0), function("last", 0));
    assert_eq!(library.at("last", 1), None, "beyond the section");
}

#[test]
fn the_innermost_of_nested_functions_counts() {
    let library = Library::new();
    assert_eq!(library.at("outer", 0), function("outer", 0));
    assert_eq!(library.at("inner", 0), function("inner", 0));
    assert_eq!(library.at("inner", 1), function("outer", 2));
}

#[test]
fn of_several_names_the_plainest_global_one_is_taken() {
    let library = Library::new();
    assert_eq!(library.at("aliased", 0), function("aliased", 0));
    assert_eq!(library.at("local_name", 0), function("global_name_that_is_longer", 0));
}

#[test]
fn versions_are_left_out() {
    assert_eq!(Library::new().at("versioned_new", 0), function("api", 0));
}

#[test]
fn data_is_no_function() {
    assert_eq!(Library::new().at("some_data", 0), None);
}

/// `objdump` marks stubs as `0000000000001030 <malloc@plt>:`.
#[test]
fn stubs_have_the_name_of_what_they_call() {
    for flags in ["-fcf-protection=none", "-fcf-protection=full -Wl,-z,ibtplt", "-fno-plt", "-Wl,-z,now", "-no-pie"] {
        let workshop = Workshop::new();
        workshop.sh(&format!("g++ -O2 {flags} -o program shapes.cpp"));
        workshop.sh("strip program");
        let code = workshop.sh("objdump -d program");
        let stubs = code.lines().filter_map(|line| {
            let (address, name) = line.split_once(" <")?;
            Some((u64::from_str_radix(address, 16).ok()?, name.strip_suffix("@plt>:")?))
        });
        let named = workshop.named("program");
        for (address, name) in stubs.clone() {
            let name = name.split('@').next().expect("a name");
            let functions = named.at(address + 4);
            assert_eq!(functions.len(), 1, "{flags}: {name} at {address:#x}");
            assert_eq!(
                (functions[0].raw.as_str(), functions[0].offset),
                (format!("{name}@plt").as_str(), Some(4)),
                "{flags}"
            );
        }
        assert!(stubs.count() > 0, "{flags}");
    }
}
