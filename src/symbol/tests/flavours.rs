//! One test for each way that debug information is packed.

use super::oracle::assert_same;
use super::workshop::Workshop;
use crate::event::FrameKind;

#[test]
fn every_dwarf_version_of_c() {
    for version in ["-gdwarf-2", "-gdwarf-3", "-gdwarf-4", "-gdwarf-5", "-gdwarf-5 -gdwarf64", "-gdwarf-5 -flto"] {
        let workshop = Workshop::new();
        workshop.sh(&format!("gcc -O2 {version} -o program inlines.c"));
        let (placed, inlined) = assert_same(&workshop, "program", &workshop.named("program"));
        assert!(placed > 200 && inlined > 50, "{placed} {inlined}");
    }
}

#[test]
fn cpp() {
    for level in ["-O0", "-O2"] {
        let workshop = Workshop::new();
        workshop.sh(&format!("g++ {level} -g -o program shapes.cpp"));
        let (placed, _) = assert_same(&workshop, "program", &workshop.named("program"));
        assert!(placed > 200, "{placed}");
    }
}

#[test]
fn functions_without_linkage_name_have_their_scopes() {
    for compiler in ["g++", "g++ -gsplit-dwarf", "g++ -gdwarf-4"] {
        let workshop = Workshop::new();
        workshop.sh(&format!("{compiler} -O2 -g -c shapes.cpp"));
        workshop.sh("g++ -o program shapes.o");
        let keep = workshop.symbol("program", "_ZN6shapes4keepERKNS_5ShapeE");
        let named = workshop.named("program");
        let at = |address| named.at(address).into_iter().map(|function| function.name).collect::<Vec<_>>();
        let names = (keep..).map(at).find(|names| names.len() == 4).expect("an address of inlined functions");
        assert_eq!(
            names,
            [
                "shapes::(anonymous namespace)::keep_inlined",
                "shapes::(anonymous namespace)::Keeper::keep",
                "shapes::keep::{lambda}::operator()",
                "shapes::keep(shapes::Shape const&)"
            ]
        );
    }
}

#[test]
fn rust() {
    for flags in ["-Cdwarf-version=4", "-Cdwarf-version=5", "-Csplit-debuginfo=packed", "-Csplit-debuginfo=unpacked"] {
        let workshop = Workshop::new();
        let compile = "rustc --edition=2024 -O -g -Csymbol-mangling-version=v0 -Ccodegen-units=4";
        workshop.sh(&format!("{compile} -o plain boxes.rs"));
        workshop.sh(&format!("{compile} {flags} -o program boxes.rs"));
        let (placed, inlined) = assert_same(&workshop, "plain", &workshop.named("program"));
        assert!(placed > 200 && inlined > 300, "{flags}: {placed} {inlined}");
    }
}

#[test]
fn compressed_sections() {
    for format in ["zlib", "zstd", "zlib-gnu"] {
        let workshop = Workshop::new();
        workshop.sh("gcc -O2 -g -o plain inlines.c");
        workshop.sh(&format!("objcopy --compress-debug-sections={format} plain program"));
        let (placed, _) = assert_same(&workshop, "plain", &workshop.named("program"));
        assert!(placed > 200, "{format}: {placed}");
    }
}

#[test]
fn split_units_in_dwo_files() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let workshop = Workshop::new();
        workshop.sh(&format!("g++ -O2 {version} -o plain shapes.cpp"));
        workshop.sh(&format!("g++ -O2 {version} -gsplit-dwarf -c shapes.cpp"));
        workshop.sh("g++ -o program shapes.o");
        let (placed, inlined) = assert_same(&workshop, "plain", &workshop.named("program"));
        assert!(placed > 200 && inlined > 100, "{placed} {inlined}");
    }
}

