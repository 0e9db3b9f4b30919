// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Follows one process's calls into its allocators: books are kept here, in the kernel; user space reads them when it likes.
 *
 * A call's stack is walked by a table that user space compiled from the modules' call frame information, and is known by the hash of
 * its return addresses. Only a stack that was never seen before is sent to user space.
 *
 * Compiled twice: for 6.1 and later with atomics (-mcpu=v3), and with -DOLD_KERNEL -mcpu=v2 for 5.8 to 5.15, which
 * have no compare-and-swap (live blocks are in a hash map then) but do not preempt BPF programs either.
 */
#include "memleax.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct control, 1, BPF_F_MMAPABLE);
} control SEC(".maps");

/* Ascending: address << 16 | number of the rule that holds from there on. Sized at load. */
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, u64, 1, BPF_F_MMAPABLE);
} rows SEC(".maps");

struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, u64, RULES, BPF_F_MMAPABLE);
} rules SEC(".maps");

/* Address << 16 | rule: one word, so it cannot tear. */
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, u64, RULE_CACHE, BPF_F_MMAPABLE);
} rule_cache SEC(".maps");

/* Where a stack is walked; four for each CPU, since these programs may be preempted. Sized at load. */
struct scratch {
	u32 busy;
	u32 count, limit, exact, guess, end, length;
	u64 pc, sp, bp, bx, base, hash, want, unreadable;
	u64 exact_frames[FRAMES / 64];
	u64 next_site;
	u64 pcs[FRAMES];
	u8 stack[WINDOW + 8];
};
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct scratch, 1, 0);
} scratch SEC(".maps");

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

/* A call in progress. */
struct call {
	u64 sp; /* where its return address is; 0: none in progress */
	u64 return_address;
	u64 cookie;
	u64 size;
	u64 operand; /* the block, or the pointer for the result */
	u64 site;
	u64 want, unreadable; /* of fill() */
	struct block old;
	bool old_known;
};

#ifdef OLD_KERNEL
struct {
	MAP(BPF_MAP_TYPE_HASH, u32, struct call, 32768, 0);
} calls SEC(".maps");

static __always_inline struct call *call_of_thread(bool create)
{
	u32 thread = bpf_get_current_pid_tgid();
	struct call *call = bpf_map_lookup_elem(&calls, &thread), none = {};

	if (call || !create)
		return call;
	bpf_map_update_elem(&calls, &thread, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&calls, &thread);
}
#else
struct {
	MAP(BPF_MAP_TYPE_TASK_STORAGE, int, struct call, 0, BPF_F_NO_PREALLOC);
} calls SEC(".maps");

static __always_inline struct call *call_of_thread(bool create)
{
	return bpf_task_storage_get(&calls, bpf_get_current_task_btf(), NULL,
				    create ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
}
#endif

#ifndef OLD_KERNEL
/* Live blocks: the number of buckets, 1 << control.bucket_bits, is set at load. */
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct bucket, 1, BPF_F_MMAPABLE);
} live SEC(".maps");
#endif

/* Live blocks whose bucket was full. Sized at load. */
struct {
	MAP(BPF_MAP_TYPE_HASH, u64, struct block, 1, BPF_F_NO_PREALLOC);
} overflow SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} records SEC(".maps");

/* Where below its CFA a function saves what its caller wants back. */
#define SAVED_REGISTERS 128

#define COUNT(counter) __sync_fetch_and_add(&(counter), 1)
#define ADD(counter, amount) __sync_fetch_and_add(&(counter), amount)

