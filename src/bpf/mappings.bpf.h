/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Calls of mmap, mremap and munmap: rare, so user space keeps the books of them.
 */
#ifndef MEMLEAX_MAPPINGS_H
#define MEMLEAX_MAPPINGS_H

#include "sites.bpf.h"

/* include/uapi/asm-generic/mman-common.h */
#define MAP_ANONYMOUS 0x20

/* MAP_FAILED, and what system calls return for errors. */
#define HIGHEST_ADDRESS (-4096ull)

/* User space is not woken: what it does with this can wait until its next look. */
static __noinline void send_mapping(struct mapping_record *of)
{
	struct control *c = settings();
	struct mapping_record *record;

	if (!c || !of)
		return;
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		COUNT(c->lost_mappings);
		return;
	}
	*record = *of;
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/* mmap or mremap has returned. */
static __always_inline void mapped(struct call *call, u64 result, u64 now)
{
	struct mapping_record record = {
		.kind = (call->cookie & 255) == SHAPE_MAP ? RECORD_MAPPED : RECORD_REMAPPED,
		.time = now,
		.site = call->site,
		.address = result,
		.size = call->size,
		.from = call->operand,
		.from_size = call->old.size,
	};

	if (result < HIGHEST_ADDRESS)
		send_mapping(&record);
}

/* munmap begins: told before another thread can be given the range. */
static __always_inline void unmapping(u64 address, u64 length)
{
	struct mapping_record record = {
		.kind = RECORD_UNMAPPED,
		.time = bpf_ktime_get_ns(),
		.from = address,
		.from_size = length,
	};

	send_mapping(&record);
}

#endif