#[test]
fn split_units_moved_beside_the_program() {
    let workshop = Workshop::new();
    workshop.sh("gcc -O2 -g -o plain inlines.c");
    workshop.sh("mkdir elsewhere");
    workshop.sh("gcc -O2 -g -gsplit-dwarf -c inlines.c -o elsewhere/inlines.o");
    workshop.sh("gcc -o program elsewhere/inlines.o");
    workshop.sh("mv elsewhere/inlines.dwo .");
    assert_same(&workshop, "plain", &workshop.named("program"));
}

#[test]
fn split_units_in_a_package() {
    for (version, packer) in [("-gdwarf-4", "dwp"), ("-gdwarf-4", "llvm-dwp"), ("-gdwarf-5", "llvm-dwp")] {
        let workshop = Workshop::new();
        workshop.sh(&format!("gcc -O2 {version} -o plain inlines.c"));
        workshop.sh(&format!("gcc -O2 {version} -gsplit-dwarf -c inlines.c"));
        workshop.sh("gcc -o program inlines.o");
        workshop.sh(&format!("{packer} -e program -o program.dwp"));
        workshop.sh("rm inlines.dwo");
        let (placed, inlined) = assert_same(&workshop, "plain", &workshop.named("program"));
        assert!(placed > 200 && inlined > 50, "{version} {packer}: {placed} {inlined}");
    }
}

#[test]
fn a_package_beside_the_debug_file() {
    let workshop = Workshop::new();
    workshop.sh("gcc -O2 -g -o plain inlines.c");
    workshop.sh("gcc -O2 -g -gsplit-dwarf -c inlines.c");
    workshop.sh("gcc -Wl,--build-id=sha1 -o program inlines.o");
    workshop.sh("llvm-dwp -e program -o program.dwp");
    workshop.sh("objcopy --only-keep-debug program program.debug");
    workshop.sh("strip program");
    workshop.sh("rm inlines.dwo");
    let build_id = workshop.build_id_path("program");
    workshop.install("program.debug", &build_id);
    workshop.install("program.dwp", &build_id.replace(".debug", ".dwp"));
    let (placed, inlined) = assert_same(&workshop, "plain", &workshop.named("program"));
    assert!(placed > 200 && inlined > 50, "{placed} {inlined}");
}

#[test]
fn a_missing_split_unit_leaves_functions_and_lines() {
    let workshop = Workshop::new();
    workshop.sh("gcc -O2 -g -gsplit-dwarf -c inlines.c");
    workshop.sh("gcc -o program inlines.o");
    let keep = workshop.symbol("program", "keep");
    let named = workshop.named("program");
    let inlined = (keep..).find(|&address| named.at(address).len() == 3).expect("an address of inlined functions");

    workshop.sh("rm inlines.dwo");
    let named = workshop.named("program");
    let functions = named.at(inlined);
    assert_eq!(functions.len(), 1);
    assert_eq!((functions[0].name.as_str(), functions[0].offset), ("keep", Some(inlined - keep)));
    assert!(functions[0].line.is_some());
    assert!(named.loaded.gap().is_some_and(|gap| gap.starts_with("split debug information")));
}

#[test]
fn a_debug_file_by_build_id() {
    let workshop = Workshop::new();
    workshop.sh("gcc -O2 -g -Wl,--build-id=sha1 -o plain inlines.c");
    workshop.sh("objcopy --only-keep-debug plain plain.debug");
    workshop.sh("strip -o program plain");
    let build_id = workshop.build_id_path("plain");
    workshop.install("plain.debug", &build_id);
    let (placed, _) = assert_same(&workshop, "plain", &workshop.named("program"));
    assert!(placed > 200, "{placed}");
}

#[test]
fn a_librarys_debug_file_is_used_though_it_has_dynamic_symbols() {
    let workshop = Workshop::new();
    workshop.sh("gcc -O2 -g -fPIC -shared -Wl,--build-id=sha1 -o plain.so inlines.c");
    workshop.sh("eu-strip -f library.so.debug -o library.so plain.so");
    let (placed, inlined) = assert_same(&workshop, "plain.so", &workshop.named("library.so"));
    assert!(placed > 200 && inlined > 50, "{placed} {inlined}");
}

