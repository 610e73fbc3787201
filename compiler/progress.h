/* Progress on standard error: phases with their seconds, and an estimate of what is left. On a
 * terminal one line is rewritten; elsewhere each phase that takes longer than a second gets a line.
 */
#ifndef MCC_COMPILER_PROGRESS_H
#define MCC_COMPILER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

enum { PROGRESS_MAX_PHASES = 16 };

typedef struct progress {
    bool quiet, terminal;
    int n_phases;
    struct {
        const char *name;
        double seconds;
    } phases[PROGRESS_MAX_PHASES]; /* finished ones, and the current one last */
    double phase_start, last_shown, start;
    bool line_open;
} progress;

double progress_now(void); /* seconds, monotonic */
void progress_init(progress *p, bool quiet);
/* Ends the phase before and begins this one. name stays the caller's. */
void progress_phase(progress *p, const char *name);
/* How far the phase is; unit such as "kernels" or "MB". Shown a few times a second. */
void progress_update(progress *p, double done, double total, const char *unit);
/* Ends the last phase and clears the line. */
void progress_end(progress *p);

#endif
