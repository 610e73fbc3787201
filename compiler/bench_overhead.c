#include "compiler/bench_overhead.h"
#include "compiler/output.h"
#include "compiler/progress.h"

#include <inttypes.h>
#include <stdlib.h>

enum { WARM_UP = 20 /* steps that are not timed: the first ones compute the prompts */ };

static const int32_t sequences[] = {1, 8, 32};
enum { N_COUNTS = sizeof sequences / sizeof *sequences };

static int take_events(mcc_engine *engine) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_event event = {.struct_size = sizeof event};
    do {
        if (mcc_engine_next_event(engine, &event, &error))
            return output_fail(&error);
    } while (event.kind != MCC_EVENT_NONE);
    return EXIT_FINE;
}

/* Microseconds of each of n decode steps. */
static int time_steps(mcc_engine *engine, int32_t n_seqs, int32_t n, double *microseconds) {
    mcc_error error = {.struct_size = sizeof error};
    int code = EXIT_FINE;
    for (int32_t i = 0; i < n_seqs; i++) {
        const int32_t prompt[] = {i, 1, 2, 3};
        mcc_request_params params = {.struct_size = sizeof params,
                                     .flags = MCC_REQUEST_IGNORE_EOS,
                                     .prompt_ids = prompt,
                                     .n_prompt_ids = 4,
                                     .max_tokens = WARM_UP + n + 1};
        uint64_t id;
        if (mcc_request_submit(engine, &params, &id, &error))
            return output_fail(&error);
    }
    for (int32_t i = -WARM_UP; i < n && code == EXIT_FINE; i++) {
        double start = progress_now();
        if (mcc_engine_step(engine, NULL, &error))
            return output_fail(&error);
        code = take_events(engine);
        if (i >= 0)
            microseconds[i] = 1e6 * (progress_now() - start);
    }
    return code;
}

static int measure(const mcc_artifact *artifact, const mcc_engine_options *options, int32_t n_seqs,
                   int32_t n, double *microseconds, int32_t *threads) {
    mcc_error error = {.struct_size = sizeof error};
    mcc_engine_options o = *options;
    mcc_engine *engine;
    o.flags = MCC_ENGINE_NULL_DEVICE;
    o.max_num_seqs = n_seqs;
    if (mcc_engine_create(artifact, &o, &engine, &error))
        return output_fail(&error);
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    mcc_engine_get_stats(engine, &stats, NULL);
    *threads = stats.threads;
    int code = time_steps(engine, n_seqs, n, microseconds);
    mcc_engine_destroy(engine);
    return code;
}

static int print_json(const output_spread *spreads, int32_t threads, double base, double each) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddNumberToObject(j, "threads", threads);
    cJSON *list = cJSON_AddArrayToObject(j, "overhead");
    for (int i = 0; i < N_COUNTS; i++) {
        cJSON *e = cJSON_CreateObject();
        cJSON_AddNumberToObject(e, "sequences", sequences[i]);
        cJSON_AddNumberToObject(e, "step_us", spreads[i].median);
        cJSON_AddNumberToObject(e, "min_step_us", spreads[i].least);
        cJSON_AddNumberToObject(e, "max_step_us", spreads[i].most);
        cJSON_AddItemToArray(list, e);
    }
    cJSON_AddNumberToObject(j, "step_us", base);
    cJSON_AddNumberToObject(j, "sequence_us", each);
    return output_json(j);
}

static void print_table(const output_spread *spreads, int32_t threads, double base, double each) {
    printf("a decode step without kernels, %" PRId32 " threads\n", threads);
    printf("  %-28s %10s %10s %10s\n", "", "median", "min", "max");
    for (int i = 0; i < N_COUNTS; i++) {
        char name[32];
        snprintf(name, sizeof name, "%" PRId32 " sequence%s", sequences[i],
                 sequences[i] > 1 ? "s" : "");
        printf("  %-28s %10.1f %10.1f %10.1f  us\n", name, spreads[i].median, spreads[i].least,
               spreads[i].most);
    }
    printf("  in all about %.1f us and %.2f us a sequence\n", base, each);
}

int bench_overhead_run(const mcc_artifact *artifact, const mcc_engine_options *options,
                       int32_t steps, bool json) {
    double *microseconds = malloc((size_t)steps * sizeof *microseconds);
    output_spread spreads[N_COUNTS];
    int32_t threads = 0;
    int code = microseconds ? EXIT_FINE : output_fail_memory();
    for (int i = 0; i < N_COUNTS && code == EXIT_FINE; i++) {
        code = measure(artifact, options, sequences[i], steps, microseconds, &threads);
        if (code == EXIT_FINE)
            spreads[i] = output_spread_of(microseconds, (int)steps);
    }
    free(microseconds);
    if (code != EXIT_FINE)
        return code;
    double each = (spreads[N_COUNTS - 1].median - spreads[0].median) /
                  (sequences[N_COUNTS - 1] - sequences[0]);
    double base = spreads[0].median - each * sequences[0];
    if (json)
        return print_json(spreads, threads, base, each);
    print_table(spreads, threads, base, each);
    return EXIT_FINE;
}