static __always_inline struct control *settings(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline struct site *site_of(u64 number)
{
	u32 index = number & (SITES - 1);

	return bpf_map_lookup_elem(&sites, &index);
}

/* ---- walking the stack ---- */

/* The number of the rule at `pc`; rule 0 is a gap. */
static __noinline u32 find_rule(u64 pc)
{
	struct control *c = settings();
	u32 first, low, high, index;
	u64 *row;

	if (!c)
		return 0;
	/* One word, so that a table is never taken for half of another. */
	first = c->rows >> 32;
	low = first;
	high = first + (u32)c->rows;
	for (int i = 0; i < 24 && low < high; i++) {
		index = low + (high - low) / 2;
		row = bpf_map_lookup_elem(&rows, &index);
		if (!row)
			break;
		if (*row >> 16 <= pc)
			low = index + 1;
		else
			high = index;
	}
	index = low - 1;
	row = low > first ? bpf_map_lookup_elem(&rows, &index) : NULL;
	return row ? *row & 0xffff : 0;
}

static __always_inline u64 rule_at(u64 pc)
{
	u32 place = (u32)(pc ^ pc >> 16) & (RULE_CACHE - 1), number;
	u64 *cached = bpf_map_lookup_elem(&rule_cache, &place), *rule, entry;

	if (!cached)
		return 0;
	entry = *cached;
	number = entry & 0xffff;
	if (entry >> 16 != pc) {
		number = find_rule(pc);
		*cached = pc << 16 | number;
	}
	rule = bpf_map_lookup_elem(&rules, &number);
	return rule ? *rule : 0;
}

/*
 * Moves the window to `address`. One read of what will be needed costs least: less than two, or one that touches a page that is
 * not there, which costs a fault. Hence `want`, what this thread's stacks needed lately, and `unreadable`, the page beyond its stack.
 */
static __noinline int fill(struct scratch *s, u64 address)
{
	u64 length;

	if (!s)
		return -1;
	length = s->want;
	if (address < s->unreadable && length > s->unreadable - address)
		length = s->unreadable - address;
	s->base = address;
	s->length = 0;
	if (length < 8 || length > WINDOW)
		return -1;
	if (bpf_probe_read_user(s->stack, length, (void *)address)) {
		length = PAGE - (address & (PAGE - 1));
		if (length < 8 || length > PAGE || bpf_probe_read_user(s->stack, length, (void *)address))
			return -1;
		s->unreadable = address + length;
	}
	s->length = length;
	return 0;
}

static __always_inline int word(struct scratch *s, u64 address, u64 *value)
{
	u64 offset = address - s->base;

	if (offset > WINDOW || offset + 8 > s->length) {
		if (fill(s, address))
			return -1;
		offset = 0;
	}
	*value = *(u64 *)(s->stack + (offset & (WINDOW - 1)));
	return 0;
}

/* struct rt_sigframe at the handler's return: struct ucontext at rsp, its sigcontext 40 bytes in (arch/x86/include/uapi/asm/sigcontext.h). */
#define SIGNAL_RBP 120
#define SIGNAL_RBX 128
#define SIGNAL_RSP 160
#define SIGNAL_RIP 168

/*
 * Walks up to eight frames. Global, so that the verifier looks at it once and not for each of its calls; state is in the scratch
 * because only scalars may be passed. Returns non-zero when the walk is over.
 */
__noinline int walk_frames(u32 index)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch, &index);
	u64 pc, sp, bp, bx, hash;
	u32 count, limit, exact, end = END_NONE;

	if (!s)
		return END_UNREADABLE;
	pc = s->pc, sp = s->sp, bp = s->bp, bx = s->bx, hash = s->hash;
	count = s->count, limit = s->limit, exact = s->exact;
	for (int i = 0; i < 8; i++) {
		u64 rule, cfa, saved, frame_bp = bp;
		u8 kind, flags;

		if (count >= limit) {
			end = END_DEPTH;
			break;
		}
		s->pcs[count & (FRAMES - 1)] = pc;
		if (exact)
			s->exact_frames[count / 64 & 1] |= 1ull << (count & 63);
		count++;
		hash = (hash ^ pc) * 0x9E3779B97F4A7C15ull;
		hash ^= hash >> 32;

		rule = rule_at(exact ? pc : pc - 1);
		exact = 0;
		kind = rule;
		flags = rule >> 8;
		if (kind == KIND_OFFSET || kind == KIND_INDIRECT) {
			if (flags & GUESS) {
				s->guess = 1;
				/* The psABI (3.4.1) asks that the outermost frame be marked so. */
				if (!frame_bp) {
					end = END_COMPLETE;
					break;
				}
			}
			cfa = (flags & BASE_MASK) == BASE_RSP ? sp : (flags & BASE_MASK) == BASE_RBP ? bp : bx;
			cfa += (s64)(s32)(rule >> 32);
			if (kind == KIND_INDIRECT && word(s, cfa, &cfa))
				goto unreadable;
			if (flags & RBP_SAVED && word(s, (flags & RBP_BY_RBP ? frame_bp : cfa) + 8 * (s64)(s8)(rule >> 16), &bp))
				goto unreadable;
			if (flags & RBX_SAVED && word(s, (flags & RBX_BY_RBP ? frame_bp : cfa) + 8 * (s64)(s8)(rule >> 24), &bx))
				goto unreadable;
		} else if (kind == KIND_PLT) {
			cfa = sp + 8 + ((pc & 15) >= rule >> 32 ? 8 : 0);
		} else if (kind == KIND_SIGNAL) {
			if (word(s, sp + SIGNAL_RBP, &bp) || word(s, sp + SIGNAL_RBX, &bx) || word(s, sp + SIGNAL_RIP, &pc) ||
			    word(s, sp + SIGNAL_RSP, &sp))
				goto unreadable;
			exact = 1;
			continue;
		} else {
			end = kind == KIND_END ? END_COMPLETE : kind == KIND_SLOW ? END_SLOW : END_GAP;
			break;
		}
		if (cfa <= sp) {
			end = END_INCONSISTENT;
			break;
		}
		if (word(s, cfa - 8, &saved))
			goto unreadable;
		sp = cfa;
		pc = saved;
		if (!pc) {
			end = END_COMPLETE;
			break;
		}
		continue;
unreadable:
		end = END_UNREADABLE;
		break;
	}
	s->pc = pc, s->sp = sp, s->bp = bp, s->bx = bx, s->hash = hash;
	s->count = count, s->exact = exact, s->end = end;
	return end;
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

