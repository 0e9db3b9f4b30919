use super::*;
use crate::placement::PAGE;

/// As `procstat vm` shows a program of FreeBSD 14, packed as the kernel packs it. Constructed by `sys/user.h`, not recorded.
fn fixture() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |kind: c_int, flags, protection, range: [u64; 2], offset: u64, file: [u64; 2], path: &str| {
        let mut record = vec![0; vmentry::PATH];
        record.extend(path.as_bytes());
        record.resize((record.len() + 1).next_multiple_of(8), 0);
        let size = c_int::try_from(record.len()).expect("a short path");
        for (at, value) in [
            (vmentry::STRUCTSIZE, size),
            (vmentry::TYPE, kind),
            (vmentry::FLAGS, flags),
            (vmentry::PROTECTION, protection),
        ] {
            record[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        for (at, value) in [
            (vmentry::START, range[0]),
            (vmentry::END, range[1]),
            (vmentry::OFFSET, offset),
            (vmentry::VN_FSID, file[0]),
            (vmentry::VN_FILEID, file[1]),
        ] {
            record[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        bytes.extend(record);
    };
    let (read, write, execute) = (abi::KVME_PROT_READ, abi::KVME_PROT_WRITE, abi::KVME_PROT_EXEC);
    let vnode = abi::KVME_TYPE_VNODE;
    const SWAP: c_int = 3;
    add(vnode, abi::KVME_FLAG_COW, read | execute, [0x20_3000, 0x20_5000], 0x1000, [0x5d, 7], "/home/me/a program");
    add(SWAP, abi::KVME_FLAG_COW, read | write, [0x20_5000, 0x20_6000], 0x4000, [0, 0], "");
    add(vnode, 0, read | write, [0x8_0000_0000, 0x8_0000_1000], 0, [0x5d, 8], "/var/db/shared");
    add(vnode, abi::KVME_FLAG_COW, read | execute, [0x8_0100_0000, 0x8_0110_0000], 0, [0x5d, 9], "");
    add(abi::KVME_TYPE_GUARD, 0, 0, [0x7fff_dfff_e000, 0x7fff_ffff_d000], 0, [0, 0], "");
    add(SWAP, abi::KVME_FLAG_GROWS_DOWN, read | write, [0x7fff_ffff_d000, 0x7fff_ffff_f000], 0, [0, 0], "");
    bytes
}

#[test]
fn packed_records_are_parsed() {
    let mappings = parse_mappings(&fixture());
    let expected = Mapping {
        start: 0x20_3000,
        end: 0x20_5000,
        offset: 0x1000,
        readable: true,
        writable: false,
        executable: true,
        shared: false,
        file_id: (0x5d, 7),
        path: "/home/me/a program".into(),
        deleted: false,
    };
    assert_eq!(mappings[0], expected);
    let [_, data, shared, unlinked, guard, stack] = &mappings[..] else { panic!("{} mappings", mappings.len()) };
    assert_eq!((data.offset, data.file_id, data.shared, data.deleted), (0, (0, 0), false, false));
    assert!(shared.shared && shared.writable);
    assert!(unlinked.deleted && unlinked.file_id == (0x5d, 9));
    assert!(!guard.readable && !guard.writable && !guard.executable);
    assert_eq!(stack.path.as_os_str(), "[stack]");
    assert!(mappings.is_sorted_by_key(|mapping| mapping.start));
}

#[test]
fn nonsense_is_no_mapping() {
    let fixture = fixture();
    assert_eq!(parse_mappings(&[]), []);
    assert_eq!(parse_mappings(&fixture[..100]), []);
    // A record that says it is longer than what there is, and one that says it is empty.
    assert_eq!(parse_mappings(&fixture[..fixture.len() - 1]).len(), 5);
    assert_eq!(parse_mappings(&[0; 2000]), []);
}

/// The place for code keeps clear of the guard below the stack, which is a mapping like any other.
#[test]
fn a_place_for_code_is_found_among_them() {
    let mappings = parse_mappings(&fixture());
    let place = crate::placement::choose_place(&mappings, 0x20_3000, 0x1_0000, 16 * PAGE).expect("a place");
    assert_eq!(place, 0x20_3000 - 0x1_0000);
}

#[test]
fn the_auxiliary_vector_is_parsed() {
    let pairs = [(3u64, 0x20_0040u64), (7, 0x8_0000_0000), (9, 0x20_3120), (34, 0x7fff_ffff_f000), (0, 0), (1, 1)];
    let bytes: Vec<u8> =
        pairs.iter().flat_map(|(kind, value)| [kind.to_ne_bytes(), value.to_ne_bytes()].concat()).collect();
    let expected = AuxiliaryVector {
        program_headers: 0x20_0040,
        entry: 0x20_3120,
        interpreter_base: 0x8_0000_0000,
        vdso: 0x7fff_ffff_f000,
    };
    assert_eq!(parse_auxiliary_vector(&bytes), expected);
    assert_eq!(parse_auxiliary_vector(&bytes[..20]).entry, 0);
}

#[test]
fn the_state_of_a_process_is_parsed() {
    let mut bytes = vec![0; process::SIZE];
    bytes[process::STRUCTSIZE..][..4].copy_from_slice(&(process::SIZE as c_int).to_ne_bytes());
    bytes[process::PPID..][..4].copy_from_slice(&42i32.to_ne_bytes());
    bytes[process::FLAG..][..8].copy_from_slice(&(abi::P_TRACED | abi::P_SUGID).to_ne_bytes());
    bytes[process::STAT] = 4;
    bytes[process::SIGLIST + 2] = 4;
    bytes[process::COMM..][..6].copy_from_slice(b"sleep\0");
    bytes[process::NUMTHREADS..][..4].copy_from_slice(&3i32.to_ne_bytes());
    let info = ProcessInfo::parse(&bytes).expect("whole");
    assert_eq!((info.parent, info.stat, &*info.name, info.threads), (Pid(42), abi::SSTOP, "sleep", 3));
    assert_eq!(info.flags, abi::P_TRACED | abi::P_SUGID);
    assert!(info.pending.contains(abi::SIGCONT) && !info.pending.contains(abi::SIGSTOP));
    assert_eq!(ProcessInfo::parse(&bytes[..1000]), None);
    assert_eq!(ProcessInfo::parse(&[]), None);
}
