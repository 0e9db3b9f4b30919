/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Follows calls into the allocators of all processes: what they ask for, and what comes of it.
 */
#ifndef MEMLEAX_MACHINE_CALLS_H
#define MEMLEAX_MACHINE_CALLS_H

#include "blocks.bpf.h"
#include "../operand.bpf.h"

/* A thread: its call in progress, of which there is one, and whose its address space is. */
struct thread {
	u64 sp; /* where the call's return address is; 0: none in progress */
	u64 cookie;
	u64 size;
	u64 operand; /* the block, or the pointer for the result */
	u64 old_size;
	u64 old_known;
	u64 mm, serial, place;
	u64 freed_at, freed_sp, freed; /* its last deallocation, since its last call */
};
struct {
	MAP(BPF_MAP_TYPE_TASK_STORAGE, int, struct thread, 0, BPF_F_NO_PREALLOC);
} threads SEC(".maps");

static __always_inline struct thread *this_thread(bool create)
{
	return bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL,
				    create ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
}

/* Whose memory the current thread allocates. NULL if there is no place for it. */
static __noinline struct process *find_owner(struct machine *c, struct thread *thread)
{
	struct task_struct___process *of = current();
	struct process *process;
	u64 mm = (u64)of->mm;

	if (!c || !thread)
		return NULL;
	thread->place = place_of_space(c, of, mm);
	thread->mm = mm;
	process = process_at(thread->place);
	if (process)
		thread->serial = process->serial;
	return process;
}

static __always_inline struct process *owner(struct machine *c, struct thread *thread)
{
	struct process *process = thread->mm == (u64)current()->mm ? process_at(thread->place) : NULL;

	return process && process->serial == thread->serial && process->place == PLACE_RUNNING ? process :
												  find_owner(c, thread);
}

static __always_inline void lose_call(struct machine *c, struct process *process)
{
	if (process)
		COUNT(process->lost_calls);
	else
		COUNT(c->lost_calls);
}

/* True if that is where the kernel lets a trapped return go: its own page in the process, whose address only the process itself tells. */
static __always_inline bool is_trampoline(u64 word)
{
	struct xol_area *area;

	if (!(word >> 32) || word & 4095)
		return 0;
	area = current()->mm->uprobes_state.xol_area;
	return area && area->vaddr == word;
}

/*
 * True if an entry whose return address is at `sp` is part of the outer call in progress and so not counted: the outer call's return is still
 * trapped. Else it ended without returning.
 */
static __always_inline bool is_nested(struct thread *outer, u64 sp)
{
	u64 word = 0;

	return sp <= outer->sp && !bpf_probe_read_user(&word, sizeof(word), (void *)outer->sp) && is_trampoline(word);
}

/* See is_above() of src/bpf/follow.bpf.h: to trap the return of such a call would kill the process. */
static __always_inline bool is_above(u64 sp, u64 in_progress)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 start = task->sas_ss_sp, end = start + task->sas_ss_size;

	return sp > start && sp <= end && (in_progress <= start || in_progress > end);
}

/* Non-zero: do not trap this call's return, if that is in our hands (`may_refuse`). */
static __always_inline int entered(struct pt_regs *ctx, bool may_refuse)
{
	u64 cookie = bpf_get_attach_cookie(ctx), sp = ctx->rsp + 8 * (cookie >> 24 & 255), key, old;
	struct machine *c = settings();
	struct process *process;
	struct thread *thread;

	if (!c || current_pid() == c->self)
		return 1;
	thread = this_thread(1);
	if (!thread) {
		COUNT(c->lost_calls);
		return 1;
	}
	/* A file that is probed by two ways (two overlays above it, say) tells of each call twice. */
	if (thread->sp && !(thread->sp == sp && thread->cookie == cookie) && is_nested(thread, sp))
		return 1;
	process = owner(c, thread);
	if (!process) {
		COUNT(c->lost_calls);
		return 1;
	}
	if (thread->sp) {
		if (may_refuse && is_above(sp, thread->sp)) {
			COUNT(process->lost_calls);
			return 1;
		}
		if (thread->sp != sp || thread->cookie != cookie)
			COUNT(process->never_returned);
		if (thread->old_known)
			put(c, key_of(thread->place, thread->operand), thread->old_size, &old);
	}
	thread->freed_at = 0;
	thread->sp = sp;
	thread->cookie = cookie;
	thread->size = operand(ctx, cookie, 8);
	thread->operand = 0;
	thread->old_known = 0;
	switch (cookie & 255) {
	case SHAPE_ALLOCATE_PRODUCT:
		thread->size *= operand(ctx, cookie, 12);
		break;
	case SHAPE_REALLOCATE_PRODUCT:
		thread->size *= operand(ctx, cookie, 12);
		thread->operand = operand(ctx, cookie, 16);
		break;
	case SHAPE_ALLOCATE_INTO:
	case SHAPE_REALLOCATE:
	case SHAPE_EXPAND:
	case SHAPE_EXPAND_TO_SIZE:
		thread->operand = operand(ctx, cookie, 16);
		break;
	}
	/* Out of the books while `realloc` is about it: another thread may be handed its address before that returns. */
	if ((cookie & 255) >= SHAPE_REALLOCATE && thread->operand) {
		key = key_of(thread->place, thread->operand);
		if (take(c, key, &old)) {
			thread->old_known = 1;
			thread->old_size = old;
		}
	}
	return 0;
}

