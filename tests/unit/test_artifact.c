/* Opening artifacts: sound ones, cut ones, flipped ones, lying ones. */
#include "check_main.h"
#include "fixture/fake_cuda_code.h"

#include "runtime/artifact_check.h"
#include "runtime/cpu.h"
#include "runtime/loader.h"
#include "runtime/modelcc.h"

#include <fcntl.h>
#include <sys/stat.h>

static fake_artifact artifact;
static fake_image image;
static char path[FAKE_PATH];

static void setup(void) {
    memset(&artifact, 0, sizeof artifact);
    fake_tables_init(&artifact.tables);
    image = fake_artifact_image(&artifact);
    fake_write(image.bytes, image.size, path);
}

static void teardown(void) {
    free(image.bytes);
    unlink(path);
}

static mcc_status open_flags(const char *name, uint32_t flags, const char *target,
                             mcc_artifact **model, mcc_error *error) {
    mcc_artifact_options options = {
        .struct_size = sizeof options, .flags = flags, .target = target};
    *error = (mcc_error){.struct_size = sizeof *error};
    *model = NULL;
    return mcc_artifact_open(name, &options, model, error);
}

START_TEST(sound) {
    static const uint32_t flags[] = {0, MCC_OPEN_CHECK, MCC_OPEN_INSPECT,
                                     MCC_OPEN_HUGE_PAGES | MCC_OPEN_CHECK};
    mcc_artifact *model;
    mcc_error error;
    ck_assert_msg(open_flags(path, flags[_i], NULL, &model, &error) == MCC_OK, "%s", error.text);
    mcc_artifact_info info = {.struct_size = sizeof info};
    ck_assert_int_eq(mcc_artifact_get_info(model, &info, NULL), MCC_OK);
    ck_assert_str_eq(info.model_name, "Fake");
    ck_assert_int_eq(info.vocab_size, FAKE_VOCAB);
    ck_assert_int_eq(info.n_weights, 2);
    ck_assert_int_eq(info.n_launches, 3);
    ck_assert_int_eq(info.has_tokenizer, 0);
    ck_assert_uint_eq(info.file_bytes, image.size);
    ck_assert_uint_eq(info.kv_bytes_per_token, 3 * FAKE_LAYER_BYTES / FAKE_PAGE);
    const char *text;
    uint64_t bytes;
    ck_assert_int_eq(mcc_artifact_get_part(model, MCC_PART_MANIFEST, &text, &bytes, NULL), MCC_OK);
    ck_assert_uint_eq(bytes, 16);
    ck_assert_mem_eq(text, "{\"name\": \"Fake\"}", 16);
    ck_assert_int_eq(mcc_artifact_get_part(model, MCC_PART_PLAN, &text, &bytes, NULL),
                     MCC_UNSUPPORTED);
    ck_assert_int_eq(mcc_artifact_get_part(model, 1, &text, &bytes, NULL), MCC_INVALID_ARGUMENT);

    mcc_weight_info weight = {.struct_size = sizeof weight};
    ck_assert_int_eq(mcc_artifact_get_weight(model, 1, &weight, NULL), MCC_OK);
    ck_assert_str_eq(weight.name, "head");
    uint32_t word;
    memcpy(&word, image.bytes + weight.file_offset + 4 * 7, 4);
    ck_assert_uint_eq(word, fake_weight(7));
    ck_assert_int_eq(mcc_artifact_get_weight(model, 2, &weight, NULL), MCC_NOT_FOUND);
    ck_assert_int_eq(mcc_artifact_get_weight(model, -1, &weight, NULL), MCC_NOT_FOUND);
    mcc_launch_info launch = {.struct_size = sizeof launch};
    ck_assert_int_eq(mcc_artifact_get_launch(model, 2, &launch, NULL), MCC_OK);
    ck_assert_str_eq(launch.label, "logits");
    ck_assert_uint_eq(launch.weight_bytes, 4 * FAKE_VOCAB);
    mcc_kernel_info kernel = {.struct_size = sizeof kernel};
    ck_assert_int_eq(mcc_artifact_get_kernel(model, 2, &kernel, NULL), MCC_OK);
    ck_assert_int_eq(kernel.n_launches, 1);
    mcc_kv_group_info group = {.struct_size = sizeof group};
    ck_assert_int_eq(mcc_artifact_get_kv_group(model, 1, &group, NULL), MCC_OK);
    ck_assert_int_eq(group.window, FAKE_WINDOW);
    mcc_target_info target = {.struct_size = sizeof target};
    ck_assert_int_eq(mcc_artifact_get_target(model, 2, &target, NULL), MCC_OK);
    ck_assert_int_eq(target.fits, 0);
    ck_assert_int_eq(mcc_artifact_arena_bytes(model, 3, 1, 2, &bytes, NULL), MCC_OK);
    ck_assert_uint_eq(bytes, 3 * FAKE_HIDDEN_BYTES + 2 * 4 * FAKE_VOCAB);
    ck_assert_int_eq(mcc_artifact_check(model, 2, NULL), MCC_OK);

    mcc_engine *engine;
    mcc_status status = mcc_engine_create(model, NULL, &engine, &error);
    ck_assert_int_eq(status, flags[_i] & MCC_OPEN_INSPECT ? MCC_UNSUPPORTED : MCC_OK);
    if (status == MCC_OK)
        mcc_engine_destroy(engine);
    mcc_artifact_close(model);
}
END_TEST

