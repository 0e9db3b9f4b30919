/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Call stacks: each gets a number, known by the hash of its return addresses, and is told to user space once.
 */
#ifndef MEMLEAX_SITES_H
#define MEMLEAX_SITES_H

#include "call.bpf.h"
#include "walk.bpf.h"

/* Totals, by the site's number; those below FIRST_SITE are for what got no number, by class. */
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

/* Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} records SEC(".maps");

/* Where below its CFA a function saves what its caller wants back; also what a leaf function uses below rsp (psABI, 3.2.2). */
#define SAVED_REGISTERS 128

static __always_inline struct site *site_of(u64 number)
{
	u32 index = number & (SITES - 1);

	return bpf_map_lookup_elem(&sites, &index);
}

/* True if the rest of the walk is the general unwinder's. */
static __always_inline bool table_is_insufficient(struct control *c, struct scratch *s)
{
	return s->end == END_SLOW || s->end == END_GAP || s->end == END_INCONSISTENT || s->guess ||
	       (s->end == END_DEPTH && s->limit < c->depth);
}

/* Numbers from FIRST_SITE on. */
static __always_inline u64 next_site(struct control *c, struct scratch *s)
{
#ifdef OLD_KERNEL
	return s->next_site++ * c->cpus + bpf_get_smp_processor_id() + FIRST_SITE;
#else
	return __sync_fetch_and_add(&c->next_site, 1) + FIRST_SITE;
#endif
}

/*
 * The number of a stack whose record has its place in the ring buffer already: once others can see the number, they count by it.
 * 0 if all are given out. `is_new` is false if another CPU came first.
 */
static __always_inline u64 number_stack(struct scratch *s, bool *is_new)
{
	struct control *c = settings();
	u64 hash = s->hash, number, *known;

	*is_new = 0;
	if (!c)
		return 0;
	number = next_site(c, s);
	if (number >= SITES)
		return 0;
	if (!bpf_map_update_elem(&site_numbers, &hash, &number, BPF_NOEXIST)) {
		*is_new = 1;
		return number;
	}
	known = bpf_map_lookup_elem(&site_numbers, &hash);
	return known ? *known : 0;
}

static __always_inline void describe(struct stack_record *record, struct scratch *s, u64 number, u64 function)
{
	record->kind = RECORD_STACK;
	record->time = bpf_ktime_get_ns();
	record->hash = s->hash;
	record->site = number;
	record->count = s->count;
	record->end = s->end;
	record->guess = s->guess;
	record->insufficient = s->insufficient;
	record->function = function;
	record->exact[0] = s->exact_frames[0];
	record->exact[1] = s->exact_frames[1];
	bpf_probe_read_kernel(record->pcs, sizeof(record->pcs), s->pcs);
}

/* Numbers a stack and tells of it. 0 if there is no room. */
static __noinline u64 send_stack(struct scratch *s, u64 function)
{
	struct stack_record *record;
	bool is_new;
	u64 number;

	if (!s)
		return 0;
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record)
		return 0;
	number = number_stack(s, &is_new);
	if (is_new) {
		describe(record, s, number, function);
		bpf_ringbuf_submit(record, 0);
	} else {
		bpf_ringbuf_discard(record, 0);
	}
	return number;
}

/* Up to the end of the stack: page by page. */
static __always_inline void copy_stack(struct stack_copy *copy, u64 start)
{
	u64 length = 0;

	for (int i = 0; i < COPY_LIMIT / PAGE; i++) {
		u64 step = PAGE - ((start + length) & (PAGE - 1));

		if (length > loading.copy - PAGE || bpf_probe_read_user(copy->bytes + length, step, (void *)(start + length)))
			break;
		length += step;
	}
	copy->start = start;
	copy->length = length;
}

/* What tells return addresses from trampolines. */
#define TRAPS_OF_RECORD (loading.objects ? (TRAPS + 1) * sizeof(struct trap) : 0)

static __always_inline void copy_traps(struct trap *to)
{
	struct object_calls *of_objects = object_calls_of_thread(0);
	struct call *of_memory = call_of_thread(0);
	struct trap *last = to + TRAPS;

	if (of_objects)
		bpf_probe_read_kernel(to, TRAPS * sizeof(*to), of_objects->traps.at);
	last->sp = of_memory ? of_memory->sp : 0;
	last->return_address = of_memory ? of_memory->return_address : 0;
	for (u32 i = 0; i < TRAPS; i++)
		if (!of_objects || i >= of_objects->traps.count)
			to[i].sp = 0;
}

/* The same, with what the general unwinder needs. */
static __noinline u64 send_slow_stack(struct pt_regs *ctx, struct scratch *s, u64 function, u64 sp)
{
	u64 number, rest, part = sizeof(struct stack_copy) + loading.copy, of_traps = TRAPS_OF_RECORD;
	struct slow_record *record;
	bool is_new;
	void *copies;

	if (!s)
		return 0;
	record = bpf_ringbuf_reserve(&records, sizeof(*record) + of_traps + 2 * part, 0);
	if (!record)
		return 0;
	number = number_stack(s, &is_new);
	if (!is_new) {
		bpf_ringbuf_discard(record, 0);
		return number;
	}
	describe(&record->head, s, number, function);
	bpf_probe_read_kernel(&record->registers, sizeof(record->registers), ctx);
	record->traps = of_traps / sizeof(struct trap);
	if (of_traps)
		copy_traps((struct trap *)(record + 1));
	copies = (void *)(record + 1) + of_traps;
	copy_stack(copies, sp);
	if (s->caller)
		*(u64 *)((struct stack_copy *)copies)->bytes = s->caller;
	/* A signal handler's stack may be anywhere. */
	rest = s->interrupted && s->sp - s->interrupted < loading.copy - PAGE ? s->interrupted : s->sp;
	copy_stack(copies + part, rest - SAVED_REGISTERS);
	bpf_ringbuf_submit(record, 0);
	return number;
}

