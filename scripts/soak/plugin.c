/* Loaded and unloaded by worker.c, again and again. */
#include <stdlib.h>
#include <string.h>

char *plugin_work(unsigned n) {
    char *text = malloc(n % 100 + 1);
    if (text)
        memset(text, 'x', n % 100 + 1);
    return text;
}
