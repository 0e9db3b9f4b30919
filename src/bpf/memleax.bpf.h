/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * What memleax.bpf.c needs of the kernel and shares with user space. Self-contained: no kernel or libbpf headers, no CO-RE.
 * The layouts of the second half are read by src/bpf/layout.rs; both sides check their sizes.
 */
#ifndef MEMLEAX_BPF_H
#define MEMLEAX_BPF_H

typedef unsigned char u8;
typedef signed char s8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;
typedef _Bool bool;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __ksym __attribute__((section(".ksyms")))
#define __weak __attribute__((weak))
#define barrier() asm volatile("" ::: "memory")
#define NULL ((void *)0)

/* Map definitions as libbpf reads them from BTF. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name
#define MAP(kind, key_type, value_type, entries, flags)                                                                \
	__uint(type, kind);                                                                                            \
	__uint(max_entries, entries);                                                                                  \
	__uint(map_flags, flags);                                                                                      \
	__type(key, key_type);                                                                                         \
	__type(value, value_type)

/* include/uapi/linux/bpf.h */
#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_RINGBUF 27
#define BPF_MAP_TYPE_TASK_STORAGE 29
#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_F_NO_PREALLOC 1
#define BPF_F_MMAPABLE 1024
#define BPF_LOCAL_STORAGE_GET_F_CREATE 1

struct task_struct;
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*const bpf_probe_read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*const bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static void *(*const bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *record, u64 flags) = (void *)132;
static void *(*const bpf_task_storage_get)(void *map, struct task_struct *task, void *value, u64 flags) = (void *)156;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;

static u64 (*const bpf_get_attach_cookie)(void *context) = (void *)174;

/* arch/x86/include/asm/ptrace.h; also the order of the kernel's register numbers that a cookie uses. */
struct pt_regs {
	u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, eflags, rsp, ss;
};

/* ---- shared with user space ---- */

#define RULES 8192
#define RULE_CACHE 65536
#define SITES 65536
#define PAGE 4096
#define WINDOW 8192
#define FRAMES 128
#define BUCKET_SLOTS 8
#define SLOT_FREE 0
#define SLOT_BUSY 1

/* Compiled by src/unwind/rules.rs: byte 0 kind, byte 1 flags, bytes 2 and 3 where rbp and rbx are, bytes 4-7 offset. */
enum { KIND_GAP, KIND_OFFSET, KIND_INDIRECT, KIND_PLT, KIND_SIGNAL, KIND_END, KIND_SLOW };
#define BASE_MASK 3
#define BASE_RSP 0
#define BASE_RBP 1
#define RBP_SAVED 4
#define RBX_SAVED 8
#define RBP_BY_RBP 16
#define RBX_BY_RBP 32
#define GUESS 64

enum { END_NONE, END_COMPLETE, END_DEPTH, END_UNREADABLE, END_INCONSISTENT, END_GAP, END_SLOW };

/* What a function does: bits 0-7 of a cookie. Bits 8-11, 12-15 and 16-19: which registers hold its operands. */
enum {
	SHAPE_ALLOCATE = 1, /* size */
	SHAPE_ALLOCATE_PRODUCT, /* size, count */
	SHAPE_ALLOCATE_INTO, /* size, -, out */
	SHAPE_REALLOCATE, /* size, -, block */
	SHAPE_REALLOCATE_PRODUCT, /* size, count, block */
	SHAPE_EXPAND, /* size, -, block: returns the block or NULL */
	SHAPE_EXPAND_TO_SIZE, /* size, -, block: returns the real size */
	SHAPE_FREE, /* -, -, block */
};
#define COOKIE_FREES_ON_FAILURE (1ull << 20)
/* Bits 24-31: how many words lie between rsp and the return address at the probed instruction; 32-63: the function's number. */

/* Settings and counters. */
struct control {
	u64 rows; /* of the table in use: its first row << 32 | how many */
	u64 expire; /* ns */
	u32 depth, cpus;
	u64 bucket_bits;
	u64 loader_changes; /* calls of the dynamic linker's notification function */
	u64 tgid; /* of the target, as the kernel's first pid namespace counts */
	u64 execs, exec_time;
	u64 next_site; /* v3: sites given out */
	u64 overflowed; /* blocks that went to the overflow map */
	u64 lost_blocks; /* blocks that could not be kept */
	u64 lost_sites; /* calls whose stack got no place of its own: counted at site 0 */
	u64 lost_stacks; /* calls whose stack could not be read or for which there was no scratch: counted at site 0 */
	u64 lost_calls; /* calls into the allocator that could not be followed */
	u64 never_returned; /* calls that were not seen to return */
	u64 unknown_frees;
	u64 realloc_begun, realloc_ended;
};

struct block {
	u64 size, time, site;
};

/* address: or SLOT_FREE, or SLOT_BUSY while it is being filled. */
struct slot {
	u64 address;
	struct block block;
};

struct bucket {
	struct slot slots[BUCKET_SLOTS];
};

/* Totals of one call stack. */
struct site {
	u64 allocated, allocated_bytes;
	u64 freed, freed_bytes;
	u64 expired_freed, expired_freed_bytes, expired_freed_age; /* freed after expiry; the age of the last */
	u64 freed_unseen, freed_unseen_bytes; /* replaced without a free that was seen; in none of the above */
	u64 age_sum, age_min, age_max; /* of freed blocks, ns; age_min is stored as its complement so that 0 means none */
};

/* Ring buffer records. */
struct stack_record {
	u64 site;
	u32 count, end;
	u32 guess, pad;
	u64 function;
	u64 exact[FRAMES / 64]; /* bit i: pcs[i] is exact, not a return address */
	u64 pcs[FRAMES];
};

#define COPY 8192

struct stack_copy {
	u64 start, length;
	u8 bytes[COPY];
};

/*
 * A stack that the table does not suffice for: the general unwinder walks it, once. Between the innermost frame and the one where the
 * kernel's walk ended there may be frames too large to copy.
 */
struct slow_record {
	struct stack_record head;
	struct pt_regs registers;
	struct stack_copy innermost; /* from the return address on */
	struct stack_copy rest; /* from a little below where the kernel's walk ended */
};

#endif