/* A block that was resized, or moved, counts as freed and allocated anew: which of the two it is, is the allocator's own affair. */
static __always_inline void reallocated(struct machine *c, struct process *process, struct thread *thread, u64 result)
{
	u64 shape = thread->cookie & 255, old, key = key_of(thread->place, thread->operand);
	bool resized = result != 0, gone = 0;

	if (shape == SHAPE_EXPAND_TO_SIZE) {
		resized = result >= thread->size;
		result = thread->operand;
	} else if (!resized) {
		gone = thread->cookie & COOKIE_FREES_ON_FAILURE || (shape != SHAPE_EXPAND && !thread->size);
	}
	if (!resized && !gone) {
		if (thread->old_known)
			put(c, key, thread->old_size, &old);
		return;
	}
	if (thread->old_known)
		freed(process, thread->old_size);
	else
		COUNT(process->unknown_frees);
	if (resized)
		allocated(c, process, key_of(thread->place, result), thread->size);
}

static __always_inline int returned(struct pt_regs *ctx)
{
	struct machine *c = settings();
	u64 result = ctx->rax;
	struct process *process;
	struct thread *thread;

	if (!c || current_pid() == c->self)
		return 0;
	thread = this_thread(0);
	if (!thread || thread->sp + 8 != ctx->rsp)
		return 0;
	thread->sp = 0;
	process = owner(c, thread);
	if (!process) {
		COUNT(c->lost_calls);
		return 0;
	}
	switch (thread->cookie & 255) {
	case SHAPE_ALLOCATE_INTO:
		if (result || bpf_probe_read_user(&result, sizeof(result), (void *)thread->operand))
			return 0;
		break;
	case SHAPE_REALLOCATE:
	case SHAPE_REALLOCATE_PRODUCT:
	case SHAPE_EXPAND:
	case SHAPE_EXPAND_TO_SIZE:
		if (thread->operand) {
			reallocated(c, process, thread, result);
			return 0;
		}
		break;
	}
	if (result)
		allocated(c, process, key_of(thread->place, result), thread->size);
	return 0;
}

static __always_inline int freeing(struct pt_regs *ctx)
{
	u64 cookie = bpf_get_attach_cookie(ctx), address = operand(ctx, cookie, 16), size = 0;
	struct machine *c = settings();
	struct process *process;
	struct thread *thread;

	if (!c || !address || current_pid() == c->self)
		return 0;
	thread = this_thread(1);
	if (!thread) {
		COUNT(c->lost_calls);
		return 0;
	}
	if (thread->sp && is_nested(thread, ctx->rsp + 8 * (cookie >> 24 & 255)))
		return 0;
	process = owner(c, thread);
	if (!process) {
		COUNT(c->lost_calls);
		return 0;
	}
	if (take(c, key_of(thread->place, address), &size))
		freed(process, size);
	else if (thread->freed_at != ctx->rip || thread->freed_sp != ctx->rsp || thread->freed != address)
		COUNT(process->unknown_frees);
	thread->freed_at = ctx->rip;
	thread->freed_sp = ctx->rsp;
	thread->freed = address;
	return 0;
}

/* The current thread's address space is another now, perhaps at the same place as one before. */
static __always_inline void forget_thread(void)
{
	struct thread *thread = this_thread(0);

	if (!thread)
		return;
	thread->sp = 0;
	thread->mm = 0;
	thread->place = 0;
	thread->freed_at = 0;
}

#endif