START_TEST(targets) {
    mcc_artifact *model;
    mcc_error error;
    ck_assert_int_eq(open_flags(path, 0, "cpu:any", &model, &error), MCC_OK);
    mcc_artifact_info info = {.struct_size = sizeof info};
    mcc_artifact_get_info(model, &info, NULL);
    ck_assert_str_eq(info.target, "cpu:any");
    mcc_artifact_close(model);
    ck_assert_int_eq(open_flags(path, 0, "cpu:none-such", &model, &error), MCC_CPU_MISMATCH);
    ck_assert_ptr_nonnull(strstr(error.text, "unknown bits"));
    ck_assert_int_eq(open_flags(path, 0, "cpu:z80", &model, &error), MCC_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(error.text, "cpu:x86-64-v3"));

    /* Choosing, for machines other than this. */
    rt_tables tables;
    rt_error e = {0};
    ck_assert(rt_tables_check(&artifact.tables, sizeof artifact.tables, 4096, "x", &tables, &e));
    ck_assert_int_eq(rt_target_choose(&tables, 0, NULL, "x", &e), 0);
    ck_assert_int_eq(rt_target_choose(&tables, MCC_CPU_X86_64_V3, NULL, "x", &e), 1);
    ck_assert_int_eq(rt_target_choose(&tables, ~UINT64_C(0), NULL, "x", &e), 2);
    ck_assert_int_eq(rt_target_choose(&tables, ~UINT64_C(0), "cpu", "x", &e), 2);
    ck_assert_int_eq(rt_target_choose(&tables, ~UINT64_C(0), "cpu:any", "x", &e), 0);
    artifact.tables.targets[0].cpu_features = MCC_CPU_X86_64_V4;
    ck_assert_int_eq(rt_target_choose(&tables, 0, NULL, "x", &e), -1);
    ck_assert_int_eq(e.code, MCC_CPU_MISMATCH);
    ck_assert_ptr_nonnull(strstr(e.text, "needs a processor with at least x86-64-v4"));
}
END_TEST

START_TEST(not_there_or_not_a_file) {
    mcc_artifact *model;
    mcc_error error;
    ck_assert_int_eq(open_flags("/no/such/file.so", 0, NULL, &model, &error), MCC_IO_ERROR);
    ck_assert_ptr_nonnull(strstr(error.text, "/no/such/file.so"));
    ck_assert_int_eq(open_flags("/", 0, NULL, &model, &error), MCC_IO_ERROR);
    ck_assert_int_eq(open_flags(path, 1u << 30, NULL, &model, &error), MCC_INVALID_ARGUMENT);
    ck_assert_int_eq(open_flags(MCC_FAKE_MODEL, 0, NULL, &model, &error), MCC_BAD_ARTIFACT);
    ck_assert_ptr_nonnull(strstr(error.text, "not a modelcc artifact"));
    ck_assert_ptr_null(model);
}
END_TEST

START_TEST(truncated) {
    mcc_artifact *model;
    mcc_error error;
    for (size_t size = 0; size < image.size; size += 512) {
        ck_assert_int_eq(truncate(path, (off_t)image.size), 0);
        ck_assert_int_eq(truncate(path, (off_t)size), 0);
        ck_assert_int_eq(open_flags(path, 0, NULL, &model, &error), MCC_BAD_ARTIFACT);
        ck_assert_ptr_nonnull(strstr(error.text, path + 5));
    }
    /* The footer alone, moved to the end of a shorter file. */
    for (size_t pages = 1; pages < image.size / MCC_ARTIFACT_PAGE - 1; pages += 3) {
        char cut[FAKE_PATH];
        uint8_t *bytes = malloc(image.size);
        memcpy(bytes, image.bytes, pages * MCC_ARTIFACT_PAGE);
        memcpy(bytes + pages * MCC_ARTIFACT_PAGE, image.bytes + image.size - MCC_ARTIFACT_PAGE,
               MCC_ARTIFACT_PAGE);
        fake_write(bytes, (pages + 1) * MCC_ARTIFACT_PAGE, cut);
        ck_assert_int_eq(open_flags(cut, 0, NULL, &model, &error), MCC_BAD_ARTIFACT);
        unlink(cut);
        free(bytes);
    }
}
END_TEST

