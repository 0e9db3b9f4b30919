/* A hand-written function without unwind information between the leak and main: what is beyond it cannot be known, and must
 * not be guessed. Command: `go N`. */
#include "target.h"

void *call_without_cfi(void *(*allocate)(size_t), size_t size);
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
        ".size call_without_cfi, . - call_without_cfi\n");
#endif

SITE(by_nocfi, "malloc<-leak_below_nocfi:@<-call_without_cfi");
NOINLINE static void *leak_below_nocfi(size_t size) {
    void *p = AT(by_nocfi, malloc(size));
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
        for (long i = 0; i < 2 * n; i++)
            settle(&by_nocfi, call_without_cfi(leak_below_nocfi, 93), 93, (unsigned)i);
        target_report();
        target_say("DONE");
    }
}
