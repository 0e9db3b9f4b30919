/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Call stacks: each gets a number, known by the hash of its return addresses, and is told to user space once.
 */
#ifndef MEMLEAX_SITES_H
#define MEMLEAX_SITES_H

#include "call.bpf.h"
#include "walk.bpf.h"

/* Totals, by the site's number; 0 is for what got no number. */
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct site, SITES, BPF_F_MMAPABLE);
} sites SEC(".maps");

/* Stack hash -> site. */
struct {
	MAP(BPF_MAP_TYPE_HASH, u64, u64, SITES, 0);
} site_numbers SEC(".maps");

/* The upper 48 bits of a stack's hash | its site: one word, so it cannot tear. */
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, u64, SITES, BPF_F_MMAPABLE);
} site_cache SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} records SEC(".maps");

/* Where below its CFA a function saves what its caller wants back. */
#define SAVED_REGISTERS 128

static __always_inline struct site *site_of(u64 number)
{
	u32 index = number & (SITES - 1);

	return bpf_map_lookup_elem(&sites, &index);
}

static __always_inline bool needs_general_unwinder(struct control *c, struct scratch *s)
{
	return s->end == END_SLOW || s->end == END_GAP || s->guess || (s->end == END_DEPTH && s->limit < c->depth);
}

/* Numbers from 1 on. */
static __always_inline u64 next_site(struct control *c, struct scratch *s)
{
#ifdef OLD_KERNEL
	return s->next_site++ * c->cpus + bpf_get_smp_processor_id() + 1;
#else
	return __sync_fetch_and_add(&c->next_site, 1) + 1;
#endif
}

static __always_inline void describe(struct stack_record *record, struct scratch *s, u64 number, u64 function)
{
	record->site = number;
	record->count = s->count;
	record->end = s->end;
	record->guess = s->guess;
	record->function = function;
	record->exact[0] = s->exact_frames[0];
	record->exact[1] = s->exact_frames[1];
	bpf_probe_read_kernel(record->pcs, sizeof(record->pcs), s->pcs);
}

/* False if there is no room. */
static __noinline bool send_stack(struct scratch *s, u64 number, u64 function)
{
	struct stack_record *record;

	if (!s)
		return 0;
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record)
		return 0;
	describe(record, s, number, function);
	bpf_ringbuf_submit(record, 0);
	return 1;
}

/* Up to the end of the stack: page by page. */
static __always_inline void copy_stack(struct stack_copy *copy, u64 start)
{
	u64 length = 0;

	for (int i = 0; i < COPY / PAGE; i++) {
		u64 step = PAGE - ((start + length) & (PAGE - 1));

		if (length > COPY - PAGE || bpf_probe_read_user(copy->bytes + length, step, (void *)(start + length)))
			break;
		length += step;
	}
	copy->start = start;
	copy->length = length;
}

/* The same, with what the general unwinder needs. */
static __noinline bool send_slow_stack(struct pt_regs *ctx, struct scratch *s, u64 number, u64 function, u64 sp)
{
	struct slow_record *record;

	if (!s)
		return 0;
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record)
		return 0;
	describe(&record->head, s, number, function);
	bpf_probe_read_kernel(&record->registers, sizeof(record->registers), ctx);
	copy_stack(&record->innermost, sp);
	copy_stack(&record->rest, s->sp - SAVED_REGISTERS > sp ? s->sp - SAVED_REGISTERS : sp);
	bpf_ringbuf_submit(record, 0);
	return 1;
}

/* A number for a stack not seen before, and its frames to user space. 0 if there is no room. */
static __noinline u64 new_site(struct pt_regs *ctx, struct scratch *s, u64 function, u64 sp)
{
	struct control *c = settings();
	u64 hash, number, *known;
	bool sent;

	if (!s || !c)
		return 0;
	hash = s->hash;
	known = bpf_map_lookup_elem(&site_numbers, &hash);
	if (known)
		return *known;
	number = next_site(c, s);
	if (number >= SITES)
		goto lost;
	if (bpf_map_update_elem(&site_numbers, &hash, &number, BPF_NOEXIST)) {
		/* Another CPU came first, or the map is full. */
		known = bpf_map_lookup_elem(&site_numbers, &hash);
		if (known)
			return *known;
		goto lost;
	}
	if (needs_general_unwinder(c, s))
		sent = send_slow_stack(ctx, s, number, function, sp);
	else
		sent = send_stack(s, number, function);
	if (sent)
		return number;
	/* The next call from there tries again. */
	bpf_map_delete_elem(&site_numbers, &hash);
lost:
	COUNT(c->lost_sites);
	return 0;
}

/* The site of a call whose return address is at `sp`. */
static __always_inline u64 site_of_call(struct control *c, struct pt_regs *ctx, struct call *call, u64 sp)
{
	u32 index = bpf_get_smp_processor_id() * 4, place;
	u64 function = call->cookie >> 32, site = 0, *cached, hash, used;
	struct scratch *s = NULL;

#ifdef OLD_KERNEL
	s = bpf_map_lookup_elem(&scratch, &index);
#else
	for (int i = 0; i < 4; i++, index++) {
		s = bpf_map_lookup_elem(&scratch, &index);
		if (!s)
			return 0;
		if (!__sync_lock_test_and_set(&s->busy, 1))
			break;
		s = NULL;
	}
#endif
	if (!s) {
		COUNT(c->lost_stacks);
		return 0;
	}
	s->want = call->want < 512 ? 512 : call->want > WINDOW ? WINDOW : call->want;
	s->unreadable = call->unreadable;
	if (fill(s, sp)) {
		COUNT(c->lost_stacks);
		goto out;
	}
	s->pc = *(u64 *)s->stack;
	call->return_address = s->pc;
	s->sp = sp + 8;
	s->bp = ctx->rbp;
	s->bx = ctx->rbx;
	s->hash = (function + 1) * 0xD6E8FEB86659FD93ull;
	s->count = 0;
	s->exact = 0;
	s->guess = 0;
	s->exact_frames[0] = 0;
	s->exact_frames[1] = 0;
	s->limit = c->depth < FRAMES ? c->depth : FRAMES;
	for (int i = 0; i < FRAMES / 8 + 1; i++)
		if (walk_frames(index))
			break;
	/* Grows at once, shrinks slowly. */
	used = s->sp - sp + 256;
	call->want = used > s->want ? used : s->want - (s->want - used) / 64;
	call->unreadable = s->unreadable;
	/* Stacks that part only beyond the point where the walk ended. */
	if (needs_general_unwinder(c, s))
		s->hash = (s->hash ^ s->sp) * 0xD6E8FEB86659FD93ull;
	hash = s->hash;
	place = hash & (SITES - 1);
	cached = bpf_map_lookup_elem(&site_cache, &place);
	if (!cached)
		goto out;
	site = *cached;
	if ((site ^ hash) >> 16 == 0) {
		site &= 0xffff;
		goto out;
	}
	site = new_site(ctx, s, function, sp);
	if (site)
		*cached = (hash & ~0xffffull) | site;
out:
	s->busy = 0;
	return site;
}

#endif
