#include "compiler/command.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

atomic_int command_cancelled;

int command_usage(const char *name, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "modelcc %s: ", name);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nmodelcc %s --help explains its options\n", name);
    return EXIT_USAGE;
}

int command_option(int argc, char **argv, const char *letters, const struct option *longs) {
    int option = getopt_long(argc, argv, letters, longs, NULL);
    if (option == '?')
        command_usage(argv[0], "%s: unknown option, or its value is missing", argv[optind - 1]);
    return option;
}

int command_json_option(int argc, char **argv, const char *help, bool *json) {
    static const struct option longs[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    *json = false;
    for (int option; (option = command_option(argc, argv, "h", longs)) != -1;) {
        if (option == 'h') {
            fputs(help, stdout);
            return -1;
        }
        if (option == '?')
            return EXIT_USAGE;
        *json = true;
    }
    return optind == argc
               ? EXIT_FINE
               : command_usage(argv[0], "it takes no arguments, found \"%s\"", argv[optind]);
}

bool command_number(const char *text, long long min, long long max, long long *out) {
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *text && !*end && !errno && *out >= min && *out <= max;
}

bool command_real(const char *text, double min, double max, double *out) {
    char *end;
    *out = strtod(text, &end);
    return *text && !*end && isfinite(*out) && *out >= min && *out <= max;
}

char *command_read_file(const char *command, const char *path, unsigned long limit,
                        unsigned long *size) {
    FILE *f = fopen(path, "rb");
    char *bytes = NULL;
    size_t n = 0, capacity = 0;
    bool ok = f != NULL;
    while (ok && !feof(f) && !ferror(f)) {
        if (n + 1 >= capacity) {
            capacity = capacity ? 2 * capacity : 65536;
            char *grown = realloc(bytes, capacity);
            if (!grown) {
                errno = ENOMEM;
                ok = false;
                break;
            }
            bytes = grown;
        }
        n += fread(bytes + n, 1, capacity - n - 1, f);
        if (n > limit) {
            errno = EFBIG;
            ok = false;
        }
    }
    ok = ok && !ferror(f);
    if (!ok) {
        fprintf(stderr, "error: modelcc %s: %s: cannot read it: %s\n", command, path,
                strerror(errno));
        free(bytes);
        bytes = NULL;
    } else {
        bytes[n] = '\0';
        *size = n;
    }
    if (f)
        fclose(f);
    return bytes;
}

void command_out_of_memory(void) {
    static const char message[] = "error: out of memory\n";
    if (write(STDERR_FILENO, message, sizeof message - 1) < 0)
        (void)0; /* nobody is left to tell */
    _exit(EXIT_FAILED);
}
