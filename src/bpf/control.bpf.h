/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * Settings and counters.
 */
#ifndef MEMLEAX_CONTROL_H
#define MEMLEAX_CONTROL_H

#include "layout.bpf.h"

/* Fixed when the programs are loaded, so that the verifier knows them. */
const volatile struct {
	u64 copy; /* bytes of a stack_copy */
	u64 copy_all; /* of every new stack, not only of those that the table does not suffice for: to compare both ways to walk */
	u64 objects; /* there are other classes than memory */
} loading = { 2 * PAGE, 0, 0 };

struct {
	MAP(BPF_MAP_TYPE_ARRAY, u32, struct control, 1, BPF_F_MMAPABLE);
} control SEC(".maps");

#define COUNT(counter) __sync_fetch_and_add(&(counter), 1)
#define ADD(counter, amount) __sync_fetch_and_add(&(counter), amount)

static __always_inline struct control *settings(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

/* The same; NULL while nothing is to be counted. */
static __always_inline struct control *open_books(void)
{
	struct control *c = settings();

	return c && !c->closed ? c : NULL;
}

#endif
