//! The functions, in order of preference: where several are at one address, the first names it.

use super::Size::{self, Argument, Product};
use super::{Class, Family, Function, Shape};

const fn allocate(size: Size) -> Shape {
    Shape::Allocate { size }
}

const fn allocate_into(out: u8, size: Size) -> Shape {
    Shape::AllocateInto { out, size, always: false }
}

const fn reallocate(block: u8, size: Size) -> Shape {
    Shape::Reallocate { block, size, frees_on_failure: false }
}

const fn reallocate_or_free(block: u8, size: Size) -> Shape {
    Shape::Reallocate { block, size, frees_on_failure: true }
}

const fn expand(block: u8, size: Size) -> Shape {
    Shape::Expand { block, size }
}

const fn expand_to_size(block: u8, size: Size) -> Shape {
    Shape::ExpandToSize { block, size }
}

const fn free(block: u8) -> Shape {
    Shape::Free { block }
}

const fn c(name: &'static str, shape: Shape) -> Function {
    Function { name, shape, family: Family::C, class: Class::MEMORY }
}

const fn cxx(name: &'static str, shape: Shape) -> Function {
    Function { name, shape, family: Family::Cxx, class: Class::MEMORY }
}

const fn own(name: &'static str, shape: Shape) -> Function {
    Function { name, shape, family: Family::Own, class: Class::MEMORY }
}

