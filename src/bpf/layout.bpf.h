/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * What the programs share with user space: src/bpf/layout.rs reads it. Both sides check the sizes.
 */
#ifndef MEMLEAX_LAYOUT_H
#define MEMLEAX_LAYOUT_H

#include "kernel.bpf.h"

#define RULES 8192
#define RULE_CACHE 65536
#define SITES 65536
#define PAGE 4096
#define WINDOW 8192
#define FRAMES 128
#define BUCKET_SLOTS 8
#define SLOT_FREE 0
#define SLOT_BUSY 1

/* What has books of its own: class 0 is memory, each other one a type of objects that the user has named. */
#define CLASSES 32
/* Sites up to here are each class's own for calls whose stack got no number. */
#define FIRST_SITE CLASSES

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

/* What a function does: bits 0-7 of a cookie. Bits 8-11, 12-15 and 16-19: which registers hold its operands; 15: none does. */
enum {
	SHAPE_ALLOCATE = 1, /* size */
	SHAPE_ALLOCATE_PRODUCT, /* size, count */
	SHAPE_ALLOCATE_INTO, /* size, count if COOKIE_PRODUCT, out */
	SHAPE_REALLOCATE, /* size, -, block */
	SHAPE_REALLOCATE_PRODUCT, /* size, count, block */
	SHAPE_EXPAND, /* size, -, block: returns the block or NULL */
	SHAPE_EXPAND_TO_SIZE, /* size, -, block: returns the real size */
	SHAPE_FREE, /* -, -, block */
	SHAPE_MAP, /* length, flags */
	SHAPE_REMAP, /* new length, old length, address */
	SHAPE_UNMAP, /* length, -, address */
	SHAPE_RETAIN, /* -, -, object: one reference more */
	SHAPE_RELEASE, /* -, -, object: one less; the last frees it */
	SHAPE_INITIALIZE, /* size, count if COOKIE_PRODUCT, object */
};
#define COOKIE_FREES_ON_FAILURE (1ull << 20)
#define COOKIE_ALWAYS (1ull << 21) /* of SHAPE_ALLOCATE_INTO and SHAPE_INITIALIZE: whatever it returns */
#define COOKIE_PRODUCT (1ull << 22)
/* Bits 24-31: how many words lie between rsp and the return address at the probed instruction; 32-55: the function's number; 56-63: its class. */
#define CLASS_SHIFT 56
#define CLASS_OF(cookie) ((cookie) >> CLASS_SHIFT & (CLASSES - 1))

/* Settings and counters. */
struct control {
	u64 rows; /* of the table in use: its first row << 32 | how many */
	u64 expire; /* ns */
	u32 depth, cpus;
	u64 bucket_bits;
	u64 closed; /* nothing is counted: probes come and go one after the other, and what the others see would not fit */
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
	u64 lost_mappings; /* calls of mmap, mremap and munmap that could not be told of */
	u64 resized, resized_bytes; /* blocks that realloc left where they were, and what they had before */
	u64 marks, lost_marks; /* calls that are worth a snapshot; those that were not told of */
	u64 lost_named; /* calls of functions that the user has named, it is not known which */
	u64 unknown_objects[CLASSES]; /* by class: what unknown_frees is to memory */
};

/* In a block's site: one reference to an object, of those that it has; all but the last bit, which is IN_FLIGHT. */
#define HOLD (1ull << 32)

struct block {
	u64 size, time, site;
};

/* Slot i: addresses[i], or SLOT_FREE, or SLOT_BUSY while blocks[i] is being filled. Looking for an address touches one cache line. */
struct bucket {
	u64 addresses[BUCKET_SLOTS];
	struct block blocks[BUCKET_SLOTS];
};

/*
 * What an address's rule is. Two words, which might be of two entries that were written at the same time; so `check` is of both: see
 * rule_at().
 */
struct cached_rule {
	u64 check, rule;
};

/* Totals of one call stack. */
struct site {
	u64 allocated, allocated_bytes;
	u64 freed, freed_bytes;
	u64 expired_freed, expired_freed_bytes, expired_freed_age; /* freed after expiry; the age of the last */
	u64 freed_unseen, freed_unseen_bytes; /* replaced without a free that was seen; in none of the above */
	u64 age_sum, age_min, age_max; /* of freed blocks, ns; age_min is stored as its complement so that 0 means none */
};

/* Ring buffer records; a lone RECORD_NONE makes user space look at the counters. Times are of the monotonic clock. */
enum { RECORD_NONE, RECORD_STACK, RECORD_MAPPED, RECORD_REMAPPED, RECORD_UNMAPPED, RECORD_MARK };

struct stack_record {
	u64 kind, time;
	u64 hash, site;
	u32 count, end;
	u32 guess, insufficient; /* insufficient: the rest is the general unwinder's */
	u64 function;
	u64 exact[FRAMES / 64]; /* bit i: pcs[i] is exact, not a return address */
	u64 pcs[FRAMES];
};

/* What mmap (site, address, size), mremap (all) or munmap (from, from_size) did. Sizes are as the program asked. */
struct mapping_record {
	u64 kind, time;
	u64 site, address, size, from, from_size;
};

/* A call of a function that the user has named. */
struct mark_record {
	u64 kind, time;
	u64 number;
};

/* So many of them are told of. */
#define MARKS 1000

/* Functions whose calls are counted. */
#define REFERENCES 1024

/* What a copy of a stack may hold at the most. */
#define COPY_LIMIT 65536

/* A piece of stack. */
struct stack_copy {
	u64 start, length;
	u8 bytes[];
};

/* The kernel's trampoline is at `sp`, for us, where `return_address` was. */
struct trap {
	u64 sp, return_address;
	u64 instruction; /* of the probe */
	u64 classes; /* bit i: the return ends the call in progress of class i */
};

/* As many as the kernel has (MAX_URETPROBE_DEPTH, include/linux/uprobes.h). */
#define TRAPS 64

/* The traps of a thread, outermost first. */
struct traps {
	u64 count;
	struct trap at[TRAPS];
};

/*
 * A stack that the table does not suffice for: the general unwinder walks it, once. Between the innermost frame and the one where the
 * kernel's walk ended there may be frames too large to copy.
 */
struct slow_record {
	struct stack_record head;
	struct pt_regs registers;
	u64 traps; /* how many follow: none where there are no objects; and the last of them is that of memory's call in progress */
	/* Then two copies of loading.copy bytes: from the return address on, and from a little below where a signal came, or else
	 * where the kernel's walk ended. */
};

#endif
