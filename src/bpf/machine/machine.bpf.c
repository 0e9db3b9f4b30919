// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Follows the calls of all processes into their allocators, and keeps the totals of each.
 *
 * Headers, from the outside in: private_stack and session (of the folder above), calls, operand, blocks, processes, system, layout. For Linux 6.1 and later.
 */
#include "calls.bpf.h"
#include "../session.bpf.h"
#include "../private_stack.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

SEC("uprobe.session")
int session_call(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere_session);
	return is_return(ctx) ? returned(ctx) : entered(ctx, 1);
}

SEC("uprobe.multi")
int multi_enter(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere);
	entered(ctx, 0);
	return 0;
}

SEC("uretprobe.multi")
int multi_return(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere);
	return returned(ctx);
}

SEC("uprobe.multi")
int multi_free(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere);
	return freeing(ctx);
}

SEC("uprobe")
int perf_enter(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere);
	entered(ctx, 0);
	return 0;
}

SEC("uretprobe")
int perf_return(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere);
	return returned(ctx);
}

SEC("uprobe")
int perf_free(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere);
	return freeing(ctx);
}

SEC("tp_btf/sched_process_fork")
int process_forked(u64 *ctx)
{
	return forked((struct task_struct___process *)ctx[0], (struct task_struct___process *)ctx[1]);
}

SEC("tp_btf/sched_process_exec")
int process_executed(u64 *ctx)
{
	forget_thread();
	return executed();
}

SEC("tp_btf/sched_process_exit")
int process_exited(u64 *ctx)
{
	return exited((struct task_struct___process *)ctx[0]);
}
