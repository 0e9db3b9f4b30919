/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * What the programs for the whole machine need of the kernel besides: processes, address spaces. libbpf looks up where members are
 * (CO-RE); what follows three underscores it ignores.
 */
#ifndef MEMLEAX_MACHINE_SYSTEM_H
#define MEMLEAX_MACHINE_SYSTEM_H

#include "layout.bpf.h"

/* include/uapi/linux/bpf.h */
#define BPF_MAP_TYPE_CGROUP_ARRAY 8
#define BPF_MAP_TYPE_LRU_HASH 9
#define BPF_MAP_TYPE_STACK 23

static u64 (*const bpf_get_current_uid_gid)(void) = (void *)15;
static long (*const bpf_current_task_under_cgroup)(void *map, u32 index) = (void *)37;
static u64 (*const bpf_get_current_cgroup_id)(void) = (void *)80;
static long (*const bpf_map_pop_elem)(void *map, void *value) = (void *)88;

/* include/linux/sched.h */
#define PF_KTHREAD 0x00200000

struct signal_struct {
	struct {
		int counter;
	} live; /* threads that have not begun to exit */
	int group_exit_code;
} __attribute__((preserve_access_index));

/* kernel/events/uprobes.c */
struct xol_area {
	u64 vaddr;
} __attribute__((preserve_access_index));

struct mm_struct {
	struct {
		struct xol_area *xol_area;
	} uprobes_state;
} __attribute__((preserve_access_index));

struct task_struct___process {
	struct mm_struct *mm;
	u32 flags;
	int pid, tgid, exit_code;
	struct task_struct___process *group_leader;
	struct signal_struct *signal;
	u64 start_time;
	char comm[16];
} __attribute__((preserve_access_index));



static __always_inline struct task_struct___process *current(void)
{
	return (struct task_struct___process *)bpf_get_current_task_btf();
}

static __always_inline u32 current_pid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

#define COUNT(counter) __sync_fetch_and_add(&(counter), 1)
#define ADD(counter, amount) __sync_fetch_and_add(&(counter), amount)

struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct machine, 1, BPF_F_MMAPABLE);
} machine SEC(".maps");

static __always_inline struct machine *settings(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&machine, &zero);
}

#endif