/// Every function that hands out, resizes or takes back blocks of memory.
pub static FUNCTIONS: &[Function] = &[
    // The C library's own names: ISO C (7.24.3), POSIX, BSD, glibc, musl. Whatever replaces them uses these, too.
    c("malloc", allocate(Argument(0))),
    c("calloc", allocate(Product(0, 1))),
    c("realloc", reallocate(0, Argument(1))),
    c("free", free(0)),
    c("cfree", free(0)),
    c("reallocarray", reallocate(0, Product(1, 2))),
    c("reallocf", reallocate_or_free(0, Argument(1))),
    c("recallocarray", reallocate(0, Product(2, 3))),
    c("posix_memalign", allocate_into(0, Argument(2))),
    c("aligned_alloc", allocate(Argument(1))),
    c("memalign", allocate(Argument(1))),
    c("valloc", allocate(Argument(0))),
    c("pvalloc", allocate(Argument(0))),
    c("free_sized", free(0)),
    c("free_aligned_sized", free(0)),
    c("freezero", free(0)),
    c("vfree", free(0)),
    // C++ (Itanium C++ ABI, 5.1.5): operator new and new[], then delete and delete[].
    cxx("_Znwm", allocate(Argument(0))),
    cxx("_ZnwmRKSt9nothrow_t", allocate(Argument(0))),
    cxx("_ZnwmSt11align_val_t", allocate(Argument(0))),
    cxx("_ZnwmSt11align_val_tRKSt9nothrow_t", allocate(Argument(0))),
    cxx("_Znam", allocate(Argument(0))),
    cxx("_ZnamRKSt9nothrow_t", allocate(Argument(0))),
    cxx("_ZnamSt11align_val_t", allocate(Argument(0))),
    cxx("_ZnamSt11align_val_tRKSt9nothrow_t", allocate(Argument(0))),
    cxx("_ZdlPv", free(0)),
    cxx("_ZdlPvRKSt9nothrow_t", free(0)),
    cxx("_ZdlPvm", free(0)),
    cxx("_ZdlPvSt11align_val_t", free(0)),
    cxx("_ZdlPvmSt11align_val_t", free(0)),
    cxx("_ZdlPvSt11align_val_tRKSt9nothrow_t", free(0)),
    cxx("_ZdaPv", free(0)),
    cxx("_ZdaPvRKSt9nothrow_t", free(0)),
    cxx("_ZdaPvm", free(0)),
    cxx("_ZdaPvSt11align_val_t", free(0)),
    cxx("_ZdaPvmSt11align_val_t", free(0)),
    cxx("_ZdaPvSt11align_val_tRKSt9nothrow_t", free(0)),
    // Second names of the C library's functions.
    own("__libc_malloc", allocate(Argument(0))),
    own("__libc_calloc", allocate(Product(0, 1))),
    own("__libc_realloc", reallocate(0, Argument(1))),
    own("__libc_free", free(0)),
    own("__libc_cfree", free(0)),
    own("__libc_reallocarray", reallocate(0, Product(1, 2))),
    own("__libc_memalign", allocate(Argument(1))),
    own("__libc_valloc", allocate(Argument(0))),
    own("__libc_pvalloc", allocate(Argument(0))),
    own("__posix_memalign", allocate_into(0, Argument(2))),
    // Those of FreeBSD's, of which the plain names are weak aliases. Elsewhere they may be anything.
    c("__malloc", allocate(Argument(0))),
    c("__calloc", allocate(Product(0, 1))),
    c("__realloc", reallocate(0, Argument(1))),
    c("__free", free(0)),
    c("__aligned_alloc", allocate(Argument(1))),
    c("__mallocx", allocate(Argument(0))),
    c("__rallocx", reallocate(0, Argument(1))),
    c("__xallocx", expand_to_size(0, Argument(1))),
    c("__dallocx", free(0)),
    c("__sdallocx", free(0)),
    // jemalloc(3), the non-standard interface.
    own("mallocx", allocate(Argument(0))),
    own("rallocx", reallocate(0, Argument(1))),
    own("xallocx", expand_to_size(0, Argument(1))),
    own("dallocx", free(0)),
    own("sdallocx", free(0)),
    // jemalloc built with a prefix: by redis, nginx and others.
    own("je_malloc", allocate(Argument(0))),
    own("je_calloc", allocate(Product(0, 1))),
    own("je_realloc", reallocate(0, Argument(1))),
    own("je_free", free(0)),
    own("je_posix_memalign", allocate_into(0, Argument(2))),
    own("je_aligned_alloc", allocate(Argument(1))),
    own("je_memalign", allocate(Argument(1))),
    own("je_valloc", allocate(Argument(0))),
    own("je_pvalloc", allocate(Argument(0))),
    own("je_free_sized", free(0)),
    own("je_free_aligned_sized", free(0)),
    own("je_mallocx", allocate(Argument(0))),
    own("je_rallocx", reallocate(0, Argument(1))),
    own("je_xallocx", expand_to_size(0, Argument(1))),
    own("je_dallocx", free(0)),
    own("je_sdallocx", free(0)),
    // jemalloc built with a prefix: by Rust's tikv-jemallocator.
    own("_rjem_malloc", allocate(Argument(0))),
    own("_rjem_calloc", allocate(Product(0, 1))),
    own("_rjem_realloc", reallocate(0, Argument(1))),
    own("_rjem_free", free(0)),
    own("_rjem_posix_memalign", allocate_into(0, Argument(2))),
    own("_rjem_aligned_alloc", allocate(Argument(1))),
    own("_rjem_memalign", allocate(Argument(1))),
    own("_rjem_valloc", allocate(Argument(0))),
    own("_rjem_pvalloc", allocate(Argument(0))),
    own("_rjem_free_sized", free(0)),
    own("_rjem_free_aligned_sized", free(0)),
    own("_rjem_mallocx", allocate(Argument(0))),
    own("_rjem_rallocx", reallocate(0, Argument(1))),
    own("_rjem_xallocx", expand_to_size(0, Argument(1))),
    own("_rjem_dallocx", free(0)),
    own("_rjem_sdallocx", free(0)),
    // tcmalloc (gperftools).
    own("tc_malloc", allocate(Argument(0))),
    own("tc_malloc_skip_new_handler", allocate(Argument(0))),
    own("tc_calloc", allocate(Product(0, 1))),
    own("tc_realloc", reallocate(0, Argument(1))),
    own("tc_free", free(0)),
    own("tc_free_sized", free(0)),
    own("tc_cfree", free(0)),
    own("tc_memalign", allocate(Argument(1))),
    own("tc_posix_memalign", allocate_into(0, Argument(2))),
    own("tc_valloc", allocate(Argument(0))),
    own("tc_pvalloc", allocate(Argument(0))),
    own("tc_new", allocate(Argument(0))),
    own("tc_new_nothrow", allocate(Argument(0))),
    own("tc_new_aligned", allocate(Argument(0))),
    own("tc_new_aligned_nothrow", allocate(Argument(0))),
    own("tc_newarray", allocate(Argument(0))),
    own("tc_newarray_nothrow", allocate(Argument(0))),
    own("tc_newarray_aligned", allocate(Argument(0))),
    own("tc_newarray_aligned_nothrow", allocate(Argument(0))),
    own("tc_delete", free(0)),
    own("tc_delete_nothrow", free(0)),
    own("tc_delete_sized", free(0)),
    own("tc_delete_aligned", free(0)),
    own("tc_delete_aligned_nothrow", free(0)),
    own("tc_delete_sized_aligned", free(0)),
    own("tc_deletearray", free(0)),
    own("tc_deletearray_nothrow", free(0)),
    own("tc_deletearray_sized", free(0)),
    own("tc_deletearray_aligned", free(0)),
    own("tc_deletearray_aligned_nothrow", free(0)),
    own("tc_deletearray_sized_aligned", free(0)),
    // mimalloc.
    own("mi_malloc", allocate(Argument(0))),
    own("mi_malloc_aligned", allocate(Argument(0))),
    own("mi_malloc_aligned_at", allocate(Argument(0))),
    own("mi_malloc_small", allocate(Argument(0))),
    own("mi_zalloc", allocate(Argument(0))),
    own("mi_zalloc_aligned", allocate(Argument(0))),
    own("mi_zalloc_aligned_at", allocate(Argument(0))),
    own("mi_zalloc_small", allocate(Argument(0))),
    own("mi_calloc", allocate(Product(0, 1))),
    own("mi_calloc_aligned", allocate(Product(0, 1))),
    own("mi_calloc_aligned_at", allocate(Product(0, 1))),
    own("mi_mallocn", allocate(Product(0, 1))),
    own("mi_realloc", reallocate(0, Argument(1))),
    own("mi_realloc_aligned", reallocate(0, Argument(1))),
    own("mi_realloc_aligned_at", reallocate(0, Argument(1))),
    own("mi_reallocn", reallocate(0, Product(1, 2))),
    own("mi_reallocarray", reallocate(0, Product(1, 2))),
    own("mi_reallocf", reallocate_or_free(0, Argument(1))),
    own("mi_rezalloc", reallocate(0, Argument(1))),
    own("mi_rezalloc_aligned", reallocate(0, Argument(1))),
    own("mi_rezalloc_aligned_at", reallocate(0, Argument(1))),
    own("mi_recalloc", reallocate(0, Product(1, 2))),
    own("mi_recalloc_aligned", reallocate(0, Product(1, 2))),
    own("mi_recalloc_aligned_at", reallocate(0, Product(1, 2))),
    own("mi_aligned_recalloc", reallocate(0, Product(1, 2))),
    own("mi_aligned_offset_recalloc", reallocate(0, Product(1, 2))),
    own("mi_expand", expand(0, Argument(1))),
    own("mi__expand", expand(0, Argument(1))),
    own("mi_free", free(0)),
    own("mi_cfree", free(0)),
    own("mi_free_size", free(0)),
    own("mi_free_size_aligned", free(0)),
    own("mi_free_aligned", free(0)),
    own("mi_posix_memalign", allocate_into(0, Argument(2))),
    own("mi_memalign", allocate(Argument(1))),
    own("mi_aligned_alloc", allocate(Argument(1))),
    own("mi_valloc", allocate(Argument(0))),
    own("mi_pvalloc", allocate(Argument(0))),
    own("mi_new", allocate(Argument(0))),
    own("mi_new_nothrow", allocate(Argument(0))),
    own("mi_new_aligned", allocate(Argument(0))),
    own("mi_new_aligned_nothrow", allocate(Argument(0))),
    own("mi_new_n", allocate(Product(0, 1))),
    own("mi_new_realloc", reallocate(0, Argument(1))),
    own("mi_new_reallocn", reallocate(0, Product(1, 2))),
    own("mi_heap_malloc", allocate(Argument(1))),
    own("mi_heap_malloc_aligned", allocate(Argument(1))),
    own("mi_heap_malloc_aligned_at", allocate(Argument(1))),
    own("mi_heap_malloc_small", allocate(Argument(1))),
    own("mi_heap_zalloc", allocate(Argument(1))),
    own("mi_heap_zalloc_aligned", allocate(Argument(1))),
    own("mi_heap_zalloc_aligned_at", allocate(Argument(1))),
    own("mi_heap_calloc", allocate(Product(1, 2))),
    own("mi_heap_calloc_aligned", allocate(Product(1, 2))),
    own("mi_heap_calloc_aligned_at", allocate(Product(1, 2))),
    own("mi_heap_mallocn", allocate(Product(1, 2))),
    own("mi_heap_alloc_new", allocate(Argument(1))),
    own("mi_heap_alloc_new_n", allocate(Product(1, 2))),
    own("mi_heap_realloc", reallocate(1, Argument(2))),
    own("mi_heap_realloc_aligned", reallocate(1, Argument(2))),
    own("mi_heap_realloc_aligned_at", reallocate(1, Argument(2))),
    own("mi_heap_reallocn", reallocate(1, Product(2, 3))),
    own("mi_heap_reallocf", reallocate_or_free(1, Argument(2))),
    own("mi_heap_rezalloc", reallocate(1, Argument(2))),
    own("mi_heap_rezalloc_aligned", reallocate(1, Argument(2))),
    own("mi_heap_rezalloc_aligned_at", reallocate(1, Argument(2))),
    own("mi_heap_recalloc", reallocate(1, Product(2, 3))),
    own("mi_heap_recalloc_aligned", reallocate(1, Product(2, 3))),
    own("mi_heap_recalloc_aligned_at", reallocate(1, Product(2, 3))),
    // rpmalloc.
    own("rpmalloc", allocate(Argument(0))),
    own("rpcalloc", allocate(Product(0, 1))),
    own("rprealloc", reallocate(0, Argument(1))),
    own("rpaligned_realloc", reallocate(0, Argument(2))),
    own("rpfree", free(0)),
    own("rpaligned_alloc", allocate(Argument(1))),
    own("rpmemalign", allocate(Argument(1))),
    own("rpposix_memalign", allocate_into(0, Argument(2))),
    own("rpaligned_calloc", allocate(Product(1, 2))),
    // snmalloc: its C names, and those for Rust.
    own("sn_malloc", allocate(Argument(0))),
    own("sn_calloc", allocate(Product(0, 1))),
    own("sn_realloc", reallocate(0, Argument(1))),
    own("sn_free", free(0)),
    own("sn_rust_alloc", allocate(Argument(1))),
    own("sn_rust_alloc_zeroed", allocate(Argument(1))),
    own("sn_rust_realloc", reallocate(0, Argument(3))),
    own("sn_rust_dealloc", free(0)),
];

/// The functions of `--mmap`.
pub static MAPPING_FUNCTIONS: &[Function] = &[
    own("mmap", Shape::Map { length: 1, flags: 3 }),
    own("mmap64", Shape::Map { length: 1, flags: 3 }),
    own("__mmap", Shape::Map { length: 1, flags: 3 }),
    own("__mmap64", Shape::Map { length: 1, flags: 3 }),
    own("mremap", Shape::Remap { address: 0, old_length: 1, new_length: 2 }),
    own("__mremap", Shape::Remap { address: 0, old_length: 1, new_length: 2 }),
    own("munmap", Shape::Unmap { address: 0, length: 1 }),
    own("__munmap", Shape::Unmap { address: 0, length: 1 }),
];
