/* The engine on a GPU, with a made-up driver that runs the made-up model: which code is taken, what
 * a step submits, graphs, memory that does not suffice, and every driver call failing once. */
#include "fake_gpu_case.h"

#include "runtime/cuda_module.h"

enum { CUBIN = 1 << MCC_CUDA_CUBIN, PTX = 1 << MCC_CUDA_PTX };

static mcc_status try_engine(mcc_engine_options options, mcc_engine **engine, mcc_error *error) {
    options.struct_size = sizeof options;
    *error = (mcc_error){.struct_size = sizeof *error};
    *engine = NULL;
    return mcc_engine_create(model, &options, engine, error);
}

static mcc_engine *make_engine(mcc_engine_options options) {
    mcc_engine *engine;
    mcc_error error;
    mcc_status status = try_engine(options, &engine, &error);
    ck_assert_msg(status == MCC_OK, "%s", error.text);
    return engine;
}

static void refuses(mcc_engine_options options, mcc_status expected, const char *says) {
    mcc_engine *engine;
    mcc_error error;
    ck_assert_int_eq(try_engine(options, &engine, &error), expected);
    ck_assert_msg(strstr(error.text, says) != NULL, "%s", error.text);
    ck_assert_ptr_null(engine);
    check_clean();
}

static mcc_engine_stats stats_of(const mcc_engine *engine) {
    mcc_engine_stats stats = {.struct_size = sizeof stats};
    ck_assert_int_eq(mcc_engine_get_stats(engine, &stats, NULL), MCC_OK);
    return stats;
}

/* --- which code ----------------------------------------------------------------------------------
 */

START_TEST(choice_of_images) {
    static const struct {
        uint32_t arch, forms;
        int kind; /* of the four of each function, -1: none */
    } cases[] = {
        {75, CUBIN | PTX, -1}, {80, CUBIN | PTX, 0},  {80, PTX, 1},          {80, CUBIN, 0},
        {86, CUBIN | PTX, 1},  {86, CUBIN, -1},       {89, CUBIN | PTX, 1},  {90, CUBIN | PTX, 2},
        {90, PTX, 1},          {100, CUBIN | PTX, 1}, {120, CUBIN | PTX, 3}, {121, PTX, 3},
    };
    rt_tables tables;
    rt_cuda_code checked;
    rt_error error = {0};
    ck_assert(rt_tables_check(&artifact.tables, sizeof artifact.tables, 384, "x", &tables, &error));
    ck_assert(rt_cuda_check(&code, sizeof code, &tables, "x", &checked, &error));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint32_t f = 0; f < FAKE_FUNCTIONS; f++) {
            int found = rt_cuda_image_choose(&checked, f, cases[i].arch, cases[i].forms);
            ck_assert_int_eq(found, cases[i].kind < 0 ? -1 : (int)f * 4 + cases[i].kind);
        }
    /* PTX for sm_90a is for that one alone; of two that fit, the newer one is taken. */
    code.images[1].arch = 90;
    code.images[1].arch_specific = 1;
    ck_assert_int_eq(rt_cuda_image_choose(&checked, 0, 90, PTX), 1);
    ck_assert_int_eq(rt_cuda_image_choose(&checked, 0, 100, PTX), -1);
    code.images[1].arch_specific = 0;
    ck_assert_int_eq(rt_cuda_image_choose(&checked, 0, 100, PTX), 1);
    ck_assert_int_eq(rt_cuda_image_choose(&checked, 0, 121, PTX), 3);
    char text[64];
    ck_assert_str_eq(rt_cuda_architectures(&checked, 0, text, sizeof text),
                     "sm_80, sm_90, sm_90a, sm_120");
    ck_assert_str_eq(rt_cuda_architectures(&checked, MCC_CUDA_CUBIN, text, sizeof text),
                     "sm_80, sm_90a");
    ck_assert_uint_lt(strlen(rt_cuda_architectures(&checked, 0, text, 8)), 8);
}
END_TEST

START_TEST(code_that_is_loaded) {
    static const struct {
        const char *device;
        int major, minor, refuse_cubins, cubins, ptx;
    } cases[] = {
        {"cuda", 8, 0, 0, 4, 0},
        {"cuda:1", 8, 6, 0, 0, 4},
        {"cuda", 9, 0, 0, 4, 0},
        {"cuda", 12, 0, 0, 0, 4},
        {"cuda", 8, 0, CUDA_ERROR_NO_BINARY_FOR_GPU, 0, 4},
        {"cuda", 8, 0, CUDA_ERROR_INVALID_IMAGE, 0, 4},
        {"emulator", 8, 0, 0, 0, 4}, /* it runs PTX only */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        driver->major = cases[i].major;
        driver->minor = cases[i].minor;
        driver->refuse_cubins = cases[i].refuse_cubins;
        driver->cubins = driver->ptx = 0;
        mcc_engine_destroy(make_engine((mcc_engine_options){.device = cases[i].device}));
        ck_assert_int_eq(driver->cubins, cases[i].cubins);
        ck_assert_int_eq(driver->ptx, cases[i].ptx);
        check_clean();
    }
}
END_TEST

