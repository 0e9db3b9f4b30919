//! The module map on made-up mappings: what loaders do, and what else programs do with ELF files.

use std::io::Write;

use super::*;

/// `p_offset`, `p_vaddr`, `p_filesz`, `p_memsz`, executable.
type Header = (u64, u64, u64, u64, bool);

const EXECUTABLE: u16 = 2;
const SHARED: u16 = 3;

/// As today's linkers lay a library out: `-z separate-code`.
const LIBRARY: &[Header] = &[
    (0, 0, 0x500, 0x500, false),
    (0x1000, 0x1000, 0x1800, 0x1800, true),
    (0x3000, 0x3000, 0x400, 0x400, false),
    (0x3e00, 0x4e00, 0x300, 0x800, false),
];

fn elf(kind: u16, entry: u64, headers: &[Header]) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    bytes.resize(16, 0);
    bytes.extend(kind.to_le_bytes());
    bytes.extend(62u16.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend([entry, 64, 0].map(u64::to_le_bytes).concat());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend([64, 56, u16::try_from(headers.len()).unwrap(), 64, 0, 0].map(u16::to_le_bytes).concat());
    for &(offset, address, file_size, memory_size, executable) in headers {
        bytes.extend(1u32.to_le_bytes());
        bytes.extend((4 | u32::from(executable)).to_le_bytes());
        bytes.extend([offset, address, address, file_size, memory_size, 0x1000].map(u64::to_le_bytes).concat());
    }
    let end = headers.iter().map(|header| header.0 + header.2).max().unwrap_or(0);
    // Every byte tells its offset.
    for at in bytes.len()..usize::try_from(end).unwrap() {
        bytes.push((at / 256) as u8);
    }
    bytes
}

/// `path`, inode, start, end, offset, permissions.
fn mapping(path: &str, inode: u64, start: u64, end: u64, offset: u64, permissions: &str) -> Mapping {
    Mapping {
        start,
        end,
        offset,
        readable: permissions.contains('r'),
        writable: permissions.contains('w'),
        executable: permissions.contains('x'),
        shared: false,
        file_id: if inode == 0 { (0, 0) } else { (1, inode) },
        path: path.into(),
        deleted: false,
    }
}

/// The mappings of [`LIBRARY`].
fn library(path: &str, inode: u64, base: u64) -> Vec<Mapping> {
    vec![
        mapping(path, inode, base, base + 0x1000, 0, "r"),
        mapping(path, inode, base + 0x1000, base + 0x3000, 0x1000, "rx"),
        mapping(path, inode, base + 0x3000, base + 0x4000, 0x3000, "r"),
        mapping(path, inode, base + 0x4000, base + 0x5000, 0x3000, "rw"),
        mapping("", 0, base + 0x5000, base + 0x6000, 0, "rw"),
    ]
}

/// A target: files by path, and how often they were opened.
#[derive(Default)]
struct Target {
    files: BTreeMap<&'static str, Vec<u8>>,
    opened: usize,
    auxiliary: AuxiliaryVector,
    memory: Vec<(u64, Vec<u8>)>,
    map: ModuleMap,
}

impl Target {
    fn with(path: &'static str, bytes: Vec<u8>) -> Self {
        Target { files: BTreeMap::from([(path, bytes)]), ..Target::default() }
    }

    fn refresh(&mut self, mappings: &[Mapping]) -> Changes {
        let mut open = |mapping: &Mapping| {
            let bytes = self.files.get(mapping.path.to_str().unwrap()).ok_or(io::ErrorKind::NotFound)?;
            self.opened += 1;
            let mut file = tempfile::tempfile()?;
            file.write_all(bytes)?;
            MappedFile::new(&file)
        };
        let mut read = |address: u64, buffer: &mut [u8]| {
            let piece =
                self.memory.iter().find_map(|(start, bytes)| bytes.get((address.checked_sub(*start)? as usize)..));
            let length = piece.map_or(0, |piece| piece.len().min(buffer.len()));
            buffer[..length].copy_from_slice(&piece.unwrap_or_default()[..length]);
            length
        };
        self.map.refresh(mappings, &self.auxiliary, &mut open, &mut read)
    }

