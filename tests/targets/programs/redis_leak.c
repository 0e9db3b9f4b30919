/* A module of redis 4 or later, without its header. The command `leak` loses a block of 48 bytes each time. */
#include <stdlib.h>

#define NOINLINE __attribute__((noinline))

enum { OK = 0, ERROR = 1, API_VERSION = 1 };

static int (*get_api)(const char *name, void *function);
static int (*create_command)(void *context, const char *name, int (*function)(void *, void **, int), const char *flags,
                             int first_key, int last_key, int step);
static int (*reply_with_simple_string)(void *context, const char *text);
static void (*set_module_attributes)(void *context, const char *name, int version, int api_version);

NOINLINE static void leak_per_command(void) {
    void *block = malloc(48);
    /* Of use, as far as the compiler knows. */
    __asm__ volatile("" : : "r"(block) : "memory");
}

static int leak(void *context, void **arguments, int count) {
    (void)arguments;
    (void)count;
    leak_per_command();
    return reply_with_simple_string(context, "OK");
}

int RedisModule_OnLoad(void *context, void **arguments, int count) {
    (void)arguments;
    (void)count;
    /* The first field of a context is the function that finds all others. */
    get_api = *(int (**)(const char *, void *))context;
    if (get_api("RedisModule_CreateCommand", &create_command) != OK ||
        get_api("RedisModule_ReplyWithSimpleString", &reply_with_simple_string) != OK ||
        get_api("RedisModule_SetModuleAttribs", &set_module_attributes) != OK)
        return ERROR;
    set_module_attributes(context, "leak", 1, API_VERSION);
    return create_command(context, "leak", leak, "fast", 0, 0, 0);
}
