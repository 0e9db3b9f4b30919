/* Loads and unloads a plugin. Commands: `load PATH`, `go N` (leaks in the plugin), `unload`; `once PATH`: loads it, leaks 5 blocks, and
 * unloads it at once; `other PATH`: unloads the plugin and loads another; `swap PATH` leaks 5 blocks there, too.
 * `mark`: leaks a block by a function of its own. */
#define _GNU_SOURCE
#include "target.h"

#include <dlfcn.h>

static void *(*plugin_leak)(size_t);

SITE(by_plugin, "malloc<-deep_in_plugin<-plugin_leak<-call_plugin:@<-main");
SITE(by_other, "malloc<-deep_in_other<-plugin_leak<-call_plugin:@<-main");
static struct site *site = &by_plugin;

NOINLINE static void call_plugin(unsigned i) {
    void *p = AT(*site, plugin_leak(91));
    settle(site, p, 91, i);
}

SITE(by_mark, "malloc<-leave_mark:@<-main");
NOINLINE static void leave_mark(void) {
    void *p = AT(by_mark, malloc(92));
    settle(&by_mark, p, 92, 0);
}

/* What the dynamic linker keeps for a loaded library is no leak of ours. */
NOINLINE static void *load_library(const char *path) {
    void *library = dlopen(path, RTLD_NOW);
    KEEP();
    return library;
}

static void *library;

static void load(const char *path) {
    library = load_library(path);
    if (!library)
        _exit(1);
    plugin_leak = (void *(*)(size_t))dlsym(library, "plugin_leak");
    target_say("ignore load_library");
}

static void unload(void) {
    if (!library || dlclose(library))
        _exit(2);
}

int main(void) {
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        if (!strncmp(command, "load ", 5))
            load(command + 5);
        if (!strncmp(command, "once ", 5)) {
            load(command + 5);
            n = 5;
        }
        if (!strncmp(command, "other ", 6) || !strncmp(command, "swap ", 5)) {
            unload();
            load(strchr(command, ' ') + 1);
            site = &by_other;
            n = *command == 's' ? 5 : 0;
        }
        if (!strcmp(command, "mark"))
            leave_mark();
        for (long i = 0; i < 2 * n; i++)
            call_plugin((unsigned)i);
        if (!strncmp(command, "once ", 5) || !strcmp(command, "unload"))
            unload();
        target_report();
        target_say("DONE");
    }
}
