/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * What the programs for the whole machine share with user space: src/bpf/machine/layout.rs reads it. Both sides check the sizes.
 */
#ifndef MEMLEAX_MACHINE_LAYOUT_H
#define MEMLEAX_MACHINE_LAYOUT_H

#include "../kernel.bpf.h"

/* Processes at a time, with those that have ended and were not yet swept out. Place 0 is none. */
#define PLACES 32768

/* What a place is used for. User space makes it free again, once no live block names it any more. */
enum { PLACE_FREE, PLACE_RUNNING, PLACE_ENDED, PLACE_REPLACED, PLACE_HELD };

/* Of a process. */
#define BEGAN_BEFORE 1 /* its program began before memleax was ready: what it had then is not known */
#define IN_CGROUP 2 /* was in one of the cgroups asked for when its program began, or at its end */

/* A process, and the address space that its blocks are in. After an exec it has another place. */
struct process {
	u64 place; /* PLACE_… */
	u64 serial; /* never used twice */
	u64 mm; /* the kernel's address space; 0: it has none of its own, as a child of vfork() */
	u32 pid, parent;
	u32 uid, flags;
	u64 began, ended; /* monotonic clock */
	u64 cgroup;
	u64 wait_status; /* as wait(2) has it */
	char name[16];
	u64 allocated, allocated_bytes;
	u64 freed, freed_bytes;
	u64 live, live_bytes, peak_bytes;
	u64 unseen, unseen_bytes; /* blocks whose address was handed out again: freed, which was not seen */
	u64 unknown_frees;
	u64 lost_blocks, lost_bytes; /* for which there was no room; in `allocated` */
	u64 lost_calls, never_returned;
	/* Of the programs that it was before, by exec. */
	u64 execs, before, before_bytes, left, left_bytes;
};

/* Settings and counters. */
struct machine {
	u64 self; /* memleax's own process */
	u64 is_ready; /* the probes in all files that are mapped are set */
	u64 bucket_bits;
	u64 cgroups; /* how many are asked for */
	u64 serials; /* given out */
	u64 highest; /* place in use ever */
	u64 ended; /* processes and programs, so far */
	u64 overflowed; /* blocks in the overflow map now */
	u64 lost_processes; /* for which there was no place */
	u64 lost_calls; /* of processes without a place, or without memory for a thread's state */
	u64 lost_blocks; /* of all processes */
};

/*
 * Live blocks. Key: place << 44 | address / 8, as user space has 47 bits of addresses. The address alone would not do: processes that run
 * the same program have the same ones.
 */
#define PLACE_SHIFT 44
#define ADDRESS_BITS 47
#define BUCKET_SLOTS 8
#define SLOT_FREE 0
#define SLOT_BUSY 1

/* Slot i: keys[i], or SLOT_FREE, or SLOT_BUSY while sizes[i] is being written or read. */
struct bucket {
	u64 keys[BUCKET_SLOTS];
	u64 sizes[BUCKET_SLOTS];
};

/* What a function does: bits 0-7 of a cookie; see src/bpf/layout.bpf.h, of which these are a part. */
enum {
	SHAPE_ALLOCATE = 1,
	SHAPE_ALLOCATE_PRODUCT,
	SHAPE_ALLOCATE_INTO,
	SHAPE_REALLOCATE,
	SHAPE_REALLOCATE_PRODUCT,
	SHAPE_EXPAND,
	SHAPE_EXPAND_TO_SIZE,
	SHAPE_FREE,
};
#define COOKIE_FREES_ON_FAILURE (1ull << 20)

#endif