/* The weight that holds a byte of the file, or -1. */
static int weight_at(size_t at) {
    const mcc_section *s = rt_footer_find(&image.footer, MCC_SECTION_WEIGHTS);
    for (int i = 0; i < 2; i++) {
        const mcc_weight_entry *w = &artifact.tables.weights[i];
        if (at >= s->offset + w->offset && at < s->offset + w->offset + w->bytes)
            return i;
    }
    return -1;
}

/* Padding between sections, and behind weights and footer, is nobody's. */
static bool is_padding(size_t at) {
    if (at >= image.size - MCC_ARTIFACT_PAGE)
        return at - (image.size - MCC_ARTIFACT_PAGE) >= sizeof(mcc_footer);
    for (uint32_t i = 0; i < image.footer.n_sections; i++) {
        const mcc_section *s = &image.footer.sections[i];
        if (at >= s->offset && at < s->offset + s->size)
            return s->kind == MCC_SECTION_WEIGHTS && weight_at(at) < 0;
    }
    return true;
}

START_TEST(flipped_bits) {
    mcc_artifact *model;
    mcc_error error;
    int fd = open(path, O_WRONLY);
    ck_assert_int_ge(fd, 0);
    int flips = 0, padding = 0, in_weights = 0;
    for (size_t at = 0; at<image.size; at += at> image.size - 3 * MCC_ARTIFACT_PAGE ? 7 : 97) {
        uint8_t byte = image.bytes[at] ^ (uint8_t)(1 << at % 8);
        ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
        mcc_status status = open_flags(path, MCC_OPEN_INSPECT, NULL, &model, &error);
        if (is_padding(at)) {
            ck_assert_int_eq(status, MCC_OK);
            padding++;
        } else if (weight_at(at) >= 0) {
            /* Weights are only checked when asked for. */
            ck_assert_int_eq(status, MCC_OK);
            ck_assert_int_eq(mcc_artifact_check(model, 1, &error), MCC_BAD_ARTIFACT);
            ck_assert_ptr_nonnull(strstr(error.text, weight_at(at) == 0 ? "unused" : "head"));
            in_weights++;
        } else {
            ck_assert_msg(status == MCC_BAD_ARTIFACT || status == MCC_VERSION_MISMATCH,
                          "byte %zu: status %d", at, status);
            flips++;
        }
        mcc_artifact_close(model);
        ck_assert_int_eq(pwrite(fd, &image.bytes[at], 1, (off_t)at), 1);
    }
    close(fd);
    ck_assert_int_gt(flips, 50);
    ck_assert_int_gt(in_weights, 3);
    ck_assert_int_gt(padding, 3);
    ck_assert_int_eq(open_flags(path, MCC_OPEN_CHECK, NULL, &model, &error), MCC_OK);
    mcc_artifact_close(model);
}
END_TEST

/* --- footers that lie and have the right hash ----------------------------------------------------
 */

static void newer(mcc_footer *f) {
    f->version = MCC_ARTIFACT_VERSION + 1;
}
static void ancient(mcc_footer *f) {
    f->version = 0;
}
static void longer_file(mcc_footer *f) {
    f->file_bytes += MCC_ARTIFACT_PAGE;
}
static void many_sections(mcc_footer *f) {
    f->n_sections = MCC_ARTIFACT_MAX_SECTIONS + 1;
}
static void no_sections(mcc_footer *f) {
    f->n_sections = 0;
}
static void past_end(mcc_footer *f) {
    f->sections[2].size = f->file_bytes;
}
static void overflowing(mcc_footer *f) {
    f->sections[2].offset = UINT64_MAX - MCC_ARTIFACT_PAGE + 1;
    f->sections[2].size = 2 * MCC_ARTIFACT_PAGE;
}
static void over_the_footer(mcc_footer *f) {
    f->sections[3].size = f->file_bytes - f->sections[3].offset;
}
static void unaligned(mcc_footer *f) {
    f->sections[1].offset += 8;
}
static void overlapping(mcc_footer *f) {
    f->sections[1].offset = f->sections[2].offset;
}
static void twice(mcc_footer *f) {
    f->sections[1].kind = MCC_SECTION_WEIGHTS;
}
static void code_elsewhere(mcc_footer *f) {
    f->sections[0].kind = MCC_SECTION_MANIFEST;
    f->sections[1].kind = MCC_SECTION_CODE;
}
static void no_tables(mcc_footer *f) {
    f->sections[2].kind = MCC_SECTION_GRAPH;
}
static void other_code_hash(mcc_footer *f) {
    f->sections[0].sha256[5] ^= 1;
}
static void tiny_weights(mcc_footer *f) {
    f->sections[3].size = 130;
}

