/* SPDX-License-Identifier: MIT OR GPL-2.0-only
 *
 * The operands of a call, in the registers that the cookie of its probe names.
 */
#ifndef MEMLEAX_OPERAND_H
#define MEMLEAX_OPERAND_H

#include "kernel.bpf.h"

/* In assembly, as the compiler would compute the address first, and the verifier allows only constant offsets into a context. */
#define REGISTER(number)                                                                                               \
	case number:                                                                                                   \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value) : "r"(ctx), "i"(8 * (number)));                    \
		break

/* The register whose number (its place in struct pt_regs) is at bit `shift` of the cookie. */
static __always_inline u64 operand(struct pt_regs *ctx, u64 cookie, int shift)
{
	u64 value = 0;

	switch (cookie >> shift & 15) {
		REGISTER(14);
		REGISTER(13);
		REGISTER(12);
		REGISTER(11);
		REGISTER(10);
		REGISTER(9);
		REGISTER(8);
		REGISTER(7);
		REGISTER(6);
		REGISTER(5);
		REGISTER(4);
		REGISTER(3);
		REGISTER(2);
		REGISTER(1);
		REGISTER(0);
	}
	return value;
}

#endif
