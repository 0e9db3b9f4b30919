// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What the bpf backend is measured against: programs that do nothing, and the usual way to trace an allocator. */
#include "../../src/bpf/kernel.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* ---- nothing: what the traps alone cost ---- */

SEC("uprobe.session")
int nothing_at_calls(struct pt_regs *ctx)
{
	return 0;
}

SEC("uprobe.multi")
int nothing_at_frees(struct pt_regs *ctx)
{
	return 0;
}

/* ---- naive: three probes, at the functions' first instructions and at the return; as libbpf-tools' memleak has it ---- */

#define BPF_MAP_TYPE_STACK_TRACE 7
#define BPF_F_USER_STACK (1 << 8)
#define STACK_DEPTH 127

static long (*const bpf_get_stackid)(void *ctx, void *map, u64 flags) = (void *)27;

struct allocation {
	u64 size, time;
	int stack;
};

struct combined {
	u64 bytes, blocks;
};

struct {
	MAP(BPF_MAP_TYPE_HASH, u32, u64, 10240, 0);
} sizes SEC(".maps");

struct {
	MAP(BPF_MAP_TYPE_HASH, u64, struct allocation, 1000000, 0);
} allocations SEC(".maps");

struct {
	MAP(BPF_MAP_TYPE_HASH, u64, struct combined, 10240, 0);
} by_stack SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 10240);
	__uint(key_size, sizeof(u32));
	__uint(value_size, STACK_DEPTH * sizeof(u64));
} stacks SEC(".maps");

SEC("uprobe")
int naive_enter(struct pt_regs *ctx)
{
	u32 thread = bpf_get_current_pid_tgid();
	u64 size = ctx->rdi;

	bpf_map_update_elem(&sizes, &thread, &size, BPF_ANY);
	return 0;
}

static __always_inline void combine(int stack, s64 bytes, s64 blocks)
{
	u64 key = stack;
	struct combined none = {}, *combined = bpf_map_lookup_elem(&by_stack, &key);

	if (!combined) {
		bpf_map_update_elem(&by_stack, &key, &none, BPF_NOEXIST);
		combined = bpf_map_lookup_elem(&by_stack, &key);
	}
	if (combined) {
		__sync_fetch_and_add(&combined->bytes, bytes);
		__sync_fetch_and_add(&combined->blocks, blocks);
	}
}

SEC("uretprobe")
int naive_return(struct pt_regs *ctx)
{
	u32 thread = bpf_get_current_pid_tgid();
	u64 address = ctx->rax, *size = bpf_map_lookup_elem(&sizes, &thread);
	struct allocation allocation = {};

	if (!size || !address)
		return 0;
	allocation.size = *size;
	allocation.time = bpf_ktime_get_ns();
	bpf_map_delete_elem(&sizes, &thread);
	allocation.stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
	bpf_map_update_elem(&allocations, &address, &allocation, BPF_ANY);
	if (allocation.stack >= 0)
		combine(allocation.stack, allocation.size, 1);
	return 0;
}

SEC("uprobe")
int naive_free(struct pt_regs *ctx)
{
	u64 address = ctx->rdi;
	struct allocation *there = bpf_map_lookup_elem(&allocations, &address), allocation;

	if (!there)
		return 0;
	allocation = *there;
	bpf_map_delete_elem(&allocations, &address);
	if (allocation.stack >= 0)
		combine(allocation.stack, -(s64)allocation.size, -1);
	return 0;
}
