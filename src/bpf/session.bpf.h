/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * One program for a call's entry and its return.
 */
#ifndef MEMLEAX_SESSION_H
#define MEMLEAX_SESSION_H

#include "kernel.bpf.h"

extern bool bpf_session_is_return(void) __ksym __weak;
/* The same as newer kernels have it; libbpf ignores what follows three underscores. */
extern bool bpf_session_is_return___context(void *context) __ksym __weak;

static __always_inline bool is_return(struct pt_regs *ctx)
{
	return bpf_session_is_return___context ? bpf_session_is_return___context(ctx) : bpf_session_is_return();
}

#endif
