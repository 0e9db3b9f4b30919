/* Hand-written functions without unwind information between the leak and main. What is beyond them may be inferred from what
 * the code does, or is unknown; it must not be guessed. Command: `go N`. */
#include "target.h"

void *call_without_cfi(void *(*allocate)(size_t), size_t size);
/* The same with a frame whose size only run time knows, and that is found again by a register. */
void *call_with_odd_frame(void *(*allocate)(size_t), size_t size, size_t room);
#ifdef __x86_64__
__asm__(".text\n"
        ".type call_without_cfi, @function\n"
        "call_without_cfi:\n"
        "    sub $24, %rsp\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %rdi\n"
        "    call *%rax\n"
        "    add $24, %rsp\n"
        "    ret\n"
        ".size call_without_cfi, . - call_without_cfi\n"
        ".type call_with_odd_frame, @function\n"
        "call_with_odd_frame:\n"
        "    push %r13\n"
        "    push %r12\n"
        "    mov %rsp, %r12\n"
        "    sub %rdx, %rsp\n"
        "    and $-64, %rsp\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %rdi\n"
        "    call *%rax\n"
        "    mov %r12, %rsp\n"
        "    pop %r12\n"
        "    pop %r13\n"
        "    ret\n"
        ".size call_with_odd_frame, . - call_with_odd_frame\n");
#endif

SITE(by_nocfi, "malloc<-leak_below_nocfi:@<-call_without_cfi<-main");
SITE(by_odd_frame, "malloc<-leak_below_odd_frame:@<-call_with_odd_frame");
NOINLINE static void *leak_below_nocfi(size_t size) {
    void *p = AT(by_nocfi, malloc(size));
    KEEP();
    return p;
}

NOINLINE static void *leak_below_odd_frame(size_t size) {
    void *p = AT(by_odd_frame, malloc(size));
    KEEP();
    return p;
}

int main(void) {
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        for (long i = 0; i < 2 * n; i++) {
            settle(&by_nocfi, call_without_cfi(leak_below_nocfi, 93), 93, (unsigned)i);
            settle(&by_odd_frame, call_with_odd_frame(leak_below_odd_frame, 94, 100), 94, (unsigned)i);
        }
        target_report();
        target_say("DONE");
    }
}