/* ---- books ---- */

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
		struct slot *slot = &bucket->slots[i];

		if (slot->address || __sync_val_compare_and_swap(&slot->address, SLOT_FREE, SLOT_BUSY))
			continue;
		slot->block = *block;
		barrier();
		slot->address = address;
		return 1;
	}
	return 0;
}

static __always_inline bool take_from_bucket(struct control *c, u64 address, struct block *out)
{
	struct bucket *bucket = bucket_of(c, address);

	if (!bucket)
		return 0;
	for (int i = 0; i < BUCKET_SLOTS; i++) {
		struct slot *slot = &bucket->slots[i];

		if (slot->address == address) {
			*out = slot->block;
			barrier();
			slot->address = SLOT_FREE;
			return 1;
		}
	}
	return 0;
}
#endif

/* Takes a live block out; false if there is none. */
static __always_inline bool take(struct control *c, u64 address, struct block *out)
{
	struct block *block;

#ifndef OLD_KERNEL
	if (take_from_bucket(c, address, out))
		return 1;
#endif
	if (!c->overflowed)
		return 0;
	block = bpf_map_lookup_elem(&overflow, &address);
	if (!block)
		return 0;
	*out = *block;
	bpf_map_delete_elem(&overflow, &address);
	return 1;
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

/* ---- calls ---- */

/* In assembly, as the compiler would compute the address first, and the verifier allows only constant offsets into a context. */
#define REGISTER(number)                                                                                               \
	case number:                                                                                                   \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value) : "r"(ctx), "i"(8 * (number)));                    \
		break

