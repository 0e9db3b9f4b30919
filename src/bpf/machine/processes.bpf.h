/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Which processes there are, from their fork to their end, and whose an address space is.
 *
 * An address space is known by the kernel's `mm`. Only fork and exec make one, both tell before anything runs in it, and so no entry of an
 * older one that was at the same place survives.
 */
#ifndef MEMLEAX_MACHINE_PROCESSES_H
#define MEMLEAX_MACHINE_PROCESSES_H

#include "system.bpf.h"

struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct process, PLACES, BPF_F_MMAPABLE);
} processes SEC(".maps");

/* Places that are free; user space fills it. Last in, first out: so those in use stay few, and user space finds them at the front. */
struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, PLACES);
	__type(value, u32);
} free_places SEC(".maps");

/* By process id, as the first pid namespace counts. */
struct {
	MAP(BPF_MAP_TYPE_HASH, u32, u32, PLACES, 0);
} places_of_pids SEC(".maps");

/* By address space: whose blocks it holds. A child of vfork() allocates in its parent's. */
struct {
	MAP(BPF_MAP_TYPE_HASH, u64, u32, PLACES, 0);
} places_of_spaces SEC(".maps");

/* Processes whose end was told of: the last threads may both find that all have begun to exit. */
struct instance {
	u64 pid, start;
};
struct {
	MAP(BPF_MAP_TYPE_LRU_HASH, struct instance, u8, 4096, 0);
} told SEC(".maps");

struct {
	MAP(BPF_MAP_TYPE_CGROUP_ARRAY, u32, u32, 16, 0);
} cgroups SEC(".maps");

static __always_inline struct process *process_at(u32 place)
{
	return place ? bpf_map_lookup_elem(&processes, &place) : NULL;
}

/* What may change while a process runs; of the current one, which `of` is or is about to be. */
static __always_inline void look_at(struct machine *c, struct process *process, struct task_struct___process *of)
{
	struct task_struct___process *leader = of->group_leader;

	process->uid = bpf_get_current_uid_gid();
	process->cgroup = bpf_get_current_cgroup_id();
	for (u32 i = 0; i < 16 && i < c->cgroups; i++)
		if (bpf_current_task_under_cgroup(&cgroups, i) == 1)
			process->flags |= IN_CGROUP;
	bpf_probe_read_kernel(process->name, sizeof(process->name), &leader->comm);
}

/* A place, not yet known by anything; 0 if there is none. */
static __noinline u32 new_process(struct machine *c, struct task_struct___process *of, u32 parent, u64 began, u32 flags)
{
	struct process *process = NULL;
	u32 place = 0;
	u64 highest;

	if (!c || !of)
		return 0;
	if (!bpf_map_pop_elem(&free_places, &place))
		process = process_at(place);
	if (!process) {
		COUNT(c->lost_processes);
		return 0;
	}
	for (u32 i = 0; i < sizeof(*process) / sizeof(u64); i++)
		((volatile u64 *)process)[i] = 0;
	process->serial = __sync_fetch_and_add(&c->serials, 1) + 1;
	process->pid = of->tgid;
	process->parent = parent;
	process->began = began;
	process->flags = flags | (c->is_ready ? 0 : BEGAN_BEFORE);
	look_at(c, process, of);
	for (int i = 0; i < 8; i++) {
		highest = c->highest;
		if (highest >= place || __sync_val_compare_and_swap(&c->highest, highest, (u64)place) == highest)
			break;
	}
	barrier();
	process->place = PLACE_RUNNING;
	return place;
}

static __always_inline void give_back(u32 place)
{
	struct process *process = process_at(place);

	/* User space does so. */
	if (process)
		process->place = PLACE_REPLACED;
}

/* Of a process that has none, as it began before memleax, or found no room. */
static __always_inline u32 place_of_process(struct machine *c, struct task_struct___process *of)
{
	u32 pid = of->tgid, place, *known = bpf_map_lookup_elem(&places_of_pids, &pid);

	if (known)
		return *known;
	place = new_process(c, of, 0, of->group_leader->start_time, BEGAN_BEFORE);
	if (!place)
		return 0;
	if (!bpf_map_update_elem(&places_of_pids, &pid, &place, BPF_NOEXIST))
		return place;
	/* Another thread was faster. */
	give_back(place);
	known = bpf_map_lookup_elem(&places_of_pids, &pid);
	return known ? *known : 0;
}

