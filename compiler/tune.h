/* Finding tiles by trying them: a model is built again and again, each time with another legal tile
 * in all of its GPU kernels, and each artifact's launches are timed for some numbers of rows. The
 * fastest tile for each kernel and number of rows makes the table. */
#ifndef MCC_COMPILER_TUNE_H
#define MCC_COMPILER_TUNE_H

#include "compiler/build.h"

enum { TUNE_MOST_ROWS = 16 };

typedef struct tune_options {
    const build_options *build; /* input and passes; its targets and output are not looked at */
    const char *device;         /* "cuda", "cuda:N": times are measured; "emulator": see below */
    /* On the emulator: the GPU whose time is predicted from counts (a name of gpus.def); or NULL
     * with `clock`, for tests: the emulator's events, which say nothing of a GPU. Either way
     * entries are marked as predicted. */
    const char *gpu;
    bool clock;
    int32_t rows[TUNE_MOST_ROWS]; /* ascending; up to 64 decoding sequences, beyond a prompt */
    int n_rows;
    int32_t context; /* tokens that decoding sequences hold */
    int repeat;      /* steps that are measured */
    int most;        /* tiles tried of a kernel; 0: all */
    const char *date;
    void (*progress)(void *user, int done, int rounds);
    void *user;
    atomic_int *cancelled;
} tune_options;

/* The table of what was tried, in `arena`; seconds are those of the device. False after
 * reporting. */
bool tune_run(const tune_options *options, ir_arena *arena, ir_diag *diag, tile_table *out);

#endif
