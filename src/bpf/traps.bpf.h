/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Returns that the kernel traps for us: there its trampoline is on the stack, and the return address is known here only.
 *
 * Memory alone needs none of this: within its outermost call no stack is walked. An object's allocator calls that of memory, whose stack goes
 * through the trap of the former. Of memory's own outermost call `struct call` tells; `struct traps` of all others, those included
 * that are part of another call of their class, whose return an old kernel traps nevertheless.
 */
#ifndef MEMLEAX_TRAPS_H
#define MEMLEAX_TRAPS_H

#include "call.bpf.h"

/* The trampoline is at the beginning of a page. (That no row covers: who can, checks that, too.) */
static __always_inline bool is_like_trampoline(u64 word)
{
	return word >> 32 && !(word & (PAGE - 1));
}

/* The return address that was at `sp`; 0: none is known. Global: see walk_frames(). */
__noinline u64 trapped_return(u64 sp)
{
	struct object_calls *of_objects = object_calls_of_thread(0);
	struct call *of_memory = call_of_thread(0);

	if (of_objects)
		for (u32 i = 0; i < TRAPS && i < of_objects->traps.count; i++)
			if (of_objects->traps.at[i].sp == sp)
				return of_objects->traps.at[i].return_address;
	return of_memory && of_memory->sp == sp ? of_memory->return_address : 0;
}

/* True if the outermost call of `class`, whose return address was at `sp`, has not ended, for all that is known here. */
static __noinline bool is_trapped(struct object_calls *of_thread, u64 class, u64 sp)
{
	if (of_thread)
		for (u32 i = 0; i < TRAPS && i < of_thread->traps.count; i++)
			if (of_thread->traps.at[i].sp == sp && of_thread->traps.at[i].classes >> class & 1)
				return 1;
	return 0;
}

/*
 * The kernel is about to trap the return of a call, whose return address is at `sp`, of the `classes` whose outermost call it is. What was
 * trapped below there has ended without returning: so thinks the kernel, too. At the same place there may be another class's probe at this
 * very instruction, or a call of which this one is the last part.
 */
static __noinline void trap_return(struct object_calls *of_thread, u64 sp, u64 instruction, u64 classes)
{
	u64 word = 0, count;
	bool is_tail_call;
	struct trap *trap;

	if (!of_thread || bpf_probe_read_user(&word, sizeof(word), (void *)sp))
		return;
	is_tail_call = is_like_trampoline(word);
	count = of_thread->traps.count;
	for (int i = 0; i < TRAPS && count; i++) {
		trap = &of_thread->traps.at[(count - 1) & (TRAPS - 1)];
		if (trap->sp > sp)
			break;
		if (trap->sp == sp && (is_tail_call || (trap->instruction == instruction && !(trap->classes & classes)))) {
			trap->classes |= classes;
			of_thread->traps.count = count;
			return;
		}
		count--;
	}
	if (is_tail_call)
		word = trapped_return(sp);
	of_thread->traps.count = count;
	/* Read anew, as old kernels' verifiers take what they know of it by now for a contradiction. */
	count = *(volatile u64 *)&of_thread->traps.count;
	if (count < TRAPS) {
		trap = &of_thread->traps.at[count & (TRAPS - 1)];
		trap->sp = sp;
		trap->return_address = word;
		trap->instruction = instruction;
		trap->classes = classes;
		of_thread->traps.count = count + 1;
	}
}

/* A call has returned whose return address was at `sp`: which classes' calls that were. */
static __noinline u64 returned_from_trap(struct object_calls *of_thread, u64 sp)
{
	u64 count, classes = 0;
	struct trap *trap;

	if (!of_thread)
		return 0;
	count = of_thread->traps.count;
	for (int i = 0; i < TRAPS && count; i++) {
		trap = &of_thread->traps.at[(count - 1) & (TRAPS - 1)];
		if (trap->sp > sp)
			break;
		if (trap->sp == sp)
			classes |= trap->classes;
		count--;
	}
	of_thread->traps.count = count;
	return classes;
}

#endif