static const struct {
    void (*change)(mcc_footer *);
    mcc_status status;
    const char *says;
} footers[] = {
    {newer, MCC_VERSION_MISMATCH, "artifact version 2, this runtime opens version 1"},
    {ancient, MCC_VERSION_MISMATCH, "artifact version 0"},
    {longer_file, MCC_BAD_ARTIFACT, "its footer says"},
    {many_sections, MCC_BAD_ARTIFACT, "17 sections"},
    {no_sections, MCC_BAD_ARTIFACT, "no section code"},
    {past_end, MCC_BAD_ARTIFACT, "past the end"},
    {overflowing, MCC_BAD_ARTIFACT, "past the end"},
    {over_the_footer, MCC_BAD_ARTIFACT, "past the end"},
    {unaligned, MCC_BAD_ARTIFACT, "not at a multiple"},
    {overlapping, MCC_BAD_ARTIFACT, "overlap"},
    {twice, MCC_BAD_ARTIFACT, "twice"},
    {code_elsewhere, MCC_BAD_ARTIFACT, "expected 0"},
    {no_tables, MCC_BAD_ARTIFACT, "no section tables"},
    {other_code_hash, MCC_BAD_ARTIFACT, "damaged: section code"},
    {tiny_weights, MCC_BAD_ARTIFACT, "section weights has 130"},
};

START_TEST(lying_footers) {
    char lie[FAKE_PATH];
    mcc_artifact *model;
    mcc_error error;
    artifact.change_footer = footers[_i].change;
    fake_artifact_write(&artifact, lie);
    ck_assert_int_eq(open_flags(lie, 0, NULL, &model, &error), footers[_i].status);
    ck_assert_msg(strstr(error.text, footers[_i].says) != NULL, "%s", error.text);
    unlink(lie);
}
END_TEST

/* --- tables that lie and have the right hash -----------------------------------------------------
 */

#define LIE(name, statement, text)                                                                 \
    static void lie_##name(fake_tables *t) {                                                       \
        statement;                                                                                 \
    }
#define LIES(X)                                                                                    \
    X(size, t->h.struct_bytes = 10, "their header")                                                \
    X(version, t->h.version = 9, "version 9")                                                      \
    X(vocab, t->h.vocab_size = -1, "out of range")                                                 \
    X(vocab_width, t->h.vocab_size = 65, "logits have 64 columns")                                 \
    X(length, t->h.max_model_len = INT64_MAX, "out of range")                                      \
    X(scratch, t->h.scratch_bytes = UINT64_MAX, "scratch")                                         \
    X(shared, t->h.shared_bytes = UINT64_MAX, "shared memory")                                     \
    X(arena, t->h.arena_bytes.t = -64, "out of range")                                             \
    X(model_name, t->h.model_name = 512, "string at 512")                                          \
    X(span_end, t->h.launches.count = 100000, "launches of")                                       \
    X(span_far, t->h.args.offset = UINT64_MAX - 7, "arguments of")                                 \
    X(span_odd, t->h.weights.offset += 4, "not at a multiple of 8")                                \
    X(span_count, t->h.buffers.count = UINT32_MAX, "buffers of")                                   \
    X(no_strings, t->h.strings.count = 0, "zero byte")                                             \
    X(open_strings, t->strings[511] = 'x', "zero byte")                                            \
    X(first_string, t->strings[0] = 'x', "zero byte")                                              \
    X(weight_name, t->weights[1].name = UINT32_MAX, "weight 1")                                    \
    X(weight_odd, t->weights[1].offset = 100, "multiple of 64")                                    \
    X(weight_far, t->weights[1].offset = UINT64_MAX - 63, "weight head")                           \
    X(weight_long, t->weights[1].bytes = 4096, "weight head")                                      \
    X(kv_layers, t->kv_groups[0].layers = 0, "out of range")                                       \
    X(kv_heads, t->kv_groups[0].heads = -1, "out of range")                                        \
    X(kv_page, t->kv_groups[1].page_tokens = 0, "out of range")                                    \
    X(kv_dtype, t->kv_groups[1].dtype = 4, "out of range")                                         \
    X(kv_scales, t->kv_groups[1].dtype = 2, "expected 192")                                        \
    X(kv_window, t->kv_groups[1].window = -1, "out of range")                                      \
    X(kv_bytes, t->kv_groups[1].layer_bytes++, "expected 512")                                     \
    X(buffer_odd, t->buffers[1].offset.t = 4, "multiple of 64")                                    \
    X(buffer_size, t->buffers[1].bytes.r = INT64_MAX, "size of buffer 1")                          \
    X(buffer_type, t->buffers[0].type = 9999, "buffer 0")                                          \
    X(arg_kind, t->args[3].kind = 0, "unknown kind 0")                                             \
    X(arg_buffer, t->args[9].index = 2, "buffer 2, but there are 2")                               \
    X(arg_weight, t->args[12].index = 2, "weight 2, but there are 2")                              \
    X(arg_group, t->args[2].index = 2, "KV group 2, but there are 2")                              \
    X(arg_layer, t->args[4].layer = 1, "KV layer 1, but there are 1")                              \
    X(arg_step, t->args[0].index = 4, "step array 4")                                              \
    X(kernel_name, t->kernels[0].name = 512, "kernel 0")                                           \
    X(launch_kernel, t->launches[1].kernel = 3, "kernel 3, but there are 3")                       \
    X(launch_args, t->launches[1].n_args = 10, "arguments 5 to 15")                                \
    X(launch_far, t->launches[1].first_arg = UINT32_MAX, "but there are 14")                       \
    X(launch_label, t->launches[1].label = 9999, "launch 1")                                       \
    X(launch_div, t->launches[0].tiles_div = 0, "out of range")                                    \
    X(launch_mult, t->launches[0].tiles_mult = -1, "out of range")                                 \
    X(launch_dim, t->launches[0].tiles.t = INT64_MAX, "out of range")                              \
    X(output_buffer, t->outputs[0].buffer = 2, "buffer 2, but there are 2")                        \
    X(output_width, t->outputs[0].width = 65, "rows of 65 floats")                                 \
    X(output_name, t->outputs[0].name = 0, "no output named logits")                               \
    X(no_outputs, t->h.outputs.count = 0, "no output named logits")                                \
    X(target_name, t->targets[1].name = 600, "target 1")
