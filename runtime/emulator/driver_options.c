#include "runtime/emulator/driver.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB *1024
static const modelcc_emulator_gpu rows[] = {
#define GPU(name, title, major, minor, sms, memory, shared, block, threads, blocks, l2, clock,     \
            memory_clock, bus, dram, f32, f16, int8, integrated)                                   \
    {#name,     title,   major,  minor,  sms,       UINT64_C(memory) << 30, shared KIB,            \
     block KIB, threads, blocks, l2 KIB, clock,     memory_clock,           bus,                   \
     dram,      f32,     f16,    int8,   integrated},
#include "runtime/emulator/gpus.def"
#undef GPU
};
enum { N_ROWS = sizeof rows / sizeof *rows };

EXPORT const modelcc_emulator_gpu *modelcc_emulator_gpu_row(int i) {
    return i >= 0 && i < N_ROWS ? &rows[i] : NULL;
}

modelcc_emulator_options drv_options;

/* --- words between commas ------------------------------------------------------------------------
 */

/* The next word of `*text`, or false at its end. */
static bool next_word(const char **text, const char **word, size_t *length) {
    if (!*text)
        return false;
    *word = *text;
    *length = strcspn(*text, ",");
    *text = (*text)[*length] ? *text + *length + 1 : NULL;
    return true;
}

static bool is_word(const char *word, size_t length, const char *name) {
    return strlen(name) == length && strncmp(word, name, length) == 0;
}

int drv_parse_gpus(const char *names, const modelcc_emulator_gpu *found[DRV_MAX_GPUS]) {
    const char *word;
    size_t length;
    int n = 0;
    while (next_word(&names, &word, &length)) {
        int i = 0;
        while (i < N_ROWS && !is_word(word, length, rows[i].name))
            i++;
        if (i == N_ROWS) {
            char known[256] = "";
            for (int k = 0; k < N_ROWS; k++)
                snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", k ? ", " : "",
                         rows[k].name);
            drv_fail(CUDA_ERROR_INVALID_VALUE, "there is no GPU \"%.*s\" to emulate: known are %s",
                     (int)length, word, known);
            return -1;
        }
        if (n == DRV_MAX_GPUS) {
            drv_fail(CUDA_ERROR_INVALID_VALUE, "more than %d GPUs to emulate", DRV_MAX_GPUS);
            return -1;
        }
        found[n++] = &rows[i];
    }
    return n;
}

static bool parse_checks(const char *text, uint32_t *checks) {
    static const struct {
        const char *name;
        uint32_t bits;
    } names[] = {{"all", EMU_CHECK_ALL},
                 {"none", 0},
                 {"uninitialised", EMU_CHECK_UNINITIALISED},
                 {"shared-races", EMU_CHECK_SHARED_RACES},
                 {"async", EMU_CHECK_ASYNC},
                 {"global-races", EMU_CHECK_GLOBAL_RACES}};
    const char *word;
    size_t length;
    *checks = 0;
    while (next_word(&text, &word, &length)) {
        size_t i = 0;
        while (i < sizeof names / sizeof *names && !is_word(word, length, names[i].name))
            i++;
        if (i == sizeof names / sizeof *names) {
            drv_fail(CUDA_ERROR_INVALID_VALUE,
                     "MODELCC_EMULATOR_CHECKS has \"%.*s\": known are all, none, uninitialised, "
                     "shared-races, async, global-races",
                     (int)length, word);
            return false;
        }
        *checks |= names[i].bits;
    }
    return true;
}

/* --- the environment -----------------------------------------------------------------------------
 */

static bool read_number(const char *name, uint64_t most, uint64_t *value) {
    const char *text = getenv(name);
    if (!text || !*text)
        return true;
    char *end;
    unsigned long long parsed = strtoull(text, &end, 10);
    if (*end || text[0] == '-' || parsed > most) {
        drv_fail(CUDA_ERROR_INVALID_VALUE, "%s=%s is no number from 0 to %llu", name, text,
                 (unsigned long long)most);
        return false;
    }
    *value = parsed;
    return true;
}

static uint64_t processors(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n > 0 ? (uint64_t)n : 1;
}

