//! BPF hash maps, read many elements a system call.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Commands of `bpf(2)` (include/uapi/linux/bpf.h): `BPF_OBJ_GET_INFO_BY_FD` (Linux 4.13), `BPF_MAP_LOOKUP_BATCH` (5.6).
const GET_INFO: libc::c_int = 15;
const LOOKUP_BATCH: libc::c_int = 24;

/// Elements a call, if no bucket of the map holds more.
const BATCH: usize = 4096;

/// `union bpf_attr` of [`LOOKUP_BATCH`].
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// `union bpf_attr` of [`GET_INFO`].
#[repr(C)]
struct Info {
    object: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

fn command<Attributes>(command: libc::c_int, attributes: &mut Attributes) -> io::Result<()> {
    // SAFETY: the attributes are those of the command, and what they point to lives; both callers see to it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sizes of keys and values.
fn sizes(map: BorrowedFd<'_>) -> io::Result<(usize, usize)> {
    let mut info = MapInfo::default();
    let length = size_of::<MapInfo>() as u32;
    let mut attributes = Info { object: map.as_raw_fd().cast_unsigned(), length, info: &raw mut info as u64 };
    command(GET_INFO, &mut attributes)?;
    Ok((info.key_size as usize, info.value_size as usize))
}

/// Hands `take` every element of a hash map whose keys are a word and whose values are `WORDS` words. An element that is there all the
/// while is seen once.
///
/// Not by libbpf's iterators: the kernel returns less than was asked for when the next bucket does not fit, which is not the end.
///
/// # Errors
/// Those of `bpf(2)`; `EINVAL` if the map is not of such keys and values.
pub fn read_hash_map<const WORDS: usize>(
    map: BorrowedFd<'_>,
    mut take: impl FnMut(u64, [u64; WORDS]),
) -> io::Result<()> {
    if sizes(map)? != (size_of::<u64>(), size_of::<[u64; WORDS]>()) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // The kernel's own (a u32 for hash maps).
    let mut position: Option<u32> = None;
    let mut keys = vec![0u64; BATCH];
    let mut values = vec![[0u64; WORDS]; BATCH];
    loop {
        let mut next = 0u32;
        let mut attributes = Batch {
            in_batch: position.as_ref().map_or(0, |position| &raw const *position as u64),
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
            map: map.as_raw_fd().cast_unsigned(),
            element_flags: 0,
            flags: 0,
        };
        // Keys and values have room for `count` elements of the map's sizes.
        let is_last = match command(LOOKUP_BATCH, &mut attributes) {
            Ok(()) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                Some(libc::EINTR) => continue,
                Some(libc::ENOSPC) => {
                    keys.resize(2 * keys.len(), 0);
                    values.resize(keys.len(), [0; WORDS]);
                    continue;
                }
                _ => return Err(error),
            },
        };
        let count = (attributes.count as usize).min(keys.len());
        keys.iter().zip(&values).take(count).for_each(|(key, value)| take(*key, *value));
        if is_last {
            return Ok(());
        }
        position = Some(next);
    }
}