START_TEST(code_that_does_not_fit) {
    driver->major = 7;
    driver->minor = 5;
    refuses((mcc_engine_options){.device = "cuda"}, MCC_NO_DEVICE,
            "for Fake GPU 0 (sm_75): it has cubins for sm_80, sm_90a, and PTX for sm_80, sm_120: "
            "build it with --target cuda:sm_75");
    refuses((mcc_engine_options){.device = "emulator"}, MCC_NO_DEVICE, "set MODELCC_EMULATOR_GPU");
    driver->major = 8;
    driver->minor = 6;
    driver->version = 12040;
    driver->refuse_ptx = CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    refuses((mcc_engine_options){.device = "cuda"}, MCC_NO_DEVICE,
            "the driver supports CUDA 12.4, which is older than the artifact's PTX: update");
    driver->refuse_ptx = CUDA_ERROR_INVALID_PTX;
    refuses((mcc_engine_options){.device = "cuda"}, MCC_DEVICE_FAILED,
            "the PTX of append for sm_80: ptxas: no: CUDA");
    snprintf(driver->says, sizeof driver->says, "unknown instruction foo.bar");
    refuses((mcc_engine_options){.device = "emulator"}, MCC_DEVICE_FAILED,
            "unknown instruction foo.bar");
}
END_TEST

START_TEST(too_much_shared_memory) {
    close_model();
    code.functions[2].shared_bytes = 200 << 10;
    open_model();
    refuses((mcc_engine_options){.device = "cuda"}, MCC_NO_DEVICE,
            "attend needs 204800 bytes of shared memory");
}
END_TEST

START_TEST(too_large_a_grid) {
    close_model();
    code.functions[3].y.mult = 1 << 17;
    open_model();
    refuses((mcc_engine_options){.device = "cuda"}, MCC_CAPACITY, "logits: steps of 128 tokens");
}
END_TEST

/* --- which device --------------------------------------------------------------------------------
 */

