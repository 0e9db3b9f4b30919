/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Follows calls into the allocator: what they ask for, and what comes of it.
 */
#ifndef MEMLEAX_FOLLOW_H
#define MEMLEAX_FOLLOW_H

#include "books.bpf.h"
#include "mappings.bpf.h"
#include "holds.bpf.h"
#include "operand.bpf.h"

/*
 * True if an entry whose return address is at `sp` is part of the outer call in progress, of its class, and so not counted. Where the outer call's return
 * address was there is the return trampoline then (the beginning of a page that no row covers; a tail call finds it at its own
 * level); anything else means that the outer call ended without returning, or that its return can't be seen.
 */
static __always_inline bool is_nested(struct call *outer, u64 sp)
{
	u64 word = 0;

	if (sp > outer->sp || bpf_probe_read_user(&word, sizeof(word), (void *)outer->sp))
		return 0;
	return is_like_trampoline(word) && (rule_at(word) & 0xff) == KIND_GAP;
}

/* The same. Of objects it is besides known whose trampoline that is: another type's call may have taken the place of one that did not return. */
static __always_inline bool is_part(u64 cookie, struct object_calls *of_thread, struct call *outer, u64 sp)
{
	return is_nested(outer, sp) &&
	       (!loading.objects || !CLASS_OF(cookie) || is_trapped(of_thread, CLASS_OF(cookie), outer->sp));
}

/* The thread's calls of objects; NULL also where there are none. */
static __always_inline struct object_calls *calls_of_class(u64 cookie, bool create, struct call **call)
{
	struct object_calls *of_thread;

	if (!loading.objects || !CLASS_OF(cookie)) {
		*call = call_of_thread(create);
		return NULL;
	}
	*call = NULL;
	of_thread = object_calls_of_thread(create);
	if (of_thread) {
		/* Or the compiler would compute the place before it looks whether there is one, which the verifier refuses. */
		asm volatile("" : "+r"(cookie));
		*call = &of_thread->calls[CLASS_OF(cookie)];
	}
	return of_thread;
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
 * The thread runs a signal handler on its alternate stack, above the stack with a call in progress (of whichever class). Were a return trapped
 * here, the kernel would take that call for ended (cleanup_return_instances, kernel/events/uprobes.c) and end the process by SIGILL when it
 * returns.
 */
static __always_inline bool is_above(u64 sp, struct call *of_class)
{
#ifdef OLD_KERNEL
	return 0;
#else
	struct task_struct *task = bpf_get_current_task_btf();
	u64 start = task->sas_ss_sp, end = start + task->sas_ss_size;
	struct object_calls *of_objects;
	struct call *of_memory;

	if (sp <= start || sp > end)
		return 0;
	if (of_class->sp && (of_class->sp <= start || of_class->sp > end))
		return 1;
	if (!loading.objects)
		return 0;
	of_memory = call_of_thread(0);
	if (of_memory && of_memory->sp && (of_memory->sp <= start || of_memory->sp > end))
		return 1;
	/* The outermost is enough: it is the one that was interrupted, if any was. */
	of_objects = object_calls_of_thread(0);
	return of_objects && of_objects->traps.count &&
	       (of_objects->traps.at[0].sp <= start || of_objects->traps.at[0].sp > end);
#endif
}

/* Non-zero: do not trap this call's return, if that is in our hands (`may_refuse`). */
static __always_inline int entered(struct pt_regs *ctx, bool may_refuse)
{
	u64 cookie = cookie_of(ctx), shape = cookie & 255, sp = ctx->rsp + 8 * (cookie >> 24 & 255);
	struct object_calls *of_objects;
	struct control *c = open_books();
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
	of_objects = calls_of_class(cookie, 1, &call);
	if (!call) {
		COUNT(c->lost_calls);
		return 1;
	}
	if (call->sp && is_part(cookie, of_objects, call, sp)) {
		/* Whose return is trapped all the same. */
		if (loading.objects && !may_refuse)
			trap_return(object_calls_of_thread(1), sp, ctx->rip, 0);
		return 1;
	}
	if (may_refuse && (loading.objects || call->sp) && is_above(sp, call)) {
		COUNT(c->lost_calls);
		return 1;
	}
	if (call->sp) {
		COUNT(c->never_returned);
		if (call->old_known)
			land(c, key_of(call->cookie, call->operand), &call->old, call->old.size);
	}
	call->sp = 0;
	call->return_address = 0;
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
	case SHAPE_INITIALIZE:
		if (cookie & COOKIE_PRODUCT)
			call->size *= operand(ctx, cookie, 12);
		call->operand = operand(ctx, cookie, 16);
		break;
	case SHAPE_REALLOCATE:
	case SHAPE_EXPAND:
	case SHAPE_EXPAND_TO_SIZE:
		call->operand = operand(ctx, cookie, 16);
		break;
	}
	call->hidden = 0;
	call->site = site_of_call(ctx, call, sp, 0);
	call->sp = sp;
	if (of_objects)
		trap_return(of_objects, sp, ctx->rip, 1ull << CLASS_OF(cookie));
	if (shape >= SHAPE_REALLOCATE && shape < SHAPE_FREE && call->operand)
		call->old_known = take_off(c, key_of(cookie, call->operand), &call->old);
	return 0;
}

/* Where a call is counted, with what `struct block` says of an object besides. */
static __always_inline u64 counted_at(struct call *call)
{
	u64 class;

	if (!loading.objects)
		return call->site;
	class = CLASS_OF(call->cookie);
	return (call->site ? call->site : class) | (class ? HOLD : 0);
}

