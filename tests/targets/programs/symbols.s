# Functions with and without size and type, labels, aliases, versions.
        .text
        .globl sized
        .type sized, @function
sized:  nop
        .globl label_within
label_within:
        nop
        nop
        .size sized, . - sized
        nop                             # belongs to nothing

        .globl __libc_aliased, aliased, _aliased
        .type __libc_aliased, @function
        .type aliased, @function
        .type _aliased, @function
        .weak aliased
__libc_aliased:
aliased:
_aliased:
        nop
        .size __libc_aliased, . - __libc_aliased
        .size aliased, . - aliased
        .size _aliased, . - _aliased

        .type local_name, @function
        .globl global_name_that_is_longer
        .type global_name_that_is_longer, @function
local_name:
global_name_that_is_longer:
        nop
        .size local_name, . - local_name
        .size global_name_that_is_longer, . - global_name_that_is_longer

        .globl unsized
        .type unsized, @function
unsized:
        nop
        nop
        .globl untyped
untyped:
        nop
        nop

        .globl outer, inner
        .type outer, @function
        .type inner, @function
outer:  nop
inner:  nop
        .size inner, . - inner
        nop
        .size outer, . - outer

        .globl versioned_old, versioned_new
        .type versioned_old, @function
        .type versioned_new, @function
        .symver versioned_old, api@V1
        .symver versioned_new, api@@V2
versioned_old:
versioned_new:
        nop
        .size versioned_old, . - versioned_old
        .size versioned_new, . - versioned_new

        .globl last
        .type last, @function
last:   nop

        .data
        .globl some_data
some_data:
        .quad 1
        .section .note.GNU-stack, "", @progbits