START_TEST(devices_by_name) {
    static const char *const wrong[] = {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "CUDA"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        refuses((mcc_engine_options){.device = wrong[i]}, MCC_INVALID_ARGUMENT,
                "expected cpu, cuda, cuda:N or emulator");
    refuses((mcc_engine_options){.device = "cuda:2"}, MCC_NO_DEVICE, "no GPU 2: there are 2");
    refuses((mcc_engine_options){.device = "cuda:99999999999999999999"}, MCC_NO_DEVICE, "no GPU");
    driver->no_device = 1;
    refuses((mcc_engine_options){.device = "cuda"}, MCC_NO_DEVICE, "CUDA_VISIBLE_DEVICES");
    setenv("MODELCC_EMULATOR", "/no/such/emulator.so", 1);
    refuses((mcc_engine_options){.device = "emulator"}, MCC_NO_DEVICE, "/no/such/emulator.so");
    setenv("MODELCC_EMULATOR", MCC_NO_MODEL, 1);
    refuses((mcc_engine_options){.device = "emulator"}, MCC_NO_DEVICE, "lacks cuInit");
    /* The CPU is the default where there is code for it. */
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    ck_assert_uint_eq(stats_of(engine).device_bytes, 0);
    mcc_engine_destroy(engine);
}
END_TEST

START_TEST(artifacts_without_one_or_the_other) {
    close_model();
    artifact.cuda = NULL;
    open_model();
    refuses((mcc_engine_options){.device = "cuda"}, MCC_UNSUPPORTED, "has no code for GPUs");
    close_model();
    artifact.cuda = &code;
    artifact.tables.h.targets.count = 0;
    open_model();
    refuses((mcc_engine_options){.device = "cpu"}, MCC_CPU_MISMATCH,
            "has no code for a CPU; it has code for GPUs of sm_80, sm_90a, sm_120");
    mcc_engine *engine = make_engine((mcc_engine_options){.threads = 1});
    ck_assert_uint_gt(stats_of(engine).device_bytes, 0);
    mcc_engine_destroy(engine);
    check_clean();
    mcc_artifact_info info = {.struct_size = sizeof info};
    ck_assert_int_eq(mcc_artifact_get_info(model, &info, NULL), MCC_OK);
    ck_assert_ptr_null(info.target);
    ck_assert_int_eq(info.n_targets, 0);
    ck_assert_int_eq(info.n_cuda_images, FAKE_IMAGES);
    /* Code for another processor, by the default target and by name. */
    close_model();
    artifact.tables.h.targets.count = 1;
    artifact.tables.targets[0].cpu_features = UINT64_C(1) << 50;
    open_model();
    refuses((mcc_engine_options){.device = "cpu"}, MCC_CPU_MISMATCH, "needs a processor with");
    mcc_artifact *other;
    mcc_artifact_options options = {.struct_size = sizeof options, .target = "cpu:any"};
    ck_assert_int_eq(mcc_artifact_open(path, &options, &other, NULL), MCC_CPU_MISMATCH);
}
END_TEST

/* --- steps ---------------------------------------------------------------------------------------
 */

static int32_t prompt[FAKE_MAX_LEN];

static void fill_prompt(int64_t n, uint32_t seed) {
    for (int64_t i = 0; i < n; i++)
        prompt[i] = (int32_t)(fake_mix(seed, (uint32_t)i) % FAKE_VOCAB);
}

static uint32_t request_flags = MCC_REQUEST_IGNORE_EOS | MCC_REQUEST_NO_CACHE;

/* Runs one greedy request and compares its tokens with the model's definition. */
static void check_request(mcc_engine *engine, int64_t n_prompt, int64_t n_tokens) {
    mcc_request_params params = {.struct_size = sizeof params,
                                 .flags = request_flags,
                                 .prompt_ids = prompt,
                                 .n_prompt_ids = n_prompt,
                                 .max_tokens = n_tokens};
    static int32_t ids[2 * FAKE_MAX_LEN];
    memcpy(ids, prompt, (size_t)n_prompt * sizeof *ids);
    uint64_t id;
    ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_OK);
    mcc_event event = {.struct_size = sizeof event};
    int64_t n = n_prompt;
    while (event.kind != MCC_EVENT_FINISHED) {
        mcc_error error = {.struct_size = sizeof error};
        ck_assert_msg(mcc_engine_step(engine, NULL, &error) == MCC_OK, "%s", error.text);
        do {
            ck_assert_int_eq(mcc_engine_poll(engine, id, &event, NULL), MCC_OK);
            if (event.kind == MCC_EVENT_TOKEN) {
                ck_assert_int_eq(event.token_id, fake_next(ids, n));
                ids[n++] = event.token_id;
            }
        } while (event.kind == MCC_EVENT_TOKEN);
    }
    ck_assert_int_eq(n, n_prompt + n_tokens);
}

START_TEST(greedy_for_any_chunk) {
    static const int32_t chunks[] = {1, 2, 7, 16, 100, 400};
    static const int64_t lengths[] = {1, 16, 33, 300};
    mcc_engine *engine = make_engine((mcc_engine_options){.max_num_batched_tokens = chunks[_i],
                                                          .device = _i % 2 ? "cuda" : "emulator"});
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        fill_prompt(lengths[l], 5);
        check_request(engine, lengths[l], 24);
    }
    /* The last step was one of decoding: one graph, and a handful of calls. */
    mcc_engine_stats s = stats_of(engine);
    ck_assert_uint_eq(s.last_launches, 3);
    ck_assert_uint_eq(s.last_driver_calls, 6);
    ck_assert_int_eq(driver->captures, 1);
    ck_assert_uint_ge(s.graph_launches, 4 * 23);
    ck_assert_uint_eq(s.graph_launches, (uint64_t)driver->graph_launches);
    ck_assert_uint_eq(s.launches, (uint64_t)driver->launches);
    ck_assert_uint_ge(s.device_bytes, s.kv_bytes_reserved + s.arena_bytes);
    ck_assert_uint_eq(s.arena_bytes, (uint64_t)chunks[_i] * (FAKE_HIDDEN_BYTES + 4 * FAKE_VOCAB));
    mcc_engine_destroy(engine);
    check_clean();
}
END_TEST

START_TEST(long_generation_slides_the_window) {
    mcc_engine *engine = make_engine((mcc_engine_options){.device = "cuda"});
    fill_prompt(3, 9);
    check_request(engine, 3, FAKE_MAX_LEN - 3);
    ck_assert_int_eq(driver->captures, 1);
    mcc_engine_destroy(engine);
    check_clean();
}
END_TEST

