/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * The live blocks, and what each call stack has allocated and freed.
 */
#ifndef MEMLEAX_BOOKS_H
#define MEMLEAX_BOOKS_H

#include "sites.bpf.h"

#ifndef OLD_KERNEL
/* Live blocks: the number of buckets, 1 << control.bucket_bits, is set at load. */
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct bucket, 1, BPF_F_MMAPABLE);
} live SEC(".maps");
#endif

/* Live blocks whose bucket was full. Sized at load. Before 6.1 memory may not be allocated as needed. */
#ifdef OLD_KERNEL
#define OVERFLOW_FLAGS 0
#else
#define OVERFLOW_FLAGS BPF_F_NO_PREALLOC
#endif
struct {
	MAP(BPF_MAP_TYPE_HASH, u64, struct block, 1, OVERFLOW_FLAGS);
} overflow SEC(".maps");

/*
 * While `realloc` is about a block, it stays in the books but is not found by its address, which another thread may be handed before
 * that call returns.
 */
#define IN_FLIGHT (1ull << 63)

/*
 * By what a block is found: an object may be at the address of a block of memory, or be at the beginning of another object. Addresses have 56
 * bits at the most (57 bits are paged, the upper half of which is the kernel's).
 */
static __always_inline u64 key_of(u64 cookie, u64 address)
{
	return loading.objects ? address << 8 >> 8 | CLASS_OF(cookie) << CLASS_SHIFT : address;
}

#ifndef OLD_KERNEL
static __always_inline struct bucket *bucket_of(struct control *c, u64 address)
{
	u32 index = ((address >> 4) * 0x9E3779B97F4A7C15ull) >> (64 - c->bucket_bits);

	return bpf_map_lookup_elem(&live, &index);
}

/* False if the bucket is full. */
static __always_inline bool keep_in_bucket(struct control *c, u64 address, struct block *block)
{
	struct bucket *bucket = bucket_of(c, address);

	if (!bucket)
		return 0;
	for (int i = 0; i < BUCKET_SLOTS; i++) {
		u64 *slot = &bucket->addresses[i];

		if (*slot || __sync_val_compare_and_swap(slot, SLOT_FREE, SLOT_BUSY))
			continue;
		/* In the order that src/bpf/books.rs relies on: it reads without a lock. */
		bucket->blocks[i].size = block->size;
		bucket->blocks[i].site = block->site;
		barrier();
		bucket->blocks[i].time = block->time;
		barrier();
		*slot = address;
		return 1;
	}
	return 0;
}

/* The block at `address`, and the word that holds that; `flying`: the one in flight from `time`. */
static __always_inline struct block *block_in_bucket(struct control *c, u64 address, bool flying, u64 time, u64 **slot)
{
	struct bucket *bucket = bucket_of(c, address);

	if (!bucket)
		return NULL;
	for (int i = 0; i < BUCKET_SLOTS; i++) {
		struct block *block = &bucket->blocks[i];

		if (bucket->addresses[i] == address && !(block->site & IN_FLIGHT) == !flying &&
		    (!flying || block->time == time)) {
			*slot = &bucket->addresses[i];
			return block;
		}
	}
	return NULL;
}
#endif

/* The same in the overflow map. */
static __always_inline struct block *overflowed_block(struct control *c, u64 address, bool flying, u64 time)
{
	struct block *block;

	if (!c->overflowed)
		return NULL;
	block = bpf_map_lookup_elem(&overflow, &address);
	return block && !(block->site & IN_FLIGHT) == !flying && (!flying || block->time == time) ? block : NULL;
}

/* Takes a live block out; false if there is none, or another was faster. */
static __always_inline bool take(struct control *c, u64 address, struct block *out)
{
	struct block *block;
#ifndef OLD_KERNEL
	u64 *slot;

	block = block_in_bucket(c, address, 0, 0, &slot);
	if (block) {
		*out = *block;
		barrier();
		*slot = SLOT_FREE;
		return 1;
	}
#endif
	block = overflowed_block(c, address, 0, 0);
	if (!block)
		return 0;
	*out = *block;
	return !bpf_map_delete_elem(&overflow, &address);
}

/* An object has one reference more, if it is in the books. */
static __always_inline void retain(struct control *c, u64 key)
{
	struct block *block = NULL;
#ifndef OLD_KERNEL
	u64 *slot;

	block = block_in_bucket(c, key, 0, 0, &slot);
#endif
	if (!block)
		block = overflowed_block(c, key, 0, 0);
	if (block)
		ADD(block->site, HOLD);
}

/*
 * An object has one reference less; false if there is no such object. `was_last`: it is taken out. Of two threads that let go at once
 * both may see that no reference is left, but only one takes it out.
 */