/* The register whose number (its place in struct pt_regs) is at bit `shift` of the cookie. */
static __always_inline u64 operand(struct pt_regs *ctx, u64 cookie, int shift)
{
	u64 value = 0;

	switch (cookie >> shift & 15) {
		REGISTER(14);
		REGISTER(13);
		REGISTER(12);
		REGISTER(11);
		REGISTER(10);
		REGISTER(9);
		REGISTER(8);
		REGISTER(7);
		REGISTER(6);
		REGISTER(5);
		REGISTER(4);
		REGISTER(3);
		REGISTER(2);
		REGISTER(1);
		REGISTER(0);
	}
	return value;
}

/*
 * True if this entry is part of the outer call in progress and so not counted. At the outer call's own stack level: a tail call
 * finds the return trampoline (code that no row covers) where the return address was; anything else means that the outer
 * call ended without returning.
 */
static __always_inline bool is_nested(struct call *outer, u64 sp)
{
	u64 word = 0;

	if (sp < outer->sp)
		return 1;
	if (sp > outer->sp || bpf_probe_read_user(&word, sizeof(word), (void *)sp))
		return 0;
	return word != outer->return_address && (rule_at(word) & 0xff) == KIND_GAP;
}

#ifdef OLD_KERNEL
/* What an attach cookie would say, by the probe's address: such cookies came with 5.15. */
struct {
	MAP(BPF_MAP_TYPE_HASH, u64, u64, 4096, 0);
} cookies SEC(".maps");

static __always_inline u64 cookie_of(struct pt_regs *ctx)
{
	u64 address = ctx->rip, *cookie = bpf_map_lookup_elem(&cookies, &address);

	return cookie ? *cookie : 0;
}
#else
static __always_inline u64 cookie_of(struct pt_regs *ctx)
{
	return bpf_get_attach_cookie(ctx);
}
#endif

/* Non-zero: do not trap this call's return. */
static __always_inline int entered(struct pt_regs *ctx)
{
	u64 cookie = cookie_of(ctx), sp = ctx->rsp + 8 * (cookie >> 24 & 255);
	struct control *c = settings();
	struct call *call;

	if (!c || !cookie)
		return 1;
	if (!c->tgid)
		c->tgid = bpf_get_current_pid_tgid() >> 32;
	call = call_of_thread(1);
	if (!call) {
		COUNT(c->lost_calls);
		return 1;
	}
	if (call->sp) {
		if (is_nested(call, sp))
			return 1;
		COUNT(c->never_returned);
	}
	call->sp = sp;
	call->cookie = cookie;
	call->size = operand(ctx, cookie, 8);
	call->operand = 0;
	call->old_known = 0;
	switch (cookie & 255) {
	case SHAPE_ALLOCATE_PRODUCT:
		call->size *= operand(ctx, cookie, 12);
		break;
	case SHAPE_REALLOCATE_PRODUCT:
		call->size *= operand(ctx, cookie, 12);
		call->operand = operand(ctx, cookie, 16);
		break;
	case SHAPE_ALLOCATE_INTO:
	case SHAPE_REALLOCATE:
	case SHAPE_EXPAND:
	case SHAPE_EXPAND_TO_SIZE:
		call->operand = operand(ctx, cookie, 16);
		break;
	}
	call->site = site_of_call(c, ctx, call, sp);
	if ((cookie & 255) >= SHAPE_REALLOCATE && call->operand) {
		/* Out of the books until it returns: another thread may be handed the address before that. */
		COUNT(c->realloc_begun);
		call->old_known = take(c, call->operand, &call->old);
	}
	return 0;
}

static __always_inline void reallocated(struct control *c, struct call *call, u64 result, u64 now)
{
	u64 shape = call->cookie & 255;
	struct site *site;
	bool resized = result != 0, gone = 0;

	COUNT(c->realloc_ended);
	if (shape == SHAPE_EXPAND_TO_SIZE) {
		resized = result >= call->size;
		result = call->operand;
	} else if (!resized) {
		gone = call->cookie & COOKIE_FREES_ON_FAILURE || (shape != SHAPE_EXPAND && !call->size);
	}
	if (resized && result != call->operand) {
		if (call->old_known)
			freed(c, &call->old, now);
		allocated(c, result, call->size, call->site, now);
	} else if (call->old_known && gone) {
		freed(c, &call->old, now);
	} else if (call->old_known) {
		/* In place it keeps its age and its site. */
		if (resized) {
			site = site_of(call->old.site);
			if (site)
				ADD(site->allocated_bytes, call->size - call->old.size);
			call->old.size = call->size;
		}
		keep(c, call->operand, call->old.size, call->old.time, call->old.site);
	}
}

