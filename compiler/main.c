/* modelcc: the command line, and modelcc-compiler: its commands that need LLVM. */
#include "compiler/command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct command {
    const char *name;
    command_fn *run; /* NULL: the other program's */
    const char *summary;
} command;

/* HAS_<program of this executable>_<program of the command>: the function, or NULL. */
#define HAS_ENGINE_ENGINE(function) function
#define HAS_ENGINE_COMPILER(function) NULL
#define HAS_COMPILER_ENGINE(function) NULL
#define HAS_COMPILER_COMPILER(function) function
#define HAS_(own, program, function) HAS_##own##_##program(function)
#define HAS(own, program, function) HAS_(own, program, function)

static const command commands[] = {
#define COMMAND(name, function, program, summary)                                                  \
    {name, HAS(MCC_PROGRAM, program, function), summary},
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

/* Models and artifacts are read where they are mapped: when another program cuts such a file short,
 * or its disk fails, there is nothing to go on with. */
static void on_bus_error(int number, siginfo_t *info, void *context) {
    static const char text[] =
        "error: a file that is in use, of a model or an artifact, has been cut "
        "short or cannot be read\n";
    (void)context;
    if (info->si_code == BUS_ADRERR) {
        if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
            (void)0; /* nobody is left to tell */
        _exit(EXIT_FAILED);
    }
    signal(number, SIG_DFL); /* and the instruction runs again */
}

/* Whether standard output is a pipe that nobody reads any more: the reader has what it wanted
 * (| head). */
static bool reader_is_gone(void) {
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&out, 1, 0) > 0 && (out.revents & POLLERR);
}

/* Becomes modelcc-compiler: beside this program, or where it is installed. */
static int run_compiler(char **argv) {
    static const char *const places[] = {"modelcc-compiler", "../libexec/modelcc/modelcc-compiler"};
    char self[4096], path[4096 + 64];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    for (size_t i = 0; slash && i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s/%s", self, places[i]);
        execv(path, argv);
    }
    fprintf(
        stderr,
        "error: modelcc-compiler is missing: looked for %s/%s and %s/%s; install it, or use the "
        "commands that only run models\n",
        self, places[0], self, places[1]);
    return EXIT_FAILED;
}

/* Where the caller has closed a standard stream, a file opened later would get its number, and
 * messages would go into that file. What takes the number instead fails to be read or written, as a
 * closed stream does. */
static void keep_standard_streams(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            open("/", O_PATH | O_DIRECTORY); /* gets the lowest free number, fd */
}

int main(int argc, char **argv) {
    keep_standard_streams();
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction bus_error = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &bus_error, NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader that went away is a failed write, not a death … */
    signal(SIGXFSZ, SIG_IGN); /* … and so is a limit on the size of files */
    opterr = 0;               /* commands say themselves what is wrong with an option */
    const char *name = argc > 1 ? argv[1] : "--help";
    char option[] = "--help", *of_command[] = {argv[0], argc > 2 ? argv[2] : NULL, option, NULL};
    if (argc == 3 && strcmp(name, "help") == 0) { /* help COMMAND is COMMAND --help */
        argv = of_command;
        name = argv[1];
    }
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
            if (!commands[i].run)
                return run_compiler(argv);
            int code = commands[i].run(argc - 1, argv + 1);
            errno = 0; /* a write that failed before is only known by the stream's error flag */
            if ((fflush(stdout) || ferror(stdout)) && code != EXIT_USAGE) {
                if (errno == EPIPE || reader_is_gone())
                    return EXIT_FAILED;
                fprintf(stderr, "error: cannot write the result: %s\n",
                        errno ? strerror(errno) : "writing to standard output failed");
                code = EXIT_FAILED;
            }
            return code;
        }
    fprintf(stderr, "modelcc: there is no command \"%s\"; modelcc --help lists them\n", name);
    return EXIT_USAGE;
}
