/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * A call into the allocator, from its entry to its return: one a thread and class.
 */
#ifndef MEMLEAX_CALL_H
#define MEMLEAX_CALL_H

#include "control.bpf.h"

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
	bool hidden; /* its return address is in code of which nothing is known, so its site is found out at its return */
};

/* Of a thread, where there are objects: their calls, by class, and where traps are. Those of memory are `calls`. */
struct object_calls {
	struct traps traps;
	struct call calls[CLASSES];
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

/* Of threads that are amid one; sized at load. */
struct {
	MAP(BPF_MAP_TYPE_HASH, u32, struct object_calls, 4096, 0);
} object_calls SEC(".maps");

/* What a new one is: too large for the stack. */
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct object_calls, 1, 0);
} no_object_calls SEC(".maps");

static __always_inline struct object_calls *object_calls_of_thread(bool create)
{
	u32 thread = bpf_get_current_pid_tgid(), zero = 0;
	struct object_calls *of_thread = bpf_map_lookup_elem(&object_calls, &thread), *none;

	if (of_thread || !create)
		return of_thread;
	none = bpf_map_lookup_elem(&no_object_calls, &zero);
	if (!none)
		return NULL;
	bpf_map_update_elem(&object_calls, &thread, none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&object_calls, &thread);
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

struct {
	MAP(BPF_MAP_TYPE_TASK_STORAGE, int, struct object_calls, 0, BPF_F_NO_PREALLOC);
} object_calls SEC(".maps");

static __always_inline struct object_calls *object_calls_of_thread(bool create)
{
	return bpf_task_storage_get(&object_calls, bpf_get_current_task_btf(), NULL,
				    create ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
}
#endif

#endif