    /// The module at an address: path and file address.
    fn at(&self, address: u64) -> Option<(String, u64)> {
        self.map.lookup(address).map(|(module, address)| (module.path.display().to_string(), address))
    }
}

fn at(path: &str, address: u64) -> Option<(String, u64)> {
    Some((path.to_owned(), address))
}

#[test]
fn a_library_counts_from_its_load_bias() {
    let mut target = Target::with("/lib/a", elf(SHARED, 0, LIBRARY));
    let changes = target.refresh(&library("/lib/a", 7, 0x7000_0000));
    assert_eq!((changes.added.len(), changes.removed.len()), (1, 0));
    let module = &changes.added[0];
    assert_eq!(
        (module.bias, module.range.clone(), module.role),
        (0x7000_0000, 0x7000_0000..0x7000_5600, Role::Library)
    );
    assert_eq!(target.at(0x7000_1234), at("/lib/a", 0x1234));
    assert_eq!(target.at(0x7000_4e00), at("/lib/a", 0x4e00));
    assert_eq!(target.at(0x6fff_ffff), None);
    assert_eq!(target.at(0x7000_6000), None);
    assert!(target.map.is_code(0x7000_1000) && target.map.is_code(0x7000_2fff));
    assert!(!target.map.is_code(0x7000_0fff) && !target.map.is_code(0x7000_3000));
}

#[test]
fn original_bytes_are_those_of_the_file() {
    let mut target = Target::with("/lib/a", elf(SHARED, 0, LIBRARY));
    target.refresh(&library("/lib/a", 7, 0x7000_0000));
    let (module, _) = target.map.lookup(0x7000_1200).unwrap();
    let mut bytes = [0; 2];
    assert!(module.original_bytes(0x7000_1200, &mut bytes));
    assert_eq!(bytes, [0x12, 0x12]);
    assert!(module.original_bytes(0x7000_4f00, &mut bytes), "data counts from its own offset");
    assert_eq!(bytes, [0x3f, 0x3f]);
    assert!(!module.original_bytes(0x7000_27ff, &mut bytes), "beyond the segment's end");
    assert!(!module.original_bytes(0x7000_5200, &mut bytes), "zeroes that no file holds");
}

#[test]
fn a_program_linked_to_an_address_has_no_bias() {
    let headers: &[Header] = &[(0, 0x40_0000, 0x500, 0x500, false), (0x1000, 0x40_1000, 0x800, 0x800, true)];
    let mut target = Target::with("/bin/a", elf(EXECUTABLE, 0x40_1000, headers));
    target.auxiliary.entry = 0x40_1000;
    target.refresh(&[
        mapping("/bin/a", 7, 0x40_0000, 0x40_1000, 0, "r"),
        mapping("/bin/a", 7, 0x40_1000, 0x40_2000, 0x1000, "rx"),
    ]);
    assert_eq!(target.at(0x40_1010), at("/bin/a", 0x40_1010));
    assert_eq!(target.map.with_role(Role::Executable).map(|module| module.bias), Some(0));
}

#[test]
fn a_prelinked_library_may_be_elsewhere() {
    let headers: &[Header] = &[(0, 0x3000_0000, 0x1800, 0x1800, true), (0x1e00, 0x3000_2e00, 0x100, 0x100, false)];
    let mut target = Target::with("/lib/a", elf(SHARED, 0, headers));
    target.refresh(&[
        mapping("/lib/a", 7, 0x5000_0000, 0x5000_2000, 0, "rx"),
        mapping("/lib/a", 7, 0x5000_2000, 0x5000_3000, 0x1000, "rw"),
    ]);
    assert_eq!(target.at(0x5000_0100), at("/lib/a", 0x3000_0100));
    assert_eq!(target.map.live().len(), 1, "the page that both segments share makes no second module");
}

