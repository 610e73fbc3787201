#include "compiler/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

double progress_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_init(progress *p, bool quiet) {
    *p = (progress){.quiet = quiet, .terminal = isatty(STDERR_FILENO), .start = progress_now()};
}

static void clear_line(progress *p) {
    if (p->line_open)
        fputs("\r\033[K", stderr);
    p->line_open = false;
}

static void end_phase(progress *p) {
    if (!p->n_phases)
        return;
    p->phases[p->n_phases - 1].seconds = progress_now() - p->phase_start;
    clear_line(p);
}

void progress_phase(progress *p, const char *name) {
    end_phase(p);
    if (p->n_phases < PROGRESS_MAX_PHASES)
        p->phases[p->n_phases++].name = name;
    p->phase_start = p->last_shown = progress_now();
    if (p->quiet || !p->terminal)
        return;
    fprintf(stderr, "\r\033[K%s …", name);
    fflush(stderr);
    p->line_open = true;
}

void progress_update(progress *p, double done, double total, const char *unit) {
    double now = progress_now(), spent = now - p->phase_start;
    /* A terminal's line moves; elsewhere a line a second would be noise: one every ten. */
    if (p->quiet || total <= 0 || now - p->last_shown < (p->terminal ? 0.1 : 10))
        return;
    p->last_shown = now;
    double left = done > 0 ? spent * (total - done) / done : 0;
    fprintf(stderr, "%s%s %.0f of %.0f %s, about %.0f s left%s", p->terminal ? "\r\033[K" : "",
            p->phases[p->n_phases - 1].name, done, total, unit, left + 0.5,
            p->terminal ? "" : "\n");
    fflush(stderr);
    p->line_open = p->terminal;
}

void progress_end(progress *p) {
    end_phase(p);
}
