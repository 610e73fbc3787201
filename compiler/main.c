/* modelcc: the command line. */
#include "compiler/command.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

typedef struct command {
    const char *name;
    command_fn *run;
    const char *summary;
} command;

static const command commands[] = {
#define COMMAND(name, function, summary) {name, function, summary},
#include "compiler/commands.def"
#undef COMMAND
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *out) {
    fputs("modelcc compiles language models into shared libraries, and runs them.\n\n"
          "usage: modelcc COMMAND [options]\n\n",
          out);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\nexample:\n"
          "  modelcc build SmolLM2-135M-Instruct.gguf -o smollm2.so\n"
          "  modelcc run smollm2.so -p \"What is a compiler?\"\n\n"
          "modelcc COMMAND --help explains a command. Exit codes: 0 fine, 1 failed, 2 usage.\n",
          out);
}

static void on_signal(int number) {
    if (atomic_exchange(&command_cancelled, number)) {
        signal(number, SIG_DFL);
        raise(number);
    }
}

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader that went away is a failed write, not a death */
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help(argc > 1 ? stdout : stderr);
        return argc > 1 ? EXIT_FINE : EXIT_USAGE;
    }
    if (strcmp(name, "--version") == 0) {
        puts("modelcc " MCC_VERSION);
        return EXIT_FINE;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) {
            int code = commands[i].run(argc - 1, argv + 1);
            errno = 0; /* a write that failed before is only known by the stream's error flag */
            if ((fflush(stdout) || ferror(stdout)) && code != EXIT_USAGE) {
                fprintf(stderr, "error: cannot write the result: %s\n",
                        errno ? strerror(errno) : "writing to standard output failed");
                code = EXIT_FAILED;
            }
            return code;
        }
    fprintf(stderr, "modelcc: there is no command \"%s\"; modelcc --help lists them\n", name);
    return EXIT_USAGE;
}