#[test]
fn text_split_into_several_mappings_is_one_module() {
    let headers: &[Header] = &[(0, 0, 0x500, 0x500, false), (0x1000, 0x1000, 0x60_0000, 0x60_0000, true)];
    let mut target = Target::with("/lib/a", elf(SHARED, 0, headers));
    let base = 0x7000_0000;
    target.refresh(&[
        mapping("/lib/a", 7, base, base + 0x1000, 0, "r"),
        mapping("/lib/a", 7, base + 0x1000, base + 0x20_0000, 0x1000, "rx"),
        mapping("/lib/a", 7, base + 0x20_0000, base + 0x40_0000, 0x20_0000, "rwx"),
        mapping("/lib/a", 7, base + 0x40_0000, base + 0x60_1000, 0x40_0000, "rx"),
    ]);
    assert_eq!(target.map.live().len(), 1);
    assert_eq!(target.at(base + 0x50_0000), at("/lib/a", 0x50_0000));
}

#[test]
fn text_moved_to_anonymous_memory_is_still_its_modules() {
    let mut target = Target::with("/lib/a", elf(SHARED, 0, LIBRARY));
    let mut mappings = library("/lib/a", 7, 0x7000_0000);
    mappings[1] = mapping("", 0, 0x7000_1000, 0x7000_3000, 0, "rx");
    target.refresh(&mappings);
    assert_eq!(target.at(0x7000_1234), at("/lib/a", 0x1234));
}

#[test]
fn a_file_mapped_as_data_is_no_module() {
    let mut target = Target::with("/lib/a", elf(SHARED, 0, LIBRARY));
    target.refresh(&[mapping("/lib/a", 7, 0x7000_0000, 0x7000_5000, 0, "r")]);
    assert!(target.map.live().is_empty());
    assert_eq!(target.opened, 0);

    let mut mappings = vec![mapping("/lib/a", 7, 0x1000_0000, 0x1000_5000, 0, "r")];
    mappings.extend(library("/lib/a", 7, 0x7000_0000));
    target.refresh(&mappings);
    let live: Vec<u64> = target.map.live().iter().map(|module| module.bias).collect();
    assert_eq!(live, [0x7000_0000]);
    assert_eq!(target.at(0x1000_1234), None);
}

#[test]
fn two_copies_of_a_library_are_two_modules() {
    let mut target = Target::with("/lib/a", elf(SHARED, 0, LIBRARY));
    let mut mappings = library("/lib/a", 7, 0x6000_0000);
    mappings.extend(library("/lib/a", 7, 0x7000_0000));
    let changes = target.refresh(&mappings);
    assert_eq!(changes.added.len(), 2);
    assert_eq!(target.opened, 1);
    assert_eq!((target.at(0x6000_1000), target.at(0x7000_1000)), (at("/lib/a", 0x1000), at("/lib/a", 0x1000)));
}

/// With a build id, as `ld --build-id` makes it.
fn with_build_id(id: u8) -> Vec<u8> {
    const NOTE: Header = (0x300, 0x300, 36, 36, false);
    let mut bytes = elf(SHARED, 0, &[LIBRARY, &[NOTE]].concat());
    // PT_NOTE, aligned to 4; then an Elf64_Nhdr of NT_GNU_BUILD_ID, its name, and the id.
    let header = 64 + 56 * LIBRARY.len();
    bytes[header..header + 4].copy_from_slice(&4u32.to_le_bytes());
    bytes[header + 48..header + 56].copy_from_slice(&4u64.to_le_bytes());
    let note = [[4u32, 20, 3].map(u32::to_le_bytes).concat(), b"GNU\0".to_vec(), vec![id; 20]].concat();
    bytes[0x300..0x324].copy_from_slice(&note);
    bytes
}

/// The images that are kept of all modules ever seen.
fn images(target: &Target) -> usize {
    let place = |module: &Arc<Module>| module.image.as_ref().map(|image| image.bytes().as_ptr());
    let mut places: Vec<_> = target.map.table().iter().filter_map(place).collect();
    places.sort_unstable();
    places.dedup();
    places.len()
}

