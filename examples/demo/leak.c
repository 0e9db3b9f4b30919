/* A small server loop with a planted leak: every fiftieth request is logged, and the log line is never freed. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct request {
    char *path;
    char *answer;
};

static volatile size_t bytes_logged;

static char *copy_text(const char *text)
{
    char *copy = malloc(strlen(text) + 1);
    if (!copy)
        abort();
    return strcpy(copy, text);
}

void log_request(const struct request *request)
{
    char *line = malloc(128); /* planted leak */
    if (!line)
        abort();
    bytes_logged += (size_t)snprintf(line, 128, "served %s: %s", request->path, request->answer);
}

void serve(unsigned number)
{
    char path[32];
    snprintf(path, sizeof path, "/page/%u", number);
    struct request request = {copy_text(path), copy_text("200 OK")};
    if (number % 50 == 0)
        log_request(&request);
    free(request.answer);
    free(request.path);
}

int main(void)
{
    for (unsigned number = 0;; number++) {
        serve(number);
        usleep(10000);
    }
}