#[test]
fn a_debug_file_by_link_and_checksum() {
    for place in [".", ".debug", "debug"] {
        let workshop = Workshop::new();
        workshop.sh("gcc -O2 -g -Wl,--build-id=none -o plain inlines.c");
        workshop.sh("eu-strip -f program.debug -o program plain");
        let place = match place {
            "debug" => workshop.debug_directory().join(workshop.path("").strip_prefix("/").expect("absolute")),
            other => workshop.path(other),
        };
        std::fs::create_dir_all(&place).expect("created");
        std::fs::rename(workshop.path("program.debug"), place.join("program.debug")).expect("moved");
        let (placed, _) = assert_same(&workshop, "plain", &workshop.named("program"));
        assert!(placed > 200, "{}: {placed}", place.display());
    }
}

#[test]
fn a_debug_file_of_another_build_is_not_used() {
    for build_id in ["none", "sha1"] {
        let workshop = Workshop::new();
        workshop.sh(&format!("gcc -O2 -g -Wl,--build-id={build_id} -o plain inlines.c"));
        workshop.sh(&format!("gcc -O1 -g -Wl,--build-id={build_id} -o other inlines.c"));
        workshop.sh("eu-strip -f program.debug -o program plain");
        workshop.sh("objcopy --only-keep-debug other program.debug");
        let keep = workshop.symbol("plain", "keep");
        let named = workshop.named("program");
        assert_eq!(named.at(keep), [], "{build_id}");
        assert!(named.loaded.gap().is_some());
    }
}

#[test]
fn dwz_with_an_alternate_file() {
    for (version, found) in [("-gdwarf-4", "by path"), ("-gdwarf-5", "by path"), ("-gdwarf-5", "by build id")] {
        let workshop = Workshop::new();
        workshop.sh(&format!("g++ -O2 {version} -Wl,--build-id=sha1 -o plain shapes.cpp"));
        workshop.sh(&format!("g++ -O1 {version} -Wl,--build-id=sha1 -o second shapes.cpp"));
        workshop.sh("cp plain program");
        workshop.sh("dwz -m alternate -r program second");
        if found == "by build id" {
            let build_id = workshop.build_id_path("alternate");
            workshop.install("alternate", &build_id);
        }
        let (placed, inlined) = assert_same(&workshop, "plain", &workshop.named("program"));
        assert!(placed > 200 && inlined > 100, "{version} {found}: {placed} {inlined}");
    }
}

#[test]
fn dwz_within_one_file() {
    let workshop = Workshop::new();
    workshop.sh("g++ -O2 -g -o plain shapes.cpp");
    workshop.sh("dwz -o program plain");
    let (placed, inlined) = assert_same(&workshop, "plain", &workshop.named("program"));
    assert!(placed > 200 && inlined > 100, "{placed} {inlined}");
}

#[test]
fn mini_debug_info() {
    let workshop = Workshop::new();
    workshop.sh("gcc -O2 -rdynamic -o plain inlines.c");
    workshop.sh("objcopy --only-keep-debug plain mini");
    workshop.sh("objcopy -S --remove-section=.comment mini");
    workshop.sh("cp plain mini");
    // Fedora's recipe: keep the functions that .dynsym lacks.
    workshop.sh("objcopy -S --keep-symbol=scaled.constprop.0 --keep-symbol=scaled mini");
    workshop.sh("xz -k mini");
    workshop.sh("strip -o stripped plain");
    workshop.sh("objcopy --add-section .gnu_debugdata=mini.xz stripped program");
    let scaled = workshop.sh("nm plain");
    let scaled = scaled.lines().find(|line| line.contains("scaled")).expect("a static function");
    let address = u64::from_str_radix(&scaled[..16], 16).expect("an address");
    let keep = workshop.symbol("plain", "keep");

    let named = workshop.named("program");
    assert!(named.at(address)[0].name.starts_with("scaled"), "from .gnu_debugdata");
    assert_eq!(named.at(keep + 2)[0].name, "keep", "from .dynsym");
    assert_eq!(named.at(keep + 2)[0].offset, Some(2));
}