LIES(LIE)
#define ROW(name, statement, text) {lie_##name, text},
static const struct {
    void (*change)(fake_tables *);
    const char *says;
} lies[] = {LIES(ROW)};

START_TEST(lying_tables) {
    rt_tables tables;
    rt_error error = {0};
    ck_assert(rt_tables_check(&artifact.tables, sizeof artifact.tables, 384, "x", &tables, &error));
    lies[_i].change(&artifact.tables);
    ck_assert(
        !rt_tables_check(&artifact.tables, sizeof artifact.tables, 384, "x", &tables, &error));
    ck_assert_int_eq(error.code, MCC_BAD_ARTIFACT);
    ck_assert_msg(strstr(error.text, lies[_i].says) != NULL, "%s", error.text);
}
END_TEST

START_TEST(short_tables) {
    rt_tables tables;
    /* An allocation of just that size, so that a sanitizer sees reads behind it. */
    for (size_t size = 0; size < sizeof artifact.tables; size += 8) {
        void *copy = malloc(size + 1);
        memcpy(copy, &artifact.tables, size);
        rt_error error = {0};
        bool ok = rt_tables_check(copy, size, 384, "x", &tables, &error);
        /* Only the counter behind the strings may be missing. */
        ck_assert_int_eq(ok, size >= offsetof(fake_tables, strings_used));
        free(copy);
    }
}
END_TEST

START_TEST(no_code_at_all) {
    mcc_artifact *model;
    mcc_error error;
    char lie[64];
    artifact.tables.h.targets.count = 0;
    fake_artifact_write(&artifact, lie);
    ck_assert_int_eq(open_flags(lie, MCC_OPEN_INSPECT, NULL, &model, &error), MCC_BAD_ARTIFACT);
    ck_assert_ptr_nonnull(strstr(error.text, "no code: no targets, and no section cuda"));
    unlink(lie);
}
END_TEST

/* --- GPU code ------------------------------------------------------------------------------------
 */

static fake_cuda_code cuda;