#[test]
fn a_library_loaded_at_a_thousand_places_is_mapped_once() {
    let mut target = Target::with("/lib/a", with_build_id(1));
    for round in 1..=1000 {
        assert_eq!(target.refresh(&library("/lib/a", 7, 0x6000_0000 + round * 0x1_0000)).added.len(), 1);
        assert_eq!(target.refresh(&[]).removed.len(), 1);
    }
    assert_eq!((target.map.table().len(), images(&target)), (1000, 1));
    for _ in 0..1000 {
        target.refresh(&library("/lib/a", 7, 0x6000_0000));
        target.refresh(&[]);
    }
    assert_eq!((target.map.table().len(), images(&target)), (1001, 1), "at the same place it is the same module");
    target.files.insert("/lib/a", with_build_id(2));
    target.refresh(&library("/lib/a", 7, 0x5000_0000));
    assert_eq!(images(&target), 2, "another build");
}

#[test]
fn code_of_other_files_is_no_module() {
    let mut target = Target::with("/tmp/jit", b"MZ not ELF".to_vec());
    let code = mapping("/tmp/jit", 7, 0x7000_0000, 0x7000_1000, 0, "rwx");
    target.refresh(&[code, mapping("", 0, 0x7100_0000, 0x7100_1000, 0, "rwx")]);
    assert!(target.map.live().is_empty());
    assert!(target.map.is_code(0x7000_0800) && target.map.is_code(0x7100_0800));
}

#[test]
fn a_device_is_not_opened() {
    let mut target = Target::with("/dev/zero", Vec::new());
    target.refresh(&[mapping("/dev/zero", 7, 0x7000_0000, 0x7000_1000, 0, "rx")]);
    assert_eq!((target.opened, target.map.live().len()), (0, 0));
}

#[test]
fn a_file_that_cannot_be_opened_is_read_from_memory() {
    let bytes = elf(SHARED, 0, LIBRARY);
    let base = 0x7000_0000;
    let mut target = Target { memory: vec![(base, bytes[..0x3400].to_vec())], ..Target::default() };
    target.refresh(&library("/lib/gone", 7, base));
    let (module, address) = target.map.lookup(base + 0x1234).unwrap();
    assert_eq!(address, 0x1234);
    assert_eq!(module.image_bytes(0x1234, 1), Some(&[0x12][..]));
    assert!(module.image_error.as_ref().unwrap().contains("cannot open /lib/gone"));
    assert!(!module.original_bytes(base + 0x1234, &mut [0]), "memory may hold breakpoints");
}

#[test]
fn modules_keep_their_ids() {
    let mut target = Target::with("/lib/a", elf(SHARED, 0, LIBRARY));
    let (here, there) = (library("/lib/a", 7, 0x6000_0000), library("/lib/a", 7, 0x7000_0000));
    let first = target.refresh(&here).added[0].id;
    let again = target.refresh(&here);
    assert!(again.added.is_empty() && again.removed.is_empty());
    assert_eq!(target.opened, 1);

    let closed = target.refresh(&[]);
    assert_eq!(closed.removed.iter().map(|module| module.id).collect::<Vec<_>>(), [first]);
    assert_eq!(target.at(0x6000_1000), None);
    let second = target.refresh(&there).added[0].id;
    assert_ne!(second, first, "elsewhere it is another module");
    let changes = target.refresh(&here);
    assert_eq!((changes.added[0].id, changes.removed[0].id), (first, second));
    assert_eq!(target.map.table().get(second).bias, 0x7000_0000, "the table forgets nothing");
}

#[test]
fn another_file_at_the_same_place_is_another_module() {
    let mut target = Target::with("/lib/a", elf(SHARED, 0, LIBRARY));
    let first = target.refresh(&library("/lib/a", 7, 0x6000_0000)).added[0].id;
    let changes = target.refresh(&library("/lib/a", 8, 0x6000_0000));
    assert_ne!(changes.added[0].id, first);
    assert_eq!(changes.removed[0].id, first);
}