static __always_inline bool release(struct control *c, u64 key, struct block *out, bool *was_last)
{
	struct block *block = NULL;
#ifndef OLD_KERNEL
	u64 *slot;

	block = block_in_bucket(c, key, 0, 0, &slot);
	if (block) {
		*was_last = __sync_fetch_and_sub(&block->site, HOLD) < 2 * HOLD;
		if (*was_last) {
			*out = *block;
			barrier();
			*slot = SLOT_FREE;
		}
		return 1;
	}
#endif
	block = overflowed_block(c, key, 0, 0);
	if (!block)
		return 0;
	ADD(block->site, -HOLD);
	*was_last = *(volatile u64 *)&block->site < HOLD;
	if (*was_last) {
		*out = *block;
		*was_last = !bpf_map_delete_elem(&overflow, &key);
	}
	return 1;
}

/* `realloc` begins with a live block; false if there is none. */
static __always_inline bool take_off(struct control *c, u64 address, struct block *out)
{
	struct block *block = NULL;
#ifndef OLD_KERNEL
	u64 *slot;

	block = block_in_bucket(c, address, 0, 0, &slot);
#endif
	if (!block)
		block = overflowed_block(c, address, 0, 0);
	if (!block)
		return 0;
	*out = *block;
	block->site |= IN_FLIGHT;
	return 1;
}

/* It ends, and the block stays where it was. Where another was kept at its address in the meantime, there is nothing to do. */
static __always_inline void land(struct control *c, u64 address, struct block *old, u64 size)
{
	struct block *block = NULL;
#ifndef OLD_KERNEL
	u64 *slot;

	block = block_in_bucket(c, address, 1, old->time, &slot);
#endif
	if (!block)
		block = overflowed_block(c, address, 1, old->time);
	if (!block)
		return;
	block->size = size;
	block->site = old->site;
}

/* It ends, and the block is gone. */
static __always_inline void drop(struct control *c, u64 address, struct block *old)
{
#ifndef OLD_KERNEL
	u64 *slot;

	if (block_in_bucket(c, address, 1, old->time, &slot)) {
		*slot = SLOT_FREE;
		return;
	}
#endif
	if (overflowed_block(c, address, 1, old->time))
		bpf_map_delete_elem(&overflow, &address);
}

/* A block is at an address that is handed out again: it was freed, and that was not seen. */
static __always_inline void replaced(struct control *c, struct block *block, u64 now)
{
	struct site *site = site_of(block->site);

	if (!site)
		return;
	COUNT(site->freed_unseen);
	ADD(site->freed_unseen_bytes, block->size);
	if (now > block->time && now - block->time >= c->expire) {
		COUNT(site->expired_freed);
		ADD(site->expired_freed_bytes, block->size);
	}
}

/* Enters a live block. */
static __always_inline void keep(struct control *c, u64 address, u64 size, u64 time, u64 number)
{
	struct block block = { size, time, number }, stale;

	if (take(c, address, &stale))
		replaced(c, &stale, time);
#ifndef OLD_KERNEL
	if (keep_in_bucket(c, address, &block))
		return;
#endif
	if (bpf_map_update_elem(&overflow, &address, &block, BPF_ANY))
		COUNT(c->lost_blocks);
	else
		COUNT(c->overflowed);
}

static __always_inline void allocated(struct control *c, u64 address, u64 size, u64 number, u64 now)
{
	struct site *site = site_of(number);

	if (site) {
		COUNT(site->allocated);
		ADD(site->allocated_bytes, size);
	}
	keep(c, address, size, now, number);
}

static __always_inline void freed(struct control *c, struct block *block, u64 now)
{
	struct site *site = site_of(block->site);
	u64 age = now > block->time ? now - block->time : 0;
#ifndef OLD_KERNEL
	u64 seen;
#endif

	if (!site)
		return;
	COUNT(site->freed);
	ADD(site->freed_bytes, block->size);
	ADD(site->age_sum, age);
	if (age >= c->expire) {
		COUNT(site->expired_freed);
		ADD(site->expired_freed_bytes, block->size);
		site->expired_freed_age = age;
	}
#ifdef OLD_KERNEL
	if (site->age_max < age)
		site->age_max = age;
	if (site->age_min < ~age)
		site->age_min = ~age;
#else
	for (int i = 0; i < 8 && (seen = site->age_max) < age; i++)
		if (__sync_val_compare_and_swap(&site->age_max, seen, age) == seen)
			break;
	for (int i = 0; i < 8 && (seen = site->age_min) < ~age; i++)
		if (__sync_val_compare_and_swap(&site->age_min, seen, ~age) == seen)
			break;
#endif
}

#endif
