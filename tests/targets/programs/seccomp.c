/* Under a filter that kills the process for every system call that it does not need itself. Command: `go N`. */
#include "target.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

SITE(by_filtered, "malloc<-leak_filtered:@<-main");
NOINLINE static void leak_filtered(unsigned i) {
    void *p = AT(by_filtered, malloc(47));
    settle(&by_filtered, p, 47, i);
}
SITE(by_filtered_calloc, "calloc<-calloc_filtered:@<-main");
NOINLINE static void calloc_filtered(unsigned i) {
    void *p = AT(by_filtered_calloc, calloc(1, 49));
    settle(&by_filtered_calloc, p, 49, i);
}

#define ALLOW(number)                                                                                                  \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int main(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_read),
        ALLOW(SYS_write),
        ALLOW(SYS_brk),
        ALLOW(SYS_getrandom),
        ALLOW(SYS_exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    free(malloc(1000));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 1;
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        for (long i = 0; i < 2 * n; i++) {
            leak_filtered((unsigned)i);
            calloc_filtered((unsigned)i);
        }
        target_report();
        target_say("DONE");
    }
}
