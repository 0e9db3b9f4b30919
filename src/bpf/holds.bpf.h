/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Calls that free an object, or take or drop a reference to it. Of those that are part of one another, for the same object, the outermost
 * counts; and one that frees, if the others have not done so. Their returns are not trapped: whether one goes on is seen by its return address,
 * which is on the stack for as long.
 */
#ifndef MEMLEAX_HOLDS_H
#define MEMLEAX_HOLDS_H

#include "books.bpf.h"

/* One that may still go on. */
struct hold_call {
	u64 sp, return_address;
	u64 key; /* of the object: key_of() */
	u64 instruction; /* of the probe */
};

/* Those further in are not told apart. */
#define HOLD_CALLS 8

/* Of a thread, outermost first. */
struct hold_calls {
	u64 count;
	struct hold_call at[HOLD_CALLS];
};

#ifdef OLD_KERNEL
/* Sized at load. */
struct {
	MAP(BPF_MAP_TYPE_HASH, u32, struct hold_calls, 32768, 0);
} hold_calls SEC(".maps");

/* What a new one is: too large for the stack. */
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct hold_calls, 1, 0);
} no_hold_calls SEC(".maps");

static __always_inline struct hold_calls *hold_calls_of_thread(void)
{
	u32 thread = bpf_get_current_pid_tgid(), zero = 0;
	struct hold_calls *of_thread = bpf_map_lookup_elem(&hold_calls, &thread), *none;

	if (of_thread)
		return of_thread;
	none = bpf_map_lookup_elem(&no_hold_calls, &zero);
	if (!none)
		return NULL;
	bpf_map_update_elem(&hold_calls, &thread, none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&hold_calls, &thread);
}
#else
struct {
	MAP(BPF_MAP_TYPE_TASK_STORAGE, int, struct hold_calls, 0, BPF_F_NO_PREALLOC);
} hold_calls SEC(".maps");

static __always_inline struct hold_calls *hold_calls_of_thread(void)
{
	return bpf_task_storage_get(&hold_calls, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
}
#endif

/* True if the call, whose return address is at `sp`, is part of another for the same object. Global: see walk_frames(). */
__noinline int is_part_of_other(u64 instruction, u64 key, u64 bp, u64 bx, u64 sp)
{
	struct hold_calls *of_thread = hold_calls_of_thread();
	struct hold_call *call;
	int is_part = 0;
	u64 count, word;
	u32 outer;

	if (!of_thread)
		return 0;
	count = of_thread->count;
	/* The same function called from the same place: the former call has returned. The other types' that it is of have been called with it. */
	for (u32 i = 0; i < HOLD_CALLS && i < count; i++) {
		call = &of_thread->at[i];
		if (call->sp == sp && call->instruction == instruction && (call->key ^ key) >> CLASS_SHIFT == 0)
			count = i;
	}
	for (int i = 0; i < HOLD_CALLS && count; i++) {
		call = &of_thread->at[(count - 1) & (HOLD_CALLS - 1)];
		/* At the same place: it ends by calling this function. */
		if (sp <= call->sp && !bpf_probe_read_user(&word, sizeof(word), (void *)call->sp) &&
		    word == call->return_address)
			break;
		count--;
	}
	for (outer = 0; outer < HOLD_CALLS && outer < count; outer++)
		if (of_thread->at[outer].key == key)
			break;
	if (outer < HOLD_CALLS && outer < count) {
		call = &of_thread->at[outer];
		is_part = call->sp == sp || goes_on(bp, bx, sp, call->sp, call->return_address);
		if (!is_part)
			count = outer;
	}
	of_thread->count = count;
	/* Read anew, as old kernels' verifiers take what they know of it by now for a contradiction. */
	count = *(volatile u64 *)&of_thread->count;
	if (count < HOLD_CALLS && !bpf_probe_read_user(&word, sizeof(word), (void *)sp)) {
		call = &of_thread->at[count & (HOLD_CALLS - 1)];
		call->sp = sp;
		call->return_address = word;
		call->key = key;
		call->instruction = instruction;
		of_thread->count = count + 1;
	}
	return is_part;
}

#endif
