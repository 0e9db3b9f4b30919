/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Keeps the kernel from giving programs a stack that two threads would share.
 */
#ifndef MEMLEAX_PRIVATE_STACK_H
#define MEMLEAX_PRIVATE_STACK_H

#include "kernel.bpf.h"

#ifdef OLD_KERNEL
#define NO_PRIVATE_STACK(programs)
#else
/*
 * As of 6.13 a program's stack may be one that belongs to the CPU, on the ground that a program never begins again on a CPU where it has
 * not ended (bpf_enable_priv_stack, kernel/bpf/verifier.c). For uprobes that does not hold: where the kernel preempts them, two
 * threads' calls would share that stack, and crash the kernel. A program that has a tail call gets none. These lead nowhere. One map for
 * each kind of program, as kernels want it.
 */
struct {
	MAP(BPF_MAP_TYPE_PROG_ARRAY, u32, u32, 1, 0);
} nowhere SEC(".maps");

struct {
	MAP(BPF_MAP_TYPE_PROG_ARRAY, u32, u32, 1, 0);
} nowhere_session SEC(".maps");

/* Never executed, which the verifier cannot know. */
#define NO_PRIVATE_STACK(programs)                                                                                     \
	if (!settings())                                                                                               \
	bpf_tail_call(ctx, &programs, 0)
#endif

#endif