#define CUDA_LIES(X)                                                                               \
    X(cuda_size, c->h.struct_bytes = 8, "its header has 8 bytes")                                  \
    X(cuda_version, c->h.version = 2, "version 2")                                                 \
    X(cuda_span_end, c->h.images.count = 1000, "images of")                                        \
    X(cuda_span_far, c->h.functions.offset = UINT64_MAX - 7, "functions of")                       \
    X(cuda_span_odd, c->h.functions.offset += 4, "not at a multiple of 8")                         \
    X(cuda_strings_far, c->h.strings.offset = 1u << 30, "strings of")                              \
    X(cuda_no_strings, c->h.strings.count = 0, "zero byte")                                        \
    X(cuda_open_strings, c->strings[127] = 'x', "zero byte")                                       \
    X(function_name, c->functions[1].name = 128, "function 1: string at 128")                      \
    X(function_kernel, c->functions[3].kernel = 3, "kernel 3, but there are 3")                    \
    X(function_threads, c->functions[0].threads = 1025, "1025 threads")                            \
    X(function_no_threads, c->functions[0].threads = 0, "out of range")                            \
    X(function_shared, c->functions[0].shared_bytes = 1u << 31, "out of range")                    \
    X(function_no_params, c->functions[0].n_params = 0, "out of range")                            \
    X(function_many_params, c->functions[0].n_params = 513, "out of range")                        \
    X(function_params, c->functions[2].n_params = 5, "launch attend has 5 arguments")              \
    X(function_other_params, c->functions[1].n_params = 7, "append_many: 7 parameters")            \
    X(function_scratch, c->functions[2].scratch_bytes = 1 << 25, "33554432 bytes of scratch")      \
    X(function_odd_scratch, c->functions[2].scratch_bytes = 2, "2 bytes of scratch memory a row")  \
    X(function_both_scratch, c->functions[2].row_scratch_bytes = 4, "4 bytes of scratch memory")   \
    X(function_two_kernels, c->functions[1].first_of_two = 1, "append_many: the first of two")     \
    X(function_two_rows, c->functions[0].first_of_two = 1, "append: the first of two")             \
    X(function_two_end, c->functions[3].first_of_two = 1, "logits: the first of two")              \
    X(function_no_block, c->functions[2].n_params = 1, "attend: no parameter for the step block")  \
    X(function_first, c->functions[0].min_rows = 1, "append: the first of its kernel")             \
    X(function_missing, c->functions[2].kernel = 0, "no function for kernel attend")               \
    X(function_none, c->h.functions.count = 0, "image 0: function 0, but there are 0")             \
    X(grid_div, c->functions[0].x.div = 0, "its grid is out of range")                             \
    X(grid_mult, c->functions[0].x.mult = -1, "its grid is out of range")                          \
    X(grid_dim, c->functions[0].x.dim.t = INT64_MAX, "its grid is out of range")                   \
    X(grid_y_div, c->functions[3].y.div = 0, "its grid is out of range")                           \
    X(grid_y_mult, c->functions[0].y.mult = 1 << 21, "its grid is out of range")                   \
    X(image_function, c->images[5].function = 4, "image 5: function 4, but there are 4")           \
    X(image_form, c->images[5].form = 3, "image 5: form 3")                                        \
    X(image_arch, c->images[5].arch = 0, "architecture 0")                                         \
    X(image_specific, c->images[5].arch_specific = 2, "image 5")                                   \
    X(image_empty, c->images[5].bytes = 0, "image 5 has 0 bytes")                                  \
    X(image_long, c->images[5].bytes = 1u << 30, "but the section has")                            \
    X(image_far, c->images[5].offset = UINT64_MAX - 3, "but the section has")                      \
    X(image_open, c->code[1][31] = 'x', "image 1: its PTX does not end with a zero byte")
#define CUDA_LIE(name, statement, text)                                                            \
    static void lie_##name(fake_cuda_code *c) {                                                    \
        statement;                                                                                 \
    }
CUDA_LIES(CUDA_LIE)
static const struct {
    void (*change)(fake_cuda_code *);
    const char *says;
} cuda_lies[] = {CUDA_LIES(ROW)};

START_TEST(lying_cuda_code) {
    rt_tables tables;
    rt_cuda_code code;
    rt_error error = {0};
    fake_cuda_code_init(&cuda);
    ck_assert(rt_tables_check(&artifact.tables, sizeof artifact.tables, 384, "x", &tables, &error));
    ck_assert(rt_cuda_check(&cuda, sizeof cuda, &tables, "x", &code, &error));
    cuda_lies[_i].change(&cuda);
    ck_assert(!rt_cuda_check(&cuda, sizeof cuda, &tables, "x", &code, &error));
    ck_assert_int_eq(error.code, MCC_BAD_ARTIFACT);
    ck_assert_msg(strstr(error.text, cuda_lies[_i].says) != NULL, "%s", error.text);
}
END_TEST

START_TEST(short_cuda_code) {
    rt_tables tables;
    rt_cuda_code code;
    fake_cuda_code_init(&cuda);
    ck_assert(rt_tables_check(&artifact.tables, sizeof artifact.tables, 384, "x", &tables, NULL));
    for (size_t size = 0; size < sizeof cuda; size += 8) {
        void *copy = malloc(size + 1);
        memcpy(copy, &cuda, size);
        rt_error error = {0};
        bool ok = rt_cuda_check(copy, size, &tables, "x", &code, &error);
        ck_assert_int_eq(ok, size >= offsetof(fake_cuda_code, code[FAKE_IMAGES]));
        free(copy);
    }
}
END_TEST

