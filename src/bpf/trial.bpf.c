// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * One program for each way to attach, that does nothing: loading and attaching it tells at little cost whether a kernel has that way.
 */
#include "session.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

SEC("uprobe.session")
int session(struct pt_regs *ctx)
{
	is_return(ctx);
	return 0;
}

SEC("uprobe.multi")
int multi(struct pt_regs *ctx)
{
	return 0;
}

SEC("uprobe")
int perf(struct pt_regs *ctx)
{
	return 0;
}