/* Several requests of three samples each: prompts in chunks beside decoding ones, graphs of several
 * sequences, and pages that are copied because samples go different ways from where they share one.
 */
START_TEST(many_requests) {
    enum { PROMPTS = 4, SAMPLES = 3, TOKENS = 30 };
    mcc_engine *engine = make_engine(
        (mcc_engine_options){.max_num_seqs = 7, .max_num_batched_tokens = 20, .device = "cuda"});
    static int32_t ids[PROMPTS * SAMPLES][100 + TOKENS];
    int64_t n[PROMPTS * SAMPLES];
    int left = PROMPTS * SAMPLES, before = driver->launches;
    for (int p = 0; p < PROMPTS; p++) {
        fill_prompt(20 + 25 * p, (uint32_t)p);
        mcc_request_params params = {.struct_size = sizeof params,
                                     .flags = MCC_REQUEST_IGNORE_EOS,
                                     .prompt_ids = prompt,
                                     .n_prompt_ids = 20 + 25 * p,
                                     .max_tokens = TOKENS,
                                     .n = SAMPLES};
        uint64_t id;
        ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_OK);
        ck_assert_uint_eq(id, (uint64_t)(SAMPLES * p + 1));
        for (int k = 0; k < SAMPLES; k++) {
            n[SAMPLES * p + k] = 20 + 25 * p;
            memcpy(ids[SAMPLES * p + k], prompt, (size_t)(20 + 25 * p) * sizeof *prompt);
        }
    }
    while (left > 0) {
        mcc_event event = {.struct_size = sizeof event};
        ck_assert_int_eq(mcc_engine_step(engine, NULL, NULL), MCC_OK);
        while (!mcc_engine_next_event(engine, &event, NULL) && event.kind != MCC_EVENT_NONE) {
            int r = (int)event.request - 1;
            left -= event.kind == MCC_EVENT_FINISHED;
            if (event.kind == MCC_EVENT_TOKEN) {
                ck_assert_int_eq(event.token_id, fake_next(ids[r], n[r]));
                ids[r][n[r]++] = event.token_id;
            }
        }
    }
    for (int r = 0; r < PROMPTS * SAMPLES; r++)
        ck_assert_int_eq(n[r], 20 + 25 * (r / SAMPLES) + TOKENS);
    mcc_engine_stats s = stats_of(engine);
    ck_assert_int_ge(driver->captures, 2); /* for different numbers of sequences */
    ck_assert_uint_eq(s.launches, (uint64_t)(driver->launches - before));
    ck_assert_int_gt(driver->device_copies, 0);
    mcc_engine_destroy(engine);
    check_clean();
}
END_TEST

enum { SEQS = 5, STEP_TOKENS = 64 };

/* One step of `counts[s]` tokens for each sequence, compared with the model's definition. */
static void check_ragged(mcc_engine *engine, int32_t held[SEQS][FAKE_MAX_LEN],
                         int64_t lengths[SEQS], const int *counts, uint32_t seed, int row_every) {
    int32_t ids[STEP_TOKENS], positions[STEP_TOKENS], sequences[STEP_TOKENS], rows[STEP_TOKENS];
    mcc_eval_step step = {.struct_size = sizeof step,
                          .token_ids = ids,
                          .positions = positions,
                          .sequences = sequences,
                          .output_rows = rows};
    for (int s = 0; s < SEQS; s++)
        for (int i = 0; i < counts[s]; i++) {
            int32_t t = step.n_tokens++;
            ids[t] = (int32_t)(fake_mix(seed, (uint32_t)t) % FAKE_VOCAB);
            positions[t] = (int32_t)lengths[s];
            sequences[t] = s;
            held[s][lengths[s]++] = ids[t];
            if (row_every && t % row_every == 0)
                rows[step.n_rows++] = t;
        }
    mcc_error error = {.struct_size = sizeof error};
    ck_assert_msg(mcc_engine_eval(engine, &step, &error) == MCC_OK, "%s", error.text);
    for (int32_t r = 0; r < step.n_rows; r++)
        for (int32_t v = 0; v < FAKE_VOCAB; v += 7) {
            int32_t t = rows[r];
            float expected = fake_logit(held[sequences[t]], positions[t] + 1, v);
            ck_assert_msg(step.logits[r * FAKE_VOCAB + v] == expected, "token %d", t);
        }
}