#[test]
fn roles_follow_from_the_auxiliary_vector() {
    let mut target = Target::with("/bin/a", elf(SHARED, 0x1000, LIBRARY));
    target.files.insert("/lib/ld", elf(SHARED, 0x1000, LIBRARY));
    target.auxiliary = AuxiliaryVector {
        program_headers: 0x5000_0040,
        entry: 0x5000_1000,
        interpreter_base: 0x7000_0000,
        vdso: 0x7fff_0000,
    };
    let vdso = elf(SHARED, 0, &[(0, 0, 0x800, 0x800, true)]);
    target.memory = vec![(0x7fff_0000, vdso)];
    let mut mappings = library("/bin/a", 7, 0x5000_0000);
    mappings.extend(library("/lib/ld", 8, 0x7000_0000));
    mappings.push(mapping("[vdso]", 0, 0x7fff_0000, 0x7fff_1000, 0, "rx"));
    target.refresh(&mappings);
    let roles: Vec<Role> = target.map.live().iter().map(|module| module.role).collect();
    assert_eq!(roles, [Role::Executable, Role::Interpreter, Role::Vdso]);
    assert_eq!(target.at(0x7fff_0123), at("[vdso]", 0x123));
    assert!(target.refresh(&mappings).added.is_empty());
}

/// As on FreeBSD: amid a mapping without a name.
#[test]
fn a_vdso_may_begin_within_its_mapping() {
    let mut target = Target {
        auxiliary: AuxiliaryVector { vdso: 0x7fff_0640, ..AuxiliaryVector::default() },
        memory: vec![(0x7fff_0640, elf(SHARED, 0, &[(0, 0, 0x300, 0x300, true)]))],
        ..Target::default()
    };
    let mappings = [mapping("", 0, 0x7fff_0000, 0x7fff_1000, 0, "rx")];
    target.refresh(&mappings);
    assert_eq!(target.at(0x7fff_0650), at("[vdso]", 0x10));
    assert!(target.refresh(&mappings).added.is_empty());
}

proptest::proptest! {
    /// Nothing that a file or a list of mappings says may end memleax.
    #[test]
    fn any_headers_are_survived(
        headers in proptest::collection::vec(proptest::prelude::any::<Header>(), 0..4),
        places in proptest::collection::vec(proptest::prelude::any::<(u64, u64, u64)>(), 1..4),
        entry in proptest::prelude::any::<u64>(),
    ) {
        // Some that a loader could map, at any address; and some that lie.
        let small = |&(offset, address, size, memory, executable): &Header| {
            let offset = offset % 0x4000;
            let near_the_end = if address % 3 == 0 { !0xffff } else { 0 };
            (offset, address & !0xfff | near_the_end | offset & 0xfff, size % 0x4000, memory, executable)
        };
        let mut bytes = elf(SHARED, entry, &headers.iter().map(small).collect::<Vec<_>>());
        if let [.., (offset, _, size, ..)] = headers[..] && entry % 2 == 0 {
            let at = 64 + 56 * (headers.len() - 1);
            bytes[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
            bytes[at + 32..at + 40].copy_from_slice(&size.to_le_bytes());
        }
        let mut target = Target::with("/lib/a", bytes);
        let mappings: Vec<Mapping> = places
            .iter()
            .map(|&(start, length, offset)| {
                mapping("/lib/a", 7, start & !0xfff, start.saturating_add(length), (offset % 0x4000) & !0xfff, "rx")
            })
            .collect();
        target.refresh(&mappings);
        for module in target.map.live() {
            let _ = module.original_bytes(module.range.start, &mut [0; 8]);
            let _ = module.image_bytes_from(entry);
        }
        for &(start, ..) in &places {
            let _ = target.map.lookup(start);
        }
    }
}