static __always_inline int returned(struct pt_regs *ctx)
{
	struct control *c = settings();
	u64 result = ctx->rax, now;
	struct call *call;

	call = call_of_thread(0);
	if (!c || !call || call->sp + 8 != ctx->rsp)
		return 0;
	call->sp = 0;
	now = bpf_ktime_get_ns();
	switch (call->cookie & 255) {
	case SHAPE_ALLOCATE_INTO:
		if (result || bpf_probe_read_user(&result, sizeof(result), (void *)call->operand))
			return 0;
		break;
	case SHAPE_REALLOCATE:
	case SHAPE_REALLOCATE_PRODUCT:
	case SHAPE_EXPAND:
	case SHAPE_EXPAND_TO_SIZE:
		if (call->operand) {
			reallocated(c, call, result, now);
			return 0;
		}
		break;
	}
	if (result)
		allocated(c, result, call->size, call->site, now);
	return 0;
}

static __always_inline int freeing(struct pt_regs *ctx)
{
	u64 cookie = cookie_of(ctx), address = operand(ctx, cookie, 16);
	struct control *c = settings();
	struct block block;
	struct call *call;

	if (!c || !address)
		return 0;
	call = call_of_thread(0);
	if (call && call->sp && ctx->rsp + 8 * (cookie >> 24 & 255) <= call->sp)
		return 0;
	if (take(c, address, &block))
		freed(c, &block, bpf_ktime_get_ns());
	else
		COUNT(c->unknown_frees);
	return 0;
}

#ifndef OLD_KERNEL
extern bool bpf_session_is_return(void) __ksym __weak;

SEC("uprobe.session")
int session_call(struct pt_regs *ctx)
{
	return bpf_session_is_return() ? returned(ctx) : entered(ctx);
}

SEC("uprobe.multi")
int multi_enter(struct pt_regs *ctx)
{
	entered(ctx);
	return 0;
}

SEC("uretprobe.multi")
int multi_return(struct pt_regs *ctx)
{
	return returned(ctx);
}

SEC("uprobe.multi")
int multi_free(struct pt_regs *ctx)
{
	return freeing(ctx);
}

#endif

SEC("uprobe")
int perf_enter(struct pt_regs *ctx)
{
	entered(ctx);
	return 0;
}

SEC("uretprobe")
int perf_return(struct pt_regs *ctx)
{
	return returned(ctx);
}

SEC("uprobe")
int perf_free(struct pt_regs *ctx)
{
	return freeing(ctx);
}

/* Makes user space look at the counters now. */
static __always_inline void wake(void)
{
	u64 *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (record) {
		*record = 0;
		bpf_ringbuf_submit(record, 0);
	}
}

/* The dynamic linker has changed what is mapped. */
static __always_inline int loader_changed(void)
{
	struct control *c = settings();

	if (c)
		COUNT(c->loader_changes);
	wake();
	return 0;
}

SEC("uprobe")
int perf_loader(struct pt_regs *ctx)
{
	return loader_changed();
}

#ifndef OLD_KERNEL
SEC("uprobe.multi")
int multi_loader(struct pt_regs *ctx)
{
	return loader_changed();
}
#endif

SEC("raw_tp/sched_process_exec")
int exec(void *ctx)
{
	struct control *c = settings();

	if (c && c->tgid && c->tgid == bpf_get_current_pid_tgid() >> 32) {
		c->exec_time = bpf_ktime_get_ns();
		COUNT(c->execs);
		wake();
	}
	return 0;
}