START_TEST(ragged_steps_and_buckets) {
    mcc_engine *engine = make_engine((mcc_engine_options){
        .max_eval_seqs = SEQS, .max_num_batched_tokens = STEP_TOKENS, .device = "cuda"});
    static int32_t held[SEQS][FAKE_MAX_LEN];
    int64_t lengths[SEQS] = {0};
    static const struct {
        int counts[SEQS], row_every, captures;
        uint64_t grid; /* of the first kernel */
    } steps[] = {
        {{3, 0, 20, 1, 2}, 1, 0, 26}, /* mixed: a plain launch */
        {{1, 0, 0, 0, 0}, 1, 1, 1},   /* a graph for one */
        {{1, 1, 1, 0, 0}, 1, 2, 4},   /* three run in the graph for four */
        {{1, 1, 1, 1, 0}, 1, 2, 4},   /* the same one */
        {{1, 1, 1, 1, 1}, 1, 3, 5},   /* the largest */
        {{0, 1, 1, 0, 0}, 2, 4, 2},   /* not all rows are wanted */
        {{1, 0, 1, 0, 1}, 0, 4, 4},   /* none: not waited for … */
        {{9, 0, 0, 0, 2}, 0, 4, 11},  /* … nor this … */
        {{2, 2, 2, 2, 2}, 0, 4, 10},  /* … so that both blocks are on their way */
        {{1, 1, 1, 1, 1}, 1, 4, 5},   {{12, 11, 12, 11, 12}, 1, 4, 58}, {{2, 1, 1, 1, 1}, 1, 4, 6},
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        check_ragged(engine, held, lengths, steps[i].counts, (uint32_t)i + 3, steps[i].row_every);
        ck_assert_int_eq(driver->captures, steps[i].captures);
        ck_assert_uint_eq(driver->last_grid, steps[i].grid);
        mcc_engine_stats s = stats_of(engine);
        ck_assert_uint_eq(s.last_launches, steps[i].row_every || steps[i].grid <= 5 ? 3 : 2);
        ck_assert_msg(driver->bad_calls == 0, "%s", driver->bad_call);
    }
    ck_assert_str_eq(driver->last_function, "append");
    mcc_engine_destroy(engine);
    check_clean();
}
END_TEST

/* By events, without graphs: the made-up driver takes a millisecond for each launch. */
START_TEST(launches_are_timed) {
    mcc_engine *engine = make_engine((mcc_engine_options){
        .max_num_batched_tokens = 4, .flags = MCC_ENGINE_TIMINGS, .device = "cuda"});
    double seconds[3];
    int32_t n;
    fill_prompt(9, 5);
    check_request(engine, 9, 4);
    ck_assert_int_eq(driver->captures, 0);
    ck_assert_int_eq(mcc_engine_launch_seconds(engine, seconds, 3, &n, NULL), MCC_OK);
    ck_assert_int_eq(n, 3);
    for (int i = 0; i < 3; i++)
        ck_assert(seconds[i] > 0.000999 && seconds[i] < 0.001001);
    mcc_engine_destroy(engine);
    check_clean();
}
END_TEST

START_TEST(nothing_is_run_on_the_null_device) {
    mcc_engine *engine =
        make_engine((mcc_engine_options){.flags = MCC_ENGINE_NULL_DEVICE, .device = "cuda"});
    static const int32_t id = 5, zero = 0;
    mcc_eval_step step = {.struct_size = sizeof step,
                          .n_tokens = 1,
                          .n_rows = 1,
                          .token_ids = &id,
                          .positions = &zero,
                          .sequences = &zero,
                          .output_rows = &zero};
    ck_assert_int_eq(mcc_engine_eval(engine, &step, NULL), MCC_OK);
    for (int i = 0; i < FAKE_VOCAB; i++)
        ck_assert(step.logits[i] == 0);
    ck_assert_int_eq(driver->launches, 0);
    mcc_engine_destroy(engine);
    check_clean();
}
END_TEST

/* --- too little memory ---------------------------------------------------------------------------
 */

static int64_t number_after(const char *text, const char *words) {
    const char *at = strstr(text, words);
    ck_assert_msg(at != NULL, "no \"%s\" in: %s", words, text);
    return strtoll(at + strlen(words), NULL, 10);
}

