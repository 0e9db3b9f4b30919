// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Follows one process's calls into its allocators: books are kept here, in the kernel; user space reads them when it likes.
 *
 * A call's stack is walked by a table that user space compiled from the modules' call frame information, and is known by the hash of
 * its return addresses. Only a stack that was never seen before is sent to user space.
 *
 * Headers, from the outside in: private_stack, session, follow (calls), operand, holds, books (blocks), mappings, sites (call stacks), walk, traps, call, control, layout, kernel.
 *
 * Compiled twice: for 6.1 and later with atomics (-mcpu=v3), and with -DOLD_KERNEL -mcpu=v2 for 5.8 to 5.19, which
 * have no compare-and-swap (live blocks are in a hash map then) but do not preempt BPF programs either.
 */
#include "follow.bpf.h"
#include "session.bpf.h"
#include "private_stack.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#ifndef OLD_KERNEL
SEC("uprobe.session")
int session_call(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere_session);
	return is_return(ctx) ? returned(ctx, 1) : entered(ctx, 1);
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
	return returned(ctx, 0);
}

SEC("uprobe.multi")
int multi_free(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere);
	return freeing(ctx);
}

#endif

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
	return returned(ctx, 0);
}

SEC("uprobe")
int perf_free(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere);
	return freeing(ctx);
}

/* Makes user space look at the counters now. */
static __always_inline void wake(void)
{
	u64 *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (record) {
		*record = RECORD_NONE;
		bpf_ringbuf_submit(record, 0);
	}
}

/* The dynamic linker has changed what is mapped. */
static __always_inline int loader_changed(void)
{
	struct control *c = settings();

	if (c)
		COUNT(c->loader_changes);
	wake();
	return 0;
}

SEC("uprobe")
int perf_loader(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere);
	return loader_changed();
}

#ifndef OLD_KERNEL
SEC("uprobe.multi")
int multi_loader(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere);
	return loader_changed();
}
#endif

/* How often functions were called, by their places. */
struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, u64, REFERENCES, BPF_F_MMAPABLE);
} references SEC(".maps");

/*
 * A function that the user has named begins. The cookie tells what for: its place in `references` plus 1 (bits 0-31), its number among those
 * whose calls are worth a snapshot plus 1 (32-63). What was counted until then cannot be kept here: user space looks as soon as it can.
 */
static __always_inline int marked(struct pt_regs *ctx)
{
	struct control *c = open_books();
	struct mark_record *record;
	u64 cookie = cookie_of(ctx), *calls;
	u32 place = (u32)cookie - 1;

	if (!c)
		return 0;
	if (!cookie) {
		COUNT(c->lost_named);
		return 0;
	}
	calls = bpf_map_lookup_elem(&references, &place);
	if (calls)
		COUNT(*calls);
	if (!(cookie >> 32))
		return 0;
	COUNT(c->marks);
	if (c->marks > MARKS) {
		COUNT(c->lost_marks);
		return 0;
	}
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record) {
		COUNT(c->lost_marks);
		return 0;
	}
	record->kind = RECORD_MARK;
	record->time = bpf_ktime_get_ns();
	record->number = (cookie >> 32) - 1;
	bpf_ringbuf_submit(record, 0);
	return 0;
}

SEC("uprobe")
int perf_mark(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere);
	return marked(ctx);
}

#ifndef OLD_KERNEL
SEC("uprobe.multi")
int multi_mark(struct pt_regs *ctx)
{
	NO_PRIVATE_STACK(nowhere);
	return marked(ctx);
}
#endif

SEC("raw_tp/sched_process_exec")
int exec(void *ctx)
{
	struct control *c = settings();

	if (c && c->tgid && c->tgid == bpf_get_current_pid_tgid() >> 32) {
		c->exec_time = bpf_ktime_get_ns();
		COUNT(c->execs);
		wake();
	}
	return 0;
}