bool drv_read_environment(void) {
    const char *gpu = getenv("MODELCC_EMULATOR_GPU"), *checks = getenv("MODELCC_EMULATOR_CHECKS");
    const char *counters = getenv("MODELCC_EMULATOR_COUNTERS");
    const char *mma = getenv("MODELCC_EMULATOR_MMA");
    uint64_t threads = processors(), limit = 10000;
    modelcc_emulator_options o = {.struct_size = sizeof o, .checks = EMU_CHECK_ALL};
    if (!read_number("MODELCC_EMULATOR_SEED", UINT64_MAX, &o.seed) ||
        !read_number("MODELCC_EMULATOR_APPROX", UINT64_MAX, &o.approx) ||
        !read_number("MODELCC_EMULATOR_FAIL", UINT64_MAX, &o.fail) ||
        !read_number("MODELCC_EMULATOR_THREADS", 256, &threads) ||
        !read_number("MODELCC_EMULATOR_LIMIT", UINT64_MAX / 1000000, &limit) ||
        (checks && *checks && !parse_checks(checks, &o.checks)))
        return false;
    o.exact_mma = mma && strcmp(mma, "exact") == 0;
    if (mma && *mma && !o.exact_mma && strcmp(mma, "device") != 0) {
        drv_fail(CUDA_ERROR_INVALID_VALUE, "MODELCC_EMULATOR_MMA=%s is neither device nor exact",
                 mma);
        return false;
    }
    o.threads = threads ? (int32_t)threads : 1;
    o.limit = limit * 1000000;
    o.count = counters && *counters;
    if (!gpu || !*gpu)
        gpu = rows[0].name;
    if (snprintf(o.gpu, sizeof o.gpu, "%s", gpu) >= (int)sizeof o.gpu) {
        drv_fail(CUDA_ERROR_INVALID_VALUE, "MODELCC_EMULATOR_GPU is too long");
        return false;
    }
    if (!drv_set_gpus(o.gpu))
        return false;
    drv_options = o;
    return true;
}

/* --- for programs that know the emulator ---------------------------------------------------------
 */

static bool is_busy(void) {
    for (int i = 0; i < drv_n_gpus; i++)
        if (drv_gpus[i].contexts > 0)
            return true;
    return false;
}

static bool get_options(modelcc_emulator_options *options) {
    bool locked __attribute__((cleanup(drv_leave)));
    if (drv_enter(&locked) != CUDA_SUCCESS)
        return false;
    if (options->struct_size != sizeof *options) {
        drv_fail(CUDA_ERROR_INVALID_VALUE, "the emulator's options have another size");
        return false;
    }
    *options = drv_options;
    return true;
}

EXPORT bool modelcc_emulator_get_options(modelcc_emulator_options *options) {
    return cuInit(0) == CUDA_SUCCESS && get_options(options);
}

static bool set_options(const modelcc_emulator_options *o) {
    bool locked __attribute__((cleanup(drv_leave)));
    if (drv_enter(&locked) != CUDA_SUCCESS)
        return false;
    bool tracks = o->checks & EMU_CHECK_UNINITIALISED,
         tracked = drv_options.checks & EMU_CHECK_UNINITIALISED;
    bool other_gpu = strncmp(o->gpu, drv_options.gpu, sizeof o->gpu) != 0;
    if (o->struct_size != sizeof *o || o->threads < 1 || o->checks & ~(uint32_t)EMU_CHECK_ALL ||
        !memchr(o->gpu, 0, sizeof o->gpu)) {
        drv_fail(CUDA_ERROR_INVALID_VALUE, "the emulator's options are not valid");
        return false;
    }
    if ((other_gpu || tracks != tracked) && is_busy()) {
        drv_fail(CUDA_ERROR_INVALID_VALUE,
                 "the GPU, and the check of uninitialised memory, cannot be changed while there is "
                 "a context");
        return false;
    }
    if (other_gpu && !drv_set_gpus(o->gpu))
        return false;
    drv_options = *o;
    return true;
}

EXPORT bool modelcc_emulator_set_options(const modelcc_emulator_options *options) {
    return cuInit(0) == CUDA_SUCCESS && set_options(options);
}