START_TEST(memory_says_what_would_fit) {
    mcc_engine *engine;
    mcc_error error;
    mcc_engine_options options = {
        .max_eval_seqs = 4, .max_num_batched_tokens = 16, .device = "cuda"};
    engine = make_engine(options);
    uint64_t needed = stats_of(engine).device_bytes;
    mcc_engine_destroy(engine);
    driver->memory = needed;
    mcc_engine_destroy(make_engine(options));
    driver->memory = needed - 1;
    ck_assert_int_eq(try_engine(options, &engine, &error), MCC_OUT_OF_MEMORY);
    check_clean();
    ck_assert_int_eq(number_after(error.text, "Fake GPU 0 (sm_80): "), (int64_t)needed);
    ck_assert_int_eq(number_after(error.text, "KV cache "), 4 * (75 * 2 + 37) * FAKE_LAYER_BYTES);
    ck_assert_int_eq(number_after(error.text, "), "), (int64_t)needed - 1);
    ck_assert_int_eq(number_after(error.text, "max_num_seqs to at most "), 3);
    /* What it says does fit. */
    for (driver->memory = needed - 1; driver->memory > needed / 4; driver->memory -= 9999) {
        ck_assert_int_eq(try_engine(options, &engine, &error), MCC_OUT_OF_MEMORY);
        mcc_engine_options smaller = options;
        smaller.max_model_len = number_after(error.text, "max_model_len to at most ");
        ck_assert_int_lt(smaller.max_model_len, FAKE_MAX_LEN);
        mcc_engine_destroy(make_engine(smaller));
        smaller = options;
        smaller.max_eval_seqs = strstr(error.text, "max_num_seqs")
                                    ? (int32_t)number_after(error.text, "max_num_seqs to at most ")
                                    : 0;
        if (smaller.max_eval_seqs)
            mcc_engine_destroy(make_engine(smaller));
    }
    check_clean();
    driver->memory = 4000;
    refuses(options, MCC_OUT_OF_MEMORY, "a smaller max_num_batched_tokens (now 16)");
    driver->memory = needed / 2;
    options.kv_cache_memory_bytes = needed - 20000;
    refuses(options, MCC_OUT_OF_MEMORY, "set kv_cache_memory_bytes to at most ");
}
END_TEST

/* Many sequences need not have room at full length: the cache takes what there is, and they wait
 * for each other. */
START_TEST(memory_bounds_the_cache) {
    enum { SEQS_WANTED = 16 };
    mcc_engine_options options = {
        .max_num_seqs = SEQS_WANTED, .max_num_batched_tokens = 32, .device = "cuda"};
    mcc_engine *engine = make_engine(options);
    mcc_engine_stats whole = stats_of(engine);
    mcc_engine_destroy(engine);
    uint64_t fixed = whole.device_bytes - whole.kv_bytes_reserved;
    driver->memory = fixed + whole.kv_bytes_reserved / 4;
    engine = make_engine(options);
    mcc_engine_stats s = stats_of(engine);
    ck_assert_uint_le(s.kv_bytes_reserved, (driver->memory - fixed) / 10 * 9);
    ck_assert_uint_gt(s.kv_bytes_reserved, (driver->memory - fixed) / 10 * 8);
    ck_assert_int_eq(s.max_num_seqs, SEQS_WANTED);
    ck_assert_int_lt(s.kv_tokens, whole.kv_tokens / 3);
    fill_prompt(100, 3);
    check_request(engine, 100, 20);
    mcc_engine_destroy(engine);
    check_clean();
    /* Of what was asked for, nothing is taken off; and one sequence must fit. */
    options.kv_cache_memory_bytes = whole.kv_bytes_reserved / 2;
    refuses(options, MCC_OUT_OF_MEMORY, "set kv_cache_memory_bytes to at most ");
    options.kv_cache_memory_bytes = 0;
    driver->memory = fixed + whole.kv_bytes_reserved / SEQS_WANTED;
    refuses(options, MCC_OUT_OF_MEMORY, "set max_model_len to at most ");
}
END_TEST

/* --- failures ------------------------------------------------------------------------------------
 */