static __always_inline void reallocated(struct control *c, struct call *call, u64 result, u64 now)
{
	u64 shape = call->cookie & 255, key = key_of(call->cookie, call->operand);
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
			drop(c, key, &call->old);
			freed(c, &call->old, now);
		} else if (resized) {
			/* In place it keeps its age and its site. */
			site = site_of(call->old.site);
			if (site)
				ADD(site->allocated_bytes, call->size - call->old.size);
			COUNT(c->resized);
			ADD(c->resized_bytes, call->old.size);
			land(c, key, &call->old, call->size);
		} else {
			land(c, key, &call->old, call->old.size);
		}
	}
	if (resized && result != call->operand)
		allocated(c, key_of(call->cookie, result), call->size, counted_at(call), now);
}

/* A call has come to its end. */
static __always_inline void completed(struct pt_regs *ctx, struct control *c, struct call *call)
{
	u64 result = ctx->rax, now;

	call->sp = 0;
	if (call->hidden)
		call->site = site_of_call(ctx, call, ctx->rsp - 8, ctx->rip);
	now = bpf_ktime_get_ns();
	switch (call->cookie & 255) {
	case SHAPE_ALLOCATE_INTO:
		if (((u32)result && !(call->cookie & COOKIE_ALWAYS)) ||
		    bpf_probe_read_user(&result, sizeof(result), (void *)call->operand))
			return;
		break;
	case SHAPE_INITIALIZE:
		if ((u32)result && !(call->cookie & COOKIE_ALWAYS))
			return;
		result = call->operand;
		break;
	case SHAPE_REALLOCATE:
	case SHAPE_REALLOCATE_PRODUCT:
	case SHAPE_EXPAND:
	case SHAPE_EXPAND_TO_SIZE:
		if (call->operand) {
			reallocated(c, call, result, now);
			return;
		}
		break;
	case SHAPE_MAP:
	case SHAPE_REMAP:
		mapped(call, result, now);
		return;
	}
	if (result)
		allocated(c, key_of(call->cookie, result), call->size, counted_at(call), now);
}

#ifdef OLD_KERNEL
/* Nothing tells whose return it is: that of all calls whose return address was there. */
static __always_inline void object_returned(struct pt_regs *ctx, struct control *c)
{
	struct object_calls *of_thread = object_calls_of_thread(0);
	u64 classes = returned_from_trap(of_thread, ctx->rsp - 8);
	u32 thread = bpf_get_current_pid_tgid();

	if (!of_thread)
		return;
	for (u32 class = 1; class < CLASSES; class++)
		if (classes >> class & 1)
			completed(ctx, c, &of_thread->calls[class]);
	if (of_thread->traps.count)
		return;
	for (u32 class = 1; class < CLASSES; class++)
		if (of_thread->calls[class].sp)
			COUNT(c->never_returned);
	bpf_map_delete_elem(&object_calls, &thread);
}
#endif

/* Of calls of one class or of two that end at once (tail calls) each is told of, in any order. */
static __always_inline int returned(struct pt_regs *ctx, bool is_session)
{
	struct control *c = open_books();
	struct call *call;

	if (!c)
		return 0;
#ifdef OLD_KERNEL
	if (loading.objects)
		object_returned(ctx, c);
	call = call_of_thread(0);
#else
	if (loading.objects) {
		struct object_calls *of_objects = calls_of_class(cookie_of(ctx), 0, &call);

		/* In a session only those returns are trapped that are followed. */
		if (!of_objects && !is_session)
			of_objects = object_calls_of_thread(0);
		returned_from_trap(of_objects, ctx->rsp - 8);
	} else {
		call = call_of_thread(0);
	}
#endif
	if (call && call->sp + 8 == ctx->rsp)
		completed(ctx, c, call);
	return 0;
}

static __always_inline int freeing(struct pt_regs *ctx)
{
	u64 cookie = cookie_of(ctx), address = operand(ctx, cookie, 16);
	struct control *c = open_books();
	u64 shape = cookie & 255, sp = ctx->rsp + 8 * (cookie >> 24 & 255);
	u64 class = loading.objects ? CLASS_OF(cookie) : 0;
	struct block block;
	struct call *call;
	bool was_last = 1, is_part = 0;

	if (c && !cookie)
		COUNT(c->lost_calls);
	if (!c || !cookie || !address)
		return 0;
	if (!class) {
		call = call_of_thread(0);
		if (call && call->sp && is_nested(call, sp))
			return 0;
	}
	if (shape == SHAPE_UNMAP) {
		unmapping(address, operand(ctx, cookie, 8));
		return 0;
	}
	if (loading.objects) {
		address = key_of(cookie, address);
		is_part = class && is_part_of_other(ctx->rip, address, ctx->rbp, ctx->rbx, sp);
		if (is_part && shape != SHAPE_FREE)
			return 0;
		if (shape == SHAPE_RETAIN) {
			retain(c, address);
			return 0;
		}
	}
	if (loading.objects && shape == SHAPE_RELEASE ? release(c, address, &block, &was_last) : take(c, address, &block)) {
		if (was_last)
			freed(c, &block, bpf_ktime_get_ns());
	} else if (class) {
		if (!is_part)
			COUNT(c->unknown_objects[class]);
	} else {
		COUNT(c->unknown_frees);
	}
	return 0;
}

#endif