#[test]
fn symbols_without_debug_information() {
    let workshop = Workshop::new();
    workshop.sh("gcc -O2 -o program inlines.c");
    let named = workshop.named("program");
    let keep = workshop.symbol("program", "keep");
    let functions = named.at(keep + 3);
    assert_eq!(functions.len(), 1);
    assert_eq!((functions[0].name.as_str(), functions[0].offset, &functions[0].file), ("keep", Some(3), &None));
    assert!(named.loaded.gap().as_deref().is_some_and(|gap| gap.contains("no debug information (build id ")));
}

#[test]
fn dynamic_symbols_without_section_headers() {
    for style in ["gnu", "sysv"] {
        let workshop = Workshop::new();
        workshop.sh(&format!("gcc -O2 -rdynamic -Wl,--hash-style={style} -o plain inlines.c"));
        let mut bytes = workshop.open("plain").to_vec();
        // e_shoff, e_shnum and e_shstrndx of the ELF header.
        bytes[0x28..0x30].fill(0);
        bytes[0x3c..0x40].fill(0);
        std::fs::write(workshop.path("program"), bytes).expect("written");
        let keep = workshop.symbol("plain", "keep");
        let functions = workshop.named("program").at(keep + 5);
        assert_eq!((functions[0].name.as_str(), functions[0].offset), ("keep", Some(5)));
    }
}

#[test]
fn a_stripped_program_has_no_names() {
    let workshop = Workshop::new();
    workshop.sh("gcc -O2 -g -o plain inlines.c");
    workshop.sh("strip -o program plain");
    let keep = workshop.symbol("plain", "keep");
    let named = workshop.named("program");
    assert_eq!(named.at(keep), []);
    assert!(named.loaded.gap().as_deref().is_some_and(|gap| gap.starts_with("no symbols and no debug information")));
}

#[test]
fn debug_information_names_functions_that_lost_their_symbols() {
    let workshop = Workshop::new();
    workshop.sh("gcc -O2 -g -o plain inlines.c");
    workshop.sh("objcopy --strip-symbol=keep --strip-symbol=tail plain program");
    let keep = workshop.symbol("plain", "keep");
    let functions = workshop.named("program").at(keep + 4);
    let real = functions.last().expect("a function");
    assert_eq!((real.name.as_str(), real.offset, real.inlined), ("keep", Some(4), false));
}

#[test]
fn a_callers_line_is_that_of_the_call() {
    let workshop = Workshop::new();
    workshop.sh("gcc -O0 -g -o program inlines.c");
    let code = workshop.sh("objdump -d --no-show-raw-insn program");
    let call = code
        .lines()
        .skip_while(|line| !line.contains("<may_fail>:"))
        .find(|line| line.contains("call") && line.contains("<fail>"));
    let next = code.lines().skip_while(|line| Some(*line) != call).nth(1).expect("an instruction after the call");
    let address =
        |line: &str| u64::from_str_radix(line.trim().split(':').next().expect("an address"), 16).expect("hexadecimal");

    let return_address = address(next);
    let functions = workshop.named("program").of_kind(return_address, FrameKind::ReturnAddress);
    let may_fail = workshop.symbol("program", "may_fail");
    assert_eq!((functions[0].name.as_str(), functions[0].offset), ("may_fail", Some(return_address - may_fail)));
    let source = std::fs::read_to_string(workshop.path("inlines.c")).expect("the source");
    let line = functions[0].line.expect("a line") as usize;
    assert_eq!(source.lines().nth(line - 1).map(str::trim), Some("fail(\"value\");"));
}
