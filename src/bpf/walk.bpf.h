/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Walks a stack by the table that user space compiled from the modules' call frame information.
 */
#ifndef MEMLEAX_WALK_H
#define MEMLEAX_WALK_H

#include "traps.bpf.h"

/* Ascending: address << 16 | number of the rule that holds from there on. Sized at load. */
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, u64, 1, BPF_F_MMAPABLE);
} rows SEC(".maps");

struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, u64, RULES, BPF_F_MMAPABLE);
} rules SEC(".maps");

struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct cached_rule, RULE_CACHE, BPF_F_MMAPABLE);
} rule_cache SEC(".maps");

/* Where a stack is walked; four for each CPU, since these programs may be preempted. Sized at load. */
struct scratch {
	u32 busy;
	u32 count, limit, exact, guess, insufficient, end, length;
	u64 pc, sp, bp, bx, base, hash, want, unreadable;
	u64 interrupted; /* rsp where the last signal came; 0: none did */
	u64 exact_frames[FRAMES / 64];
	u64 next_site;
	u64 caller;
	u64 pcs[FRAMES];
	u8 stack[WINDOW + 8];
};
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct scratch, 1, 0);
} scratch SEC(".maps");

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

/* Of a cached rule: its address, mixed with the rule such that no other rule goes with it. */
#define CHECK(pc, rule) ((pc) ^ (rule) * 0x9E3779B97F4A7C15ull)

static __always_inline u64 rule_at(u64 pc)
{
	u32 place = (u32)(pc ^ pc >> 16) & (RULE_CACHE - 1), number;
	struct cached_rule *cached = bpf_map_lookup_elem(&rule_cache, &place);
	u64 rule, *found;

	if (!cached)
		return 0;
	rule = cached->rule;
	if (cached->check != CHECK(pc, rule)) {
		number = find_rule(pc);
		found = bpf_map_lookup_elem(&rules, &number);
		rule = found ? *found : 0;
		cached->rule = rule;
		cached->check = CHECK(pc, rule);
	}
	return rule;
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
		rule = rule_at(exact ? pc : pc - 1);
		if ((rule & 0xff) == KIND_GAP && loading.objects && !exact && is_like_trampoline(pc)) {
			saved = trapped_return(sp - 8);
			if (saved) {
				pc = saved;
				rule = rule_at(pc - 1);
			}
		}
		s->pcs[count & (FRAMES - 1)] = pc;
		if (exact)
			s->exact_frames[count / 64 & 1] |= 1ull << (count & 63);
		count++;
		hash = (hash ^ pc) * 0x9E3779B97F4A7C15ull;
		hash ^= hash >> 32;
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
			s->interrupted = sp;
			exact = 1;
			continue;
		} else {
			end = kind == KIND_END ? END_COMPLETE : kind == KIND_SLOW ? END_SLOW : END_GAP;
			break;
		}
		if (cfa <= sp) {
			/* Another stack, or the walk is lost. */
			sp = cfa;
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

#endif
