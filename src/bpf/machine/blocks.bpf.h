/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * The live blocks of all processes, and the totals of each.
 */
#ifndef MEMLEAX_MACHINE_BLOCKS_H
#define MEMLEAX_MACHINE_BLOCKS_H

#include "processes.bpf.h"

/* 1 << machine.bucket_bits of them; set at load. */
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct bucket, 1, BPF_F_MMAPABLE);
} live SEC(".maps");

/* Live blocks whose bucket was full: their sizes. Sized at load. */
struct {
	MAP(BPF_MAP_TYPE_HASH, u64, u64, 1, BPF_F_NO_PREALLOC);
} overflow SEC(".maps");

/* 0 if the address is none that can be kept. */
static __always_inline u64 key_of(u32 place, u64 address)
{
	return address >> ADDRESS_BITS || address & 7 ? 0 : (u64)place << PLACE_SHIFT | address >> 3;
}

static __always_inline struct bucket *bucket_of(struct machine *c, u64 key)
{
	u32 index = (key * 0x9E3779B97F4A7C15ull) >> (64 - c->bucket_bits);

	return bpf_map_lookup_elem(&live, &index);
}

enum put { PUT, PUT_OVER, NO_ROOM };

/* Keeps a block. PUT_OVER: there was one already, of size `*old`. */
static __always_inline enum put put(struct machine *c, u64 key, u64 size, u64 *old)
{
	struct bucket *bucket = key ? bucket_of(c, key) : NULL;
	u64 *kept;

	if (!bucket)
		return NO_ROOM;
	for (int i = 0; i < BUCKET_SLOTS; i++) {
		if (bucket->keys[i] == key) {
			*old = bucket->sizes[i];
			bucket->sizes[i] = size;
			return PUT_OVER;
		}
	}
	if (c->overflowed) {
		kept = bpf_map_lookup_elem(&overflow, &key);
		if (kept) {
			*old = *kept;
			*kept = size;
			return PUT_OVER;
		}
	}
	for (int i = 0; i < BUCKET_SLOTS; i++) {
		if (bucket->keys[i] || __sync_val_compare_and_swap(&bucket->keys[i], SLOT_FREE, SLOT_BUSY))
			continue;
		bucket->sizes[i] = size;
		barrier();
		bucket->keys[i] = key;
		return PUT;
	}
	if (bpf_map_update_elem(&overflow, &key, &size, BPF_ANY))
		return NO_ROOM;
	COUNT(c->overflowed);
	return PUT;
}

/* Takes a block out; false if there is none. */
static __always_inline bool take(struct machine *c, u64 key, u64 *size)
{
	struct bucket *bucket = key ? bucket_of(c, key) : NULL;
	u64 *kept;

	if (!bucket)
		return 0;
	for (int i = 0; i < BUCKET_SLOTS; i++) {
		if (bucket->keys[i] != key || __sync_val_compare_and_swap(&bucket->keys[i], key, SLOT_BUSY) != key)
			continue;
		*size = bucket->sizes[i];
		barrier();
		bucket->keys[i] = SLOT_FREE;
		return 1;
	}
	if (!c->overflowed)
		return 0;
	kept = bpf_map_lookup_elem(&overflow, &key);
	if (!kept)
		return 0;
	*size = *kept;
	if (bpf_map_delete_elem(&overflow, &key))
		return 0;
	ADD(c->overflowed, -1);
	return 1;
}

static __always_inline void freed(struct process *process, u64 size)
{
	COUNT(process->freed);
	ADD(process->freed_bytes, size);
	ADD(process->live, -1);
	ADD(process->live_bytes, -size);
}

/* Puts a block into the books without counting it as allocated. */
static __noinline int keep(struct machine *c, struct process *process, u64 key, u64 size)
{
	u64 old = 0, now, peak;

	if (!c || !process)
		return 0;
	COUNT(process->live);
	now = ADD(process->live_bytes, size) + size;
	switch (put(c, key, size, &old)) {
	case PUT_OVER:
		COUNT(process->unseen);
		ADD(process->unseen_bytes, old);
		ADD(process->live, -1);
		now = ADD(process->live_bytes, -old) - old;
		break;
	case NO_ROOM:
		COUNT(process->lost_blocks);
		ADD(process->lost_bytes, size);
		COUNT(c->lost_blocks);
		ADD(process->live, -1);
		ADD(process->live_bytes, -size);
		return 0;
	case PUT:
		break;
	}
	for (int i = 0; i < 8; i++) {
		peak = process->peak_bytes;
		if (peak >= now || __sync_val_compare_and_swap(&process->peak_bytes, peak, now) == peak)
			break;
	}
	return 0;
}

static __always_inline void allocated(struct machine *c, struct process *process, u64 key, u64 size)
{
	COUNT(process->allocated);
	ADD(process->allocated_bytes, size);
	keep(c, process, key, size);
}

#endif