/* An artifact with GPU code opens, shows its functions, and notices damage in them. */
START_TEST(sound_cuda_code) {
    mcc_artifact *model;
    mcc_error error;
    char file[64];
    fake_cuda_code_init(&cuda);
    artifact.cuda = &cuda;
    artifact.cuda_bytes = sizeof cuda;
    artifact.tables.h.targets.count = _i == 0 ? 3 : 0;
    fake_image made = fake_artifact_image(&artifact);
    fake_write(made.bytes, made.size, file);
    static const uint32_t flags[] = {0, MCC_OPEN_CHECK, MCC_OPEN_INSPECT};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        ck_assert_msg(open_flags(file, flags[i], NULL, &model, &error) == MCC_OK, "%s", error.text);
        mcc_artifact_info info = {.struct_size = sizeof info};
        mcc_artifact_get_info(model, &info, NULL);
        ck_assert_int_eq(info.n_cuda_images, FAKE_IMAGES);
        ck_assert_uint_eq(info.cuda_bytes, sizeof cuda);
        ck_assert_int_eq(info.target != NULL, _i == 0);
        mcc_cuda_image_info m = {.struct_size = sizeof m};
        ck_assert_int_eq(mcc_artifact_get_cuda_image(model, 6, &m, NULL), MCC_OK);
        ck_assert_str_eq(m.function, "append_many");
        ck_assert_str_eq(m.form, "cubin");
        ck_assert_int_eq(m.arch, 90);
        ck_assert_int_eq(m.arch_specific, 1);
        ck_assert_int_eq(m.kernel, 0);
        ck_assert_uint_eq(m.min_rows, FAKE_MANY_ROWS);
        ck_assert_uint_eq(m.registers, 46);
        ck_assert_uint_eq(m.shared_bytes, 16);
        ck_assert(m.occupancy == 8 * 64 / 2048.0);
        ck_assert_mem_eq(made.bytes + m.file_offset, cuda.code[6], m.bytes);
        ck_assert_int_eq(mcc_artifact_get_cuda_image(model, FAKE_IMAGES, &m, NULL), MCC_NOT_FOUND);
        mcc_artifact_close(model);
    }
    ck_assert_int_eq(open_flags(file, 0, "cuda:sm_80", &model, &error), MCC_NOT_FOUND);
    unlink(file);
    /* A flipped bit anywhere in the section. */
    const mcc_section *s = rt_footer_find(&made.footer, MCC_SECTION_CUDA);
    for (size_t at = 0; at < s->size; at += 61) {
        made.bytes[s->offset + at] ^= 4;
        fake_write(made.bytes, made.size, file);
        ck_assert_int_eq(open_flags(file, 0, NULL, &model, &error), MCC_BAD_ARTIFACT);
        unlink(file);
        made.bytes[s->offset + at] ^= 4;
    }
    free(made.bytes);
    /* An image other than its entry says, by a writer's mistake. */
    cuda.images[2].sha256[0] ^= 1;
    fake_artifact_write(&artifact, file);
    ck_assert_int_eq(open_flags(file, 0, NULL, &model, &error), MCC_OK);
    ck_assert_int_eq(mcc_artifact_check(model, 1, &error), MCC_BAD_ARTIFACT);
    ck_assert_ptr_nonnull(strstr(error.text, "the cubin of append for sm_90a"));
    mcc_artifact_close(model);
    ck_assert_int_eq(open_flags(file, MCC_OPEN_CHECK, NULL, &model, &error), MCC_BAD_ARTIFACT);
    unlink(file);
}
END_TEST

/* --- code ----------------------------------------------------------------------------------------
 */

START_TEST(code_and_tables_disagree) {
    mcc_artifact *model;
    mcc_error error;
    char lie[FAKE_PATH];
    if (_i == 0) /* a target of another name than the code's */
        artifact.tables.targets[0].name = artifact.tables.h.arch;
    else if (_i == 1) /* one target less */
        artifact.tables.h.targets.count = 2;
    else /* code that has no descriptor at all */
        artifact.code_path = MCC_NO_MODEL;
    fake_artifact_write(&artifact, lie);
    mcc_status status = open_flags(lie, 0, _i == 0 ? "fake" : "cpu:any", &model, &error);
    ck_assert_int_eq(status, MCC_BAD_ARTIFACT);
    ck_assert_ptr_nonnull(strstr(error.text, _i < 2 ? "the tables" : "modelcc_descriptor"));
    unlink(lie);
}
END_TEST

