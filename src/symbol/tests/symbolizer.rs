//! The symbolizer as the report uses it: frames of modules that were mapped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memleax_platform::{AuxiliaryVector, MappedFile, Mapping, RootDirectory};
use object::{Object, ObjectSegment};

use super::workshop::Workshop;
use crate::event::{Frame, FrameKind, ModuleId};
use crate::symbol::{DebugFile, DebugFileFinder, SymbolOptions, Symbolizer};
use crate::unwind::{Module, ModuleMap, ModuleTable};

const BASE: u64 = 0x5555_5555_4000;

/// The program, mapped as the kernel does, at `BASE`.
fn mapped(file: &Path, path_in_target: &Path) -> ModuleMap {
    let open = || MappedFile::new(&File::open(file).expect("opened")).expect("mapped");
    let bytes = open();
    let program = object::File::parse(&bytes[..]).expect("an ELF file");
    let page = |address: u64| address & !0xfff;
    let mappings: Vec<Mapping> = program
        .segments()
        .map(|segment| Mapping {
            start: BASE + page(segment.address()),
            end: BASE + page(segment.address() + segment.size() + 0xfff),
            offset: page(segment.file_range().0),
            readable: true,
            writable: false,
            executable: matches!(segment.flags(), object::SegmentFlags::Elf { p_flags } if p_flags & 1 != 0),
            shared: false,
            file_id: (1, 1),
            path: path_in_target.to_owned(),
            deleted: false,
        })
        .collect();
    let auxiliary = AuxiliaryVector { entry: BASE + program.entry(), ..AuxiliaryVector::default() };
    let mut map = ModuleMap::default();
    map.refresh(&mappings, &auxiliary, &mut |_| Ok(open()), &mut |_, _| 0);
    assert_eq!(map.live().len(), 1);
    map
}

fn program(map: &ModuleMap) -> &Arc<Module> {
    &map.live()[0]
}

fn caller(address: u64) -> Frame {
    Frame { module: Some(ModuleId(0)), kind: FrameKind::ReturnAddress, address }
}

fn symbolizer(workshop: &Workshop) -> Symbolizer {
    let debug_directories = vec![workshop.debug_directory()];
    Symbolizer::new(SymbolOptions { debug_directories, ..SymbolOptions::default() })
}

/// The name of the function that was called, whatever is inlined into it.
fn name(symbolizer: &mut Symbolizer, frame: &Frame, modules: &ModuleTable) -> String {
    symbolizer.name(frame, modules).functions.last().map(|function| function.name.clone()).unwrap_or_default()
}

/// A program, the same stripped, and the debug file, which is linked but not in its place.
fn stripped(workshop: &Workshop) -> u64 {
    workshop.sh("gcc -O2 -g -Wl,--build-id=sha1 -o plain inlines.c");
    workshop.sh("strip -o program plain");
    workshop.sh("objcopy --only-keep-debug plain plain.debug");
    workshop.symbol("plain", "keep")
}

#[test]
fn a_frame_is_named_once() {
    let workshop = Workshop::new();
    workshop.sh("gcc -O2 -g -o program inlines.c");
    let keep = workshop.symbol("program", "keep");
    let map = mapped(&workshop.path("program"), Path::new("/opt/program"));
    let mut symbolizer = symbolizer(&workshop);
    let frame = caller(keep + 1);

    let before = symbolizer.name_if_known(&frame, map.table());
    assert_eq!((before.address, before.offset, before.module.as_str()), (BASE + keep + 1, keep + 1, "/opt/program"));
    assert_eq!(before.functions, []);

    let named = symbolizer.name(&frame, map.table());
    assert_eq!((named.address, named.offset, named.module.as_str()), (BASE + keep + 1, keep + 1, "/opt/program"));
    let keep = named.functions.last().expect("a function");
    assert_eq!((keep.name.as_str(), keep.offset, keep.inlined), ("keep", Some(1), false));
    assert!(Arc::ptr_eq(&named, &symbolizer.name(&frame, map.table())));
    assert!(Arc::ptr_eq(&named, &symbolizer.name_if_known(&frame, map.table())));
    assert_eq!(symbolizer.gaps().count(), 0);
}

#[test]
fn code_in_no_module_has_its_address() {
    let workshop = Workshop::new();
    let frame = Frame { module: None, kind: FrameKind::ReturnAddress, address: 0x7f00_1234 };
    let named = symbolizer(&workshop).name(&frame, &ModuleTable::default());
    assert_eq!((named.address, named.module.as_str(), named.functions.len()), (0x7f00_1234, "", 0));
}

