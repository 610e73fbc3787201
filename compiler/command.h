/* The commands of the command line: each in cmd_<name>.c, listed in commands.def. */
#ifndef MCC_COMPILER_COMMAND_H
#define MCC_COMPILER_COMMAND_H

#include <stdatomic.h>
#include <stdbool.h>

/* Exit codes of every command. */
enum { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* argv[0] is the command's name. Results go to standard output, everything else to standard error.
 */
typedef int command_fn(int argc, char **argv);

#define COMMAND(name, function, program, summary) command_fn function;
#include "compiler/commands.def"
#undef COMMAND

/* The number of the first SIGINT or SIGTERM, or 0; the second ends the process. Long commands poll
 * it. */
extern atomic_int command_cancelled;

/* Prints "modelcc NAME: message" and a hint to --help; returns EXIT_USAGE. */
int command_usage(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* getopt_long; where an option is unknown or lacks its value it says so, and returns '?'. */
struct option;
int command_option(int argc, char **argv, const char *letters, const struct option *longs);

/* Takes the options of a command that has --json and --help only. EXIT_FINE; EXIT_USAGE after a
 * message; -1 after printing the help. */
int command_json_option(int argc, char **argv, const char *help, bool *json);

/* Parses a whole number in [min, max]; false when text is none. */
bool command_number(const char *text, long long min, long long max, long long *out);
/* Parses a finite number in [min, max]. */
bool command_real(const char *text, double min, double max, double *out);

/* Reads a whole file, zero-terminated, at most `limit` bytes; NULL after printing an error. The
 * caller frees it. */
char *command_read_file(const char *command, const char *path, unsigned long limit,
                        unsigned long *size);

/* What arenas do when memory is short (ir_arena_on_oom): says so and ends the process as failed.
 * Files under construction have no name and are gone with it. */
_Noreturn void command_out_of_memory(void);

#endif