/* The number of a stack that the cache does not know. 0 if there is no room: the next call from there tries again. */
static __noinline u64 look_up_site(struct pt_regs *ctx, struct scratch *s, u64 function, u64 sp)
{
	struct control *c = settings();
	u64 hash, number, *known;

	if (!s || !c)
		return 0;
	hash = s->hash;
	known = bpf_map_lookup_elem(&site_numbers, &hash);
	if (known)
		return *known;
	if (loading.copy_all || s->insufficient)
		number = send_slow_stack(ctx, s, function, sp);
	else
		number = send_stack(s, function);
	if (!number)
		COUNT(c->lost_sites);
	return number;
}

/* Somewhere to walk a stack, and its index; NULL if there is none. To be given back by `busy`. */
static __always_inline struct scratch *take_scratch(u32 *index)
{
	struct scratch *s = NULL;

	*index = bpf_get_smp_processor_id() * 4;
#ifdef OLD_KERNEL
	s = bpf_map_lookup_elem(&scratch, index);
#else
	for (int i = 0; i < 4; i++, ++*index) {
		s = bpf_map_lookup_elem(&scratch, index);
		if (!s)
			return NULL;
		if (!__sync_lock_test_and_set(&s->busy, 1))
			break;
		s = NULL;
	}
#endif
	return s;
}

/* The walk is to begin at the return address that is at `sp`, or with `caller` in its place. Non-zero if nothing is to be read there. */
static __always_inline int begin_walk(struct scratch *s, u64 bp, u64 bx, u64 sp, u64 caller)
{
	if (fill(s, sp))
		return -1;
	if (caller)
		*(u64 *)s->stack = caller;
	s->caller = caller;
	s->pc = *(u64 *)s->stack;
	s->pcs[0] = s->pc;
	s->sp = sp + 8;
	s->bp = bp;
	s->bx = bx;
	s->count = 0;
	s->exact = 0;
	s->guess = 0;
	s->interrupted = 0;
	s->exact_frames[0] = 0;
	s->exact_frames[1] = 0;
	return 0;
}

/*
 * True if a call that had its return address at `outer`, where it still is, goes on: the call whose return address is at `sp` is part of it.
 * Otherwise it is only what the former has left in the stack. Where the walk does not come that far, nothing is known to the contrary. Global:
 * see walk_frames().
 */
__noinline int goes_on(u64 bp, u64 bx, u64 sp, u64 outer, u64 return_address)
{
	struct scratch *s;
	u32 index, i;
	int found = 1;

	s = take_scratch(&index);
	if (!s)
		return found;
	s->want = WINDOW / 2;
	s->unreadable = 0;
	s->hash = 0;
	if (begin_walk(s, bp, bx, sp, 0))
		goto out;
	s->limit = FRAMES;
	for (int i = 0; i < FRAMES / 8 + 1; i++)
		if (walk_frames(index) || s->sp > outer + 8)
			break;
	if (s->sp > outer) {
		for (i = 0; i < FRAMES && i < s->count; i++)
			if (s->pcs[i] == return_address)
				goto out;
		found = 0;
	}
out:
	s->busy = 0;
	return found;
}

/*
 * The site of a call whose return address is at `sp`; `caller`: 0, or where it has returned to. What is at `sp` may be the kernel's trampoline
 * instead, for another tool's probe on the return; then where it returns to is known only when it does.
 */
static __noinline u64 site_of_call(struct pt_regs *ctx, struct call *call, u64 sp, u64 caller)
{
	u64 function, site = 0, *cached, hash, used;
	struct control *c = settings();
	struct scratch *s;
	u32 index, place;

	if (!c || !call)
		return 0;
	function = call->cookie >> 32;
	s = take_scratch(&index);
	if (!s) {
		COUNT(c->lost_stacks);
		return 0;
	}
	s->want = call->want < 512 ? 512 : call->want > WINDOW ? WINDOW : call->want;
	s->unreadable = call->unreadable;
	if (begin_walk(s, ctx->rbp, ctx->rbx, sp, caller)) {
		COUNT(c->lost_stacks);
		goto out;
	}
	s->hash = (function + 1) * 0xD6E8FEB86659FD93ull;
	s->limit = c->depth < FRAMES ? c->depth : FRAMES;
	for (int i = 0; i < FRAMES / 8 + 1; i++)
		if (walk_frames(index))
			break;
	call->return_address = s->pcs[0];
	if (s->end == END_GAP && s->count == 1 && !caller) {
		call->hidden = 1;
		goto out;
	}
	/* Grows at once, shrinks slowly. */
	used = s->sp - sp + 256;
	call->want = used > s->want ? used : s->want - (s->want - used) / 64;
	call->unreadable = s->unreadable;
	/* Stacks that part only beyond the point where the walk ended. */
	s->insufficient = table_is_insufficient(c, s);
	if (s->insufficient)
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
	site = look_up_site(ctx, s, function, sp);
	if (site)
		*cached = (hash & ~0xffffull) | site;
out:
	s->busy = 0;
	return site;
}

#endif