#[test]
fn what_is_missing_is_told_for_the_modules_that_were_named() {
    let workshop = Workshop::new();
    let keep = stripped(&workshop);
    let map = mapped(&workshop.path("program"), Path::new("/opt/program"));
    let mut symbolizer = symbolizer(&workshop);
    assert_eq!(symbolizer.gaps().count(), 0);
    symbolizer.name(&caller(keep + 1), map.table());
    let gaps: Vec<_> = symbolizer.gaps().collect();
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].module, "/opt/program");
    assert!(gaps[0].text.starts_with("no symbols and no debug information (build id "), "{}", gaps[0].text);
}

#[test]
fn the_users_debug_file_is_used() {
    let workshop = Workshop::new();
    let keep = stripped(&workshop);
    let map = mapped(&workshop.path("program"), Path::new("/opt/program"));
    let debug_file = DebugFile::check(program(&map), &workshop.path("plain.debug")).expect("it belongs");
    let mut symbolizer = Symbolizer::new(SymbolOptions { debug_file: Some(debug_file), ..SymbolOptions::default() });
    assert_eq!(name(&mut symbolizer, &caller(keep + 1), map.table()), "keep");

    let finder = DebugFileFinder::new(Some(workshop.path("plain.debug")), None);
    let found = finder.find(program(&map)).expect("usable").expect("found");
    assert_eq!(found.bytes(), &workshop.open("plain.debug")[..]);
}

#[test]
fn another_builds_debug_file_is_refused_with_both_ids() {
    let workshop = Workshop::new();
    stripped(&workshop);
    workshop.sh("gcc -O1 -g -Wl,--build-id=sha1 -o other inlines.c");
    let map = mapped(&workshop.path("program"), Path::new("/opt/program"));
    let refused = |name: &str| {
        let error = DebugFile::check(program(&map), &workshop.path(name)).expect_err("it does not belong");
        error.to_string().replace(&workshop.path("").display().to_string(), "")
    };
    let id = |name: &str| workshop.build_id_path(name)[".build-id/".len()..].replace(".debug", "").replace('/', "");
    assert_eq!(
        refused("other"),
        format!(
            "cannot use other as debug file of /opt/program: its build id is {}, that of the program is {}; give the file \
             of the same build",
            id("other"),
            id("program")
        )
    );
    assert!(refused("program").contains("neither debug information nor symbols"));
    assert!(refused("inlines.c").contains("no 64-bit little-endian ELF file"));
    assert!(refused("nothing").contains("No such file"));
}

#[test]
fn without_a_build_id_the_checksum_counts() {
    let workshop = Workshop::new();
    workshop.sh("gcc -O2 -g -Wl,--build-id=none -o plain inlines.c");
    workshop.sh("eu-strip -f plain.debug -o program plain");
    let map = mapped(&workshop.path("program"), Path::new("/opt/program"));
    assert!(DebugFile::check(program(&map), &workshop.path("plain.debug")).is_ok());
    let error = DebugFile::check(program(&map), &workshop.path("plain")).expect_err("another file");
    assert!(error.to_string().contains("its CRC-32 is 0x"), "{error}");
}

#[test]
fn a_containers_debug_files_are_found_below_its_root() {
    let workshop = Workshop::new();
    let keep = stripped(&workshop);
    // The way there leads over an absolute link, which means another file outside.
    let build_id = workshop.build_id_path("program");
    workshop.sh("mkdir -p root/usr/lib root/elsewhere");
    std::os::unix::fs::symlink("/elsewhere", workshop.path("root/usr/lib/debug")).expect("linked");
    let place: PathBuf = workshop.path("root/elsewhere").join(build_id);
    std::fs::create_dir_all(place.parent().expect("a directory")).expect("created");
    std::fs::rename(workshop.path("plain.debug"), place).expect("moved");

    let map = mapped(&workshop.path("program"), Path::new("/opt/program"));
    let target_root = Some(RootDirectory::at(&workshop.path("root")).expect("opened"));
    let mut symbolizer = Symbolizer::new(SymbolOptions { target_root, ..SymbolOptions::default() });
    assert_eq!(name(&mut symbolizer, &caller(keep + 1), map.table()), "keep");
}

#[test]
fn the_symbolizer_may_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Symbolizer>();
    is_send::<DebugFileFinder>();
}