/* Whose blocks are in an address space, in which `of` runs. */
static __always_inline u32 place_of_space(struct machine *c, struct task_struct___process *of, u64 mm)
{
	u32 place, *known = bpf_map_lookup_elem(&places_of_spaces, &mm);
	struct process *process;

	if (known)
		return *known;
	place = place_of_process(c, of);
	process = process_at(place);
	if (!process)
		return 0;
	bpf_map_update_elem(&places_of_spaces, &mm, &place, BPF_NOEXIST);
	known = bpf_map_lookup_elem(&places_of_spaces, &mm);
	if (known && *known == place)
		process->mm = mm;
	return known ? *known : 0;
}

static __always_inline void forget_space(u64 mm, u32 place)
{
	u32 *known = bpf_map_lookup_elem(&places_of_spaces, &mm);

	if (known && *known == place)
		bpf_map_delete_elem(&places_of_spaces, &mm);
}

static __always_inline int forked(struct task_struct___process *parent, struct task_struct___process *child)
{
	struct machine *c = settings();
	u64 mm = (u64)child->mm;
	struct process *process;
	u32 pid = child->tgid, place;

	if (!c || child->pid != child->tgid || child->flags & PF_KTHREAD || !mm)
		return 0;
	place = new_process(c, child, parent->tgid, bpf_ktime_get_ns(), 0);
	process = process_at(place);
	if (mm == (u64)parent->mm) {
		place_of_space(c, parent, mm);
	} else {
		bpf_map_delete_elem(&places_of_spaces, &mm);
		if (process && !bpf_map_update_elem(&places_of_spaces, &mm, &place, BPF_ANY))
			process->mm = mm;
	}
	if (process)
		bpf_map_update_elem(&places_of_pids, &pid, &place, BPF_ANY);
	else
		bpf_map_delete_elem(&places_of_pids, &pid);
	return 0;
}

/* The current process has become another program; its address space is new, and its blocks are gone with the old one. */
static __always_inline int executed(void)
{
	struct machine *c = settings();
	struct task_struct___process *of = current();
	u32 pid = of->tgid, place, *known = bpf_map_lookup_elem(&places_of_pids, &pid);
	struct process *old = known ? process_at(*known) : NULL, *process;
	u64 mm = (u64)of->mm, now = bpf_ktime_get_ns(), began = of->group_leader->start_time;

	if (!c || pid == c->self)
		return 0;
	/* Else the compiler would make one load of both, which the verifier does not take. */
	asm volatile("" : "+r"(began));
	if (old)
		began = old->began;
	bpf_map_delete_elem(&places_of_spaces, &mm);
	if (old && !old->mm) {
		/* It had no address space of its own; the program is seen from its beginning. */
		place = *known;
		process = old;
		process->flags = c->is_ready ? 0 : BEGAN_BEFORE;
		look_at(c, process, of);
		COUNT(process->execs);
	} else {
		place = new_process(c, of, old ? old->parent : 0, began, 0);
		process = process_at(place);
		if (old && process) {
			process->execs = old->execs + 1;
			process->before = old->before + old->allocated;
			process->before_bytes = old->before_bytes + old->allocated_bytes;
			process->left = old->left + old->live;
			process->left_bytes = old->left_bytes + old->live_bytes;
		}
		if (process)
			bpf_map_update_elem(&places_of_pids, &pid, &place, BPF_ANY);
		else
			bpf_map_delete_elem(&places_of_pids, &pid);
		if (old) {
			forget_space(old->mm, *known);
			old->ended = now;
			barrier();
			old->place = PLACE_REPLACED;
			COUNT(c->ended);
		}
	}
	if (process && !bpf_map_update_elem(&places_of_spaces, &mm, &place, BPF_ANY))
		process->mm = mm;
	return 0;
}

/* A thread has begun to exit. */
static __always_inline int exited(struct task_struct___process *of)
{
	struct machine *c = settings();
	u32 pid = of->tgid, place, *known;
	struct instance instance;
	struct process *process;
	u8 yes = 1;

	if (!c || pid == c->self || of->flags & PF_KTHREAD || of->signal->live.counter)
		return 0;
	instance.pid = pid;
	instance.start = of->group_leader->start_time;
	if (bpf_map_update_elem(&told, &instance, &yes, BPF_NOEXIST))
		return 0;
	known = bpf_map_lookup_elem(&places_of_pids, &pid);
	if (known) {
		place = *known;
		bpf_map_delete_elem(&places_of_pids, &pid);
	} else {
		place = new_process(c, of, 0, of->group_leader->start_time, BEGAN_BEFORE);
	}
	process = process_at(place);
	if (!process)
		return 0;
	look_at(c, process, of);
	process->ended = bpf_ktime_get_ns();
	process->wait_status = (u32)(of->signal->group_exit_code ?: of->exit_code);
	if (process->mm)
		forget_space(process->mm, place);
	barrier();
	process->place = PLACE_ENDED;
	COUNT(c->ended);
	return 0;
}

#endif