/* A whole use, with a prompt in chunks, decoding, and a batch. The first status that is not OK. */
static mcc_status use(mcc_error *error) {
    mcc_engine *engine;
    mcc_status status = try_engine(
        (mcc_engine_options){
            .max_num_seqs = 2, .max_eval_seqs = 2, .max_num_batched_tokens = 3, .device = "cuda"},
        &engine, error);
    mcc_request_params params = {.struct_size = sizeof params,
                                 .prompt_ids = prompt,
                                 .n_prompt_ids = 10,
                                 .max_tokens = 4,
                                 .n = 2};
    uint64_t id;
    if (status == MCC_OK)
        status = mcc_request_submit(engine, &params, &id, error);
    int32_t unfinished = 1;
    while (status == MCC_OK && unfinished)
        status = mcc_engine_step(engine, &unfinished, error);
    /* A failed step ends the requests that were at work. Those that wait are served. */
    int failed = 0, ended = 0;
    mcc_event event = {.struct_size = sizeof event};
    while (engine && status != MCC_OK && unfinished)
        ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
    while (engine && mcc_engine_next_event(engine, &event, NULL) == MCC_OK &&
           event.kind != MCC_EVENT_NONE) {
        ended += event.kind == MCC_EVENT_FINISHED;
        failed += event.kind == MCC_EVENT_FINISHED && event.finish_reason == MCC_FINISH_ERROR;
    }
    ck_assert_int_eq(ended, engine ? 2 : 0);
    ck_assert(!engine || (status != MCC_OK) == (failed > 0));
    static const int32_t ids[3] = {1, 2, 3}, positions[3] = {0, 0, 1}, sequences[3] = {0, 1, 1};
    static const int32_t rows[2] = {0, 2};
    mcc_eval_step step = {.struct_size = sizeof step,
                          .n_tokens = 3,
                          .n_rows = 2,
                          .token_ids = ids,
                          .positions = positions,
                          .sequences = sequences,
                          .output_rows = rows};
    if (status == MCC_OK)
        status = mcc_engine_eval(engine, &step, error);
    if (status != MCC_OK && engine) {
        mcc_error again = {.struct_size = sizeof again};
        ck_assert_msg(mcc_engine_eval(engine, &step, &again) == MCC_OK, "%s", again.text);
    }
    mcc_engine_destroy(engine);
    return status;
}

START_TEST(every_call_may_fail) {
    mcc_error error;
    fill_prompt(10, 4);
    ck_assert_int_eq(use(&error), MCC_OK);
    long all = driver->calls;
    check_clean();
    int refused = 0;
    for (long n = 1; n <= all; n++) {
        driver->fail_in = n;
        driver->fail_with = n % 2 ? CUDA_ERROR_LAUNCH_FAILED : CUDA_ERROR_OUT_OF_MEMORY;
        driver->failed_call[0] = 0;
        mcc_status status = use(&error);
        driver->fail_in = 0;
        if (status != MCC_OK) {
            ck_assert_msg(error.text[0] != 0 && strlen(error.text) > 20, "call %ld (%s)", n,
                          driver->failed_call);
            ck_assert_msg(status == MCC_DEVICE_FAILED || status == MCC_OUT_OF_MEMORY ||
                              status == MCC_NO_DEVICE,
                          "call %ld (%s): status %d, %s", n, driver->failed_call, status,
                          error.text);
            refused++;
        }
        /* Without a current context nothing can be freed but with the context. */
        if (strcmp(driver->failed_call, "cuCtxPushCurrent_v2") == 0 && driver->allocations > 0) {
            close_model();
            setup();
        }
        check_clean();
        /* The process can go on. */
        ck_assert_msg(use(&error) == MCC_OK, "after call %ld: %s", n, error.text);
        check_clean();
    }
    ck_assert_int_gt(refused, 60);
}
END_TEST

/* Everything fails for a while, at each call of a step in turn: requests at work end with an error,
 * those that come are refused by each step until the GPU can be set up again, and then get the
 * model's tokens, with nothing of the old cache. */
START_TEST(an_engine_outlives_its_gpu) {
    enum { TOKENS = 40 };
    fill_prompt(50, 8);
    mcc_request_params params = {.struct_size = sizeof params,
                                 .flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = prompt,
                                 .n_prompt_ids = 50,
                                 .max_tokens = TOKENS,
                                 .n = 3};
    mcc_engine *engine = make_engine(
        (mcc_engine_options){.max_num_seqs = 4, .max_num_batched_tokens = 16, .device = "cuda"});
    for (int n = 1; n < 60; n += 3) {
        uint64_t id;
        int32_t unfinished = 1;
        mcc_error error = {.struct_size = sizeof error};
        ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_OK);
        driver->fail_in = n;
        driver->fail_with = CUDA_ERROR_ILLEGAL_ADDRESS;
        int failures = 0, ended = 0, failed = 0;
        while (unfinished)
            failures += mcc_engine_step(engine, &unfinished, &error) != MCC_OK;
        ck_assert_int_eq(driver->fail_in, 0);
        ck_assert_int_eq(failures, 1);
        ck_assert_ptr_nonnull(strstr(error.text, "made to fail"));
        mcc_event event = {.struct_size = sizeof event};
        while (!mcc_engine_next_event(engine, &event, NULL) && event.kind != MCC_EVENT_NONE)
            if (event.kind == MCC_EVENT_FINISHED) {
                ended++;
                failed += event.finish_reason == MCC_FINISH_ERROR;
                ck_assert(event.finish_reason == MCC_FINISH_ERROR ||
                          event.completion_tokens == TOKENS);
            }
        ck_assert_int_eq(ended, 3);
        ck_assert_int_gt(failed, 0);
        check_request(engine, 50, 5);
        ck_assert_msg(driver->bad_calls == 0, "%s", driver->bad_call);
    }
    /* Beyond repair: each step says so, and no request is left behind. */
    uint64_t id;
    int32_t unfinished = 3;
    mcc_error error = {.struct_size = sizeof error};
    ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_OK);
    driver->fail_in = 4;
    ck_assert_int_eq(mcc_engine_step(engine, &unfinished, &error), MCC_DEVICE_FAILED);
    while (unfinished > 0) {
        driver->fail_in = 1 + unfinished;
        int32_t before = unfinished;
        ck_assert_int_eq(mcc_engine_step(engine, &unfinished, &error), MCC_DEVICE_FAILED);
        ck_assert_int_lt(unfinished, before);
        ck_assert_ptr_nonnull(strstr(error.text, "set up again after: "));
    }
    driver->fail_in = 0;
    check_request(engine, 50, 5);
    mcc_engine_destroy(engine);
    check_clean();
}
END_TEST

