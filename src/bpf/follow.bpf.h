/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Follows calls into the allocator: what they ask for, and what comes of it.
 */
#ifndef MEMLEAX_FOLLOW_H
#define MEMLEAX_FOLLOW_H

#include "books.bpf.h"
#include "mappings.bpf.h"

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
 * True if an entry whose return address is at `sp` is part of the outer call in progress and so not counted. Where the outer call's return
 * address was there is the return trampoline then (the beginning of a page that no row covers; a tail call finds it at its own
 * level); anything else means that the outer call ended without returning, or that its return can't be seen.
 */
static __always_inline bool is_nested(struct call *outer, u64 sp)
{
	u64 word = 0;

	if (sp > outer->sp || bpf_probe_read_user(&word, sizeof(word), (void *)outer->sp))
		return 0;
	return word >> 32 && !(word & (PAGE - 1)) && (rule_at(word) & 0xff) == KIND_GAP;
}

#ifdef OLD_KERNEL
/*
 * What an attach cookie would say: such cookies came with 5.15. By the probe's place in its page, which is the same wherever the file is
 * mapped, so also right after an exec; or by its address, where 0 says that several probes have that place.
 */
struct {
	MAP(BPF_MAP_TYPE_HASH, u64, u64, 8192, 0);
} cookies SEC(".maps");

static __always_inline u64 cookie_of(struct pt_regs *ctx)
{
	u64 address = ctx->rip, place = address & (PAGE - 1), *cookie = bpf_map_lookup_elem(&cookies, &place);

	if (cookie && !*cookie)
		cookie = bpf_map_lookup_elem(&cookies, &address);
	return cookie ? *cookie : 0;
}
#else
static __always_inline u64 cookie_of(struct pt_regs *ctx)
{
	return bpf_get_attach_cookie(ctx);
}
#endif

/*
 * The thread runs a signal handler on its alternate stack, above the stack with a call in progress. Were a return trapped here, the kernel
 * would take that call for ended (cleanup_return_instances, kernel/events/uprobes.c) and end the process by SIGILL when it returns.
 */
static __always_inline bool is_above(u64 sp, u64 in_progress)
{
#ifdef OLD_KERNEL
	return 0;
#else
	struct task_struct *task = bpf_get_current_task_btf();
	u64 start = task->sas_ss_sp, end = start + task->sas_ss_size;

	return sp > start && sp <= end && (in_progress <= start || in_progress > end);
#endif
}

/* Non-zero: do not trap this call's return, if that is in our hands (`may_refuse`). */
static __always_inline int entered(struct pt_regs *ctx, bool may_refuse)
{
	u64 cookie = cookie_of(ctx), shape = cookie & 255, sp = ctx->rsp + 8 * (cookie >> 24 & 255);
	struct control *c = settings();
	struct call *call;

	if (!c)
		return 1;
	if (!cookie) {
		COUNT(c->lost_calls);
		return 1;
	}
	if (shape == SHAPE_MAP && !(operand(ctx, cookie, 12) & MAP_ANONYMOUS))
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
		if (may_refuse && is_above(sp, call->sp)) {
			COUNT(c->lost_calls);
			return 1;
		}
		COUNT(c->never_returned);
		if (call->old_known)
			land(c, call->operand, &call->old, call->old.size);
	}
	call->sp = sp;
	call->cookie = cookie;
	call->size = operand(ctx, cookie, 8);
	call->operand = 0;
	call->old_known = 0;
	switch (shape) {
	case SHAPE_ALLOCATE_PRODUCT:
		call->size *= operand(ctx, cookie, 12);
		break;
	case SHAPE_REMAP:
		call->old.size = operand(ctx, cookie, 12);
		call->operand = operand(ctx, cookie, 16);
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
	call->hidden = 0;
	call->site = site_of_call(ctx, call, sp, 0);
	if (shape >= SHAPE_REALLOCATE && shape < SHAPE_FREE && call->operand)
		call->old_known = take_off(c, call->operand, &call->old);
	return 0;
}

static __always_inline void reallocated(struct control *c, struct call *call, u64 result, u64 now)
{
	u64 shape = call->cookie & 255;
	struct site *site;
	bool resized = result != 0, gone = 0;

	if (shape == SHAPE_EXPAND_TO_SIZE) {
		resized = result >= call->size;
		result = call->operand;
	} else if (!resized) {
		gone = call->cookie & COOKIE_FREES_ON_FAILURE || (shape != SHAPE_EXPAND && !call->size);
	}
	if (call->old_known) {
		if (gone || (resized && result != call->operand)) {
			drop(c, call->operand, &call->old);
			freed(c, &call->old, now);
		} else if (resized) {
			/* In place it keeps its age and its site. */
			site = site_of(call->old.site);
			if (site)
				ADD(site->allocated_bytes, call->size - call->old.size);
			COUNT(c->resized);
			ADD(c->resized_bytes, call->old.size);
			land(c, call->operand, &call->old, call->size);
		} else {
			land(c, call->operand, &call->old, call->old.size);
		}
	}
	if (resized && result != call->operand)
		allocated(c, result, call->size, call->site, now);
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
	if (call->hidden)
		call->site = site_of_call(ctx, call, ctx->rsp - 8, ctx->rip);
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
	case SHAPE_MAP:
	case SHAPE_REMAP:
		mapped(call, result, now);
		return 0;
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

	if (c && !cookie)
		COUNT(c->lost_calls);
	if (!c || !cookie || !address)
		return 0;
	call = call_of_thread(0);
	if (call && call->sp && is_nested(call, ctx->rsp + 8 * (cookie >> 24 & 255)))
		return 0;
	if ((cookie & 255) == SHAPE_UNMAP)
		unmapping(address, operand(ctx, cookie, 8));
	else if (take(c, address, &block))
		freed(c, &block, bpf_ktime_get_ns());
	else
		COUNT(c->unknown_frees);
	return 0;
}

#endif
