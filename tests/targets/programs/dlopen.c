/* Loads and unloads a plugin. Commands: `load PATH`, `go N` (leaks in the plugin), `unload`. */
#define _GNU_SOURCE
#include "target.h"

#include <dlfcn.h>

static void *(*plugin_leak)(size_t);

SITE(by_plugin, "malloc<-deep_in_plugin<-plugin_leak<-call_plugin:@<-main");
NOINLINE static void call_plugin(unsigned i) {
    void *p = AT(by_plugin, plugin_leak(91));
    settle(&by_plugin, p, 91, i);
}

/* What the dynamic linker keeps for a loaded library is no leak of ours. */
NOINLINE static void *load_library(const char *path) {
    void *library = dlopen(path, RTLD_NOW);
    KEEP();
    return library;
}

int main(void) {
    void *library = NULL;
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        if (!strncmp(command, "load ", 5)) {
            library = load_library(command + 5);
            if (!library)
                return 1;
            plugin_leak = (void *(*)(size_t))dlsym(library, "plugin_leak");
            target_say("ignore load_library");
        }
        if (!strcmp(command, "unload") && (!library || dlclose(library)))
            return 2;
        for (long i = 0; i < 2 * n; i++)
            call_plugin((unsigned)i);
        target_report();
        target_say("DONE");
    }
}