/* Nothing is taken for cached that the GPU has lost while a session was saved. */
START_TEST(a_save_that_fails_loses_the_cache) {
    mcc_engine *engine = make_engine((mcc_engine_options){.device = "cuda"});
    mcc_session s = {.struct_size = sizeof s, .ids = prompt, .n_ids = 200};
    fill_prompt(200, 3);
    request_flags = MCC_REQUEST_IGNORE_EOS;
    int failures = 0;
    char file[sizeof path + 8];
    snprintf(file, sizeof file, "%s.session", path);
    for (int n = 1; n <= 2; n++) {
        check_request(engine, 200, 5);
        driver->fail_in = n;
        failures += mcc_session_save(engine, &s, file, NULL) != MCC_OK;
        driver->fail_in = 0;
        check_request(engine, 200, 5);
    }
    unlink(file);
    ck_assert_int_eq(failures, 2);
    mcc_engine_destroy(engine);
    check_clean();
}
END_TEST

/* Copies of pages count among the calls of the step that they precede. */
START_TEST(page_copies_are_counted) {
    mcc_engine *engine = make_engine(
        (mcc_engine_options){.max_num_seqs = 2, .max_num_batched_tokens = 64, .device = "cuda"});
    fill_prompt(20, 8);
    mcc_request_params params = {.struct_size = sizeof params,
                                 .flags = MCC_REQUEST_IGNORE_EOS,
                                 .prompt_ids = prompt,
                                 .n_prompt_ids = 20,
                                 .max_tokens = 9,
                                 .n = 2};
    uint64_t id, sum = 0;
    int32_t unfinished = 1;
    ck_assert_int_eq(mcc_request_submit(engine, &params, &id, NULL), MCC_OK);
    uint64_t before = stats_of(engine).driver_calls;
    while (unfinished) {
        ck_assert_int_eq(mcc_engine_step(engine, &unfinished, NULL), MCC_OK);
        sum += stats_of(engine).last_driver_calls;
    }
    ck_assert_int_gt(driver->device_copies, 0);
    ck_assert_uint_eq(stats_of(engine).driver_calls - before, sum);
    mcc_engine_destroy(engine);
    check_clean();
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("device cuda");
    TCase *t = tcase_create("device cuda");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, choice_of_images);
    tcase_add_test(t, code_that_is_loaded);
    tcase_add_test(t, code_that_does_not_fit);
    tcase_add_test(t, too_much_shared_memory);
    tcase_add_test(t, too_large_a_grid);
    tcase_add_test(t, devices_by_name);
    tcase_add_test(t, artifacts_without_one_or_the_other);
    tcase_add_loop_test(t, greedy_for_any_chunk, 0, 6);
    tcase_add_test(t, long_generation_slides_the_window);
    tcase_add_test(t, many_requests);
    tcase_add_test(t, ragged_steps_and_buckets);
    tcase_add_test(t, launches_are_timed);
    tcase_add_test(t, nothing_is_run_on_the_null_device);
    tcase_add_test(t, memory_says_what_would_fit);
    tcase_add_test(t, memory_bounds_the_cache);
    tcase_add_test(t, every_call_may_fail);
    tcase_add_test(t, an_engine_outlives_its_gpu);
    tcase_add_test(t, a_save_that_fails_loses_the_cache);
    tcase_add_test(t, page_copies_are_counted);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