START_TEST(replaced_while_open) {
    mcc_artifact *first, *second, *again;
    mcc_error error;
    ck_assert_int_eq(open_flags(path, 0, NULL, &first, &error), MCC_OK);
    /* The same file once more is the same code. */
    ck_assert_int_eq(open_flags(path, 0, NULL, &again, &error), MCC_OK);
    ck_assert_ptr_eq(first->kernels, again->kernels);
    mcc_artifact_close(again);
    /* Another file takes the name, as a build does; its code starts at other bytes. */
    char other[FAKE_PATH];
    fake_artifact changed = artifact;
    changed.tables.h.max_model_len = 77;
    changed.code_path = MCC_OTHER_FAKE_MODEL;
    fake_artifact_write(&changed, other);
    ck_assert_int_eq(rename(other, path), 0);
    mcc_status status = open_flags(path, 0, NULL, &second, &error);
    ck_assert_msg(status == MCC_OK, "%s", error.text);
    mcc_artifact_info info = {.struct_size = sizeof info};
    mcc_artifact_get_info(second, &info, NULL);
    ck_assert_int_eq(info.max_model_len, 77);
    ck_assert_ptr_ne(first->kernels, second->kernels);
    mcc_artifact_close(first);
    /* The second still runs. */
    mcc_engine *engine;
    ck_assert_int_eq(mcc_engine_create(second, NULL, &engine, &error), MCC_OK);
    mcc_engine_destroy(engine);
    mcc_artifact_close(second);
}
END_TEST

START_TEST(sparse_beyond_4_gb) {
    /* A hole of five gigabytes between a weight and the one behind it. */
    mcc_artifact *model;
    mcc_error error;
    char big[FAKE_PATH];
    uint64_t gap = UINT64_C(5) << 30;
    artifact.tables.weights[1].offset = gap;
    fake_image i = fake_artifact_image(&artifact);
    mcc_section *w = (mcc_section *)rt_footer_find(&i.footer, MCC_SECTION_WEIGHTS);
    w->size = gap + 4 * FAKE_VOCAB;
    i.footer.file_bytes = w->offset + gap + 2 * MCC_ARTIFACT_PAGE;
    rt_sha256_of(&i.footer, offsetof(mcc_footer, sha256), i.footer.sha256);
    fake_write(i.bytes, i.size - MCC_ARTIFACT_PAGE, big);
    int fd = open(big, O_WRONLY);
    ck_assert_int_eq(
        pwrite(fd, i.bytes + w->offset + 128, 4 * FAKE_VOCAB, (off_t)(w->offset + gap)),
        4 * FAKE_VOCAB);
    ck_assert_int_eq(ftruncate(fd, (off_t)i.footer.file_bytes), 0);
    ck_assert_int_eq(
        pwrite(fd, &i.footer, sizeof i.footer, (off_t)(i.footer.file_bytes - MCC_ARTIFACT_PAGE)),
        sizeof i.footer);
    close(fd);
    free(i.bytes);
    mcc_status status = open_flags(big, MCC_OPEN_CHECK, NULL, &model, &error);
    ck_assert_msg(status == MCC_OK, "%s", error.text);
    mcc_engine *engine;
    ck_assert_int_eq(mcc_engine_create(model, NULL, &engine, &error), MCC_OK);
    int32_t ids[2] = {3, 4}, positions[2] = {0, 1}, sequences[2] = {0}, rows[1] = {1};
    mcc_eval_step step = {.struct_size = sizeof step,
                          .n_tokens = 2,
                          .n_rows = 1,
                          .token_ids = ids,
                          .positions = positions,
                          .sequences = sequences,
                          .output_rows = rows};
    ck_assert_int_eq(mcc_engine_eval(engine, &step, &error), MCC_OK);
    for (int32_t t = 0; t < FAKE_VOCAB; t++)
        ck_assert_float_eq(step.logits[t], fake_logit(ids, 2, t));
    mcc_engine_destroy(engine);
    mcc_artifact_close(model);
    unlink(big);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("artifact");
    TCase *t = tcase_create("artifact");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, sound, 0, 4);
    tcase_add_test(t, targets);
    tcase_add_test(t, not_there_or_not_a_file);
    tcase_add_test(t, truncated);
    tcase_add_test(t, flipped_bits);
    tcase_add_loop_test(t, lying_footers, 0, sizeof footers / sizeof *footers);
    tcase_add_loop_test(t, lying_tables, 0, sizeof lies / sizeof *lies);
    tcase_add_test(t, short_tables);
    tcase_add_test(t, no_code_at_all);
    tcase_add_loop_test(t, lying_cuda_code, 0, (int)(sizeof cuda_lies / sizeof *cuda_lies));
    tcase_add_test(t, short_cuda_code);
    tcase_add_loop_test(t, sound_cuda_code, 0, 2);
    tcase_add_loop_test(t, code_and_tables_disagree, 0, 3);
    tcase_add_test(t, replaced_while_open);
    tcase_add_test(t, sparse_beyond_4_gb);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
