/* From kernels to images: architectures and what fits them, NVRTC's messages, the cache, and what
 * the backend refuses. */
#include "row_kernel.h"

#include "codegen/cuda/cache.h"
#include "cuda_kernel.h"

#include <dirent.h>
#include <sys/stat.h>

START_TEST(architectures) {
    int n;
    const cg_cuda_target *all = cg_cuda_targets(&n);
    ck_assert_int_eq(n, 7);
    for (int i = 0; i < n; i++) {
        ck_assert_ptr_eq(cg_cuda_target_find(all[i].name), &all[i]);
        ck_assert_int_eq(strncmp(all[i].name, "cuda:sm_", 8), 0);
        ck_assert_str_eq(all[i].arch_name, all[i].name + 5);
        ck_assert_int_eq(strchr(all[i].name, 'a') != strrchr(all[i].name, 'a'), all[i].specific);
    }
    ck_assert_ptr_null(cg_cuda_target_find("cuda:sm_75"));
    ck_assert_ptr_null(cg_cuda_target_find("cuda"));
}
END_TEST

/* By hand from the limits of the programming guide. */
START_TEST(occupancy) {
    const cg_cuda_target *a100 = cg_cuda_target_find("cuda:sm_80");
    const cg_cuda_target *ga102 = cg_cuda_target_find("cuda:sm_86");
    const struct {
        const cg_cuda_target *target;
        uint32_t threads, registers, shared, blocks;
    } cases[] = {
        {a100, 256, 32, 0, 8},          /* 2048 threads */
        {a100, 32, 16, 0, 32},          /* 32 blocks */
        {a100, 128, 128, 0, 4},         /* 4 * 4 warps' registers */
        {a100, 128, 129, 0, 3},         /* 4 * 3 warps */
        {a100, 128, 255, 0, 2},         /* 4 * 2 warps */
        {a100, 128, 32, 40 * 1024, 4},  /* 164 KB / 41 KB */
        {a100, 128, 32, 163 * 1024, 1}, /* all of it */
        {a100, 128, 32, 163 * 1024 + 1, 0},
        {a100, 1024, 64, 0, 1},
        {a100, 1024, 65, 0, 0}, /* 28 warps' registers for 32 */
        {ga102, 128, 40, 0, 12},
        {ga102, 128, 40, 48 * 1024, 2},
        {ga102, 64, 16, 0, 16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t blocks = cg_cuda_occupancy(cases[i].target, cases[i].threads, cases[i].registers,
                                            cases[i].shared);
        ck_assert_msg(blocks == cases[i].blocks, "case %zu: %u blocks, expected %u", i, blocks,
                      cases[i].blocks);
    }
}
END_TEST

/* --- images --------------------------------------------------------------------------------------
 */

/* y = 3x, as one function. */
static cg_cuda_function small_function(ir_arena *arena) {
    builder *b = builder_new("small_function");
    int x = add_arg(b, matrix(IR_F32, 100), false), y = add_arg(b, matrix(IR_F32, 100), true);
    cg_program *p = add_program(b, 1, 100);
    int v = load(p, rows_of(x, 100));
    store(p, CG_STORE, scalar(p, CG_MUL, v, constant(p, 3), 0), 0, rows_of(y, 100));
    cg_cuda_code code;
    ir_diag diag = {0};
    ck_assert(cg_cuda_generate(&b->kernel, arena, &diag, &code));
    ck_assert_int_eq(code.n_functions, 1);
    free(b);
    return code.functions[0];
}

static void same_image(const cg_cuda_image *a, const cg_cuda_image *b) {
    ck_assert_uint_eq(a->cubin_bytes, b->cubin_bytes);
    ck_assert_uint_eq(a->ptx_bytes, b->ptx_bytes);
    ck_assert_mem_eq(a->cubin, b->cubin, a->cubin_bytes);
    ck_assert_mem_eq(a->ptx, b->ptx, a->ptx_bytes);
    ck_assert_uint_eq(a->registers, b->registers);
    ck_assert_uint_eq(a->spill_bytes, b->spill_bytes);
    ck_assert_uint_eq(a->static_shared_bytes, b->static_shared_bytes);
    ck_assert_uint_eq(a->occupancy_blocks, b->occupancy_blocks);
}

static cg_cuda_image compile(const cg_cuda_function *f, const char *target, const char *cache) {
    cg_cuda_image image;
    ir_diag diag = {0};
    bool ok = cg_cuda_compile(f, cg_cuda_target_find(target),
                              &(cg_cuda_options){.cache_dir = cache}, &diag, &image);
    if (!ok)
        ir_diag_print(&diag, stderr);
    ck_assert(ok);
    ir_diag_clear(&diag);
    return image;
}

START_TEST(images) {
    if (!cuda_available())
        return;
    int n;
    const cg_cuda_target *all = cg_cuda_targets(&n);
    ir_arena *arena = ir_arena_create();
    cg_cuda_function f = small_function(arena);
    char here[4096];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    for (int i = 0; i < n; i++) {
        cg_cuda_image a = compile(&f, all[i].name, NULL), b = compile(&f, all[i].name, NULL);
        same_image(&a, &b);
        ck_assert_uint_ge(a.registers, 8);
        ck_assert_uint_le(a.registers, 64);
        ck_assert_uint_eq(a.spill_bytes, 0);
        ck_assert_uint_ge(a.occupancy_blocks, 8);
        ck_assert_mem_eq(a.cubin, "\177ELF", 4);
        char line[64];
        snprintf(line, sizeof line, ".target %s", all[i].arch_name);
        ck_assert_ptr_nonnull(strstr(a.ptx, line));
        ck_assert_ptr_nonnull(strstr(a.ptx, ".entry small_function("));
        ck_assert_ptr_nonnull(strstr(a.ptx, "\"/rows.cuh\"")); /* lines, but no directories */
        ck_assert_ptr_null(strstr(a.ptx, here));
        ck_assert_ptr_null(memmem(a.cubin, a.cubin_bytes, here, strlen(here)));
        cg_cuda_image_free(&a);
        cg_cuda_image_free(&b);
    }
    ir_arena_destroy(arena);
}
END_TEST

/* What ptxas says of registers, spills and shared memory is read as it should be. */
START_TEST(facts) {
    if (!cuda_available())
        return;
    static const char source[] =
        "#include \"common.cuh\"\n"
        "extern \"C\" __global__ void __launch_bounds__(1024, 2)\n"
        "facts(const mcc_step *step, float *x) {\n"
        "    __shared__ float s[300];\n"
        "    float v[96];\n"
        "#pragma unroll\n"
        "    for (int i = 0; i < 96; i++) v[i] = x[i * 1024 + threadIdx.x];\n"
        "    s[threadIdx.x % 300] = v[0];\n"
        "    __syncthreads();\n"
        "#pragma unroll\n"
        "    for (int i = 0; i < 96; i++) x[i * 1024 + threadIdx.x] = v[95 - i] * s[i];\n"
        "}\n";
    cg_cuda_function f = {.name = "facts", .threads = 1024, .n_params = 2, .source = source};
    cg_cuda_image image = compile(&f, "cuda:sm_80", NULL);
    ck_assert_uint_le(image.registers, 32);
    ck_assert_uint_ge(image.spill_bytes, 4 * 60);
    ck_assert_uint_eq(image.static_shared_bytes, 1200);
    ck_assert_uint_eq(image.occupancy_blocks, 2);
    cg_cuda_image_free(&image);
}
END_TEST

START_TEST(compiler_messages) {
    if (!cuda_available())
        return;
    ir_diag diag = {0};
    cg_cuda_image image;
    cg_cuda_function f = {.name = "wrong", .threads = 32, .n_params = 1, .source = "int x = y;"};
    ck_assert(!cg_cuda_compile(&f, cg_cuda_target_find("cuda:sm_80"), NULL, &diag, &image));
    ck_assert_int_eq(diag.messages[0].severity, IR_INTERNAL_ERROR);
    ck_assert_str_eq(diag.messages[0].where, "wrong");
    ck_assert_ptr_nonnull(strstr(diag.messages[0].text, "/wrong.cu(1): error"));
    ck_assert_ptr_null(image.ptx);
    ir_diag_clear(&diag);
    cg_cuda_target future = *cg_cuda_target_find("cuda:sm_80");
    future.name = "cuda:sm_999";
    future.arch_name = "sm_999";
    f.source = "extern \"C\" __global__ void wrong() {}";
    ck_assert(!cg_cuda_compile(&f, &future, NULL, &diag, &image));
    ck_assert_str_eq(diag.messages[0].where, "cuda:sm_999");
    ck_assert_ptr_nonnull(strstr(diag.messages[0].text, "does not know this architecture"));
    ir_diag_clear(&diag);
}
END_TEST

START_TEST(blocks_that_do_not_fit) {
    if (!cuda_available())
        return;
    ir_diag diag = {0};
    cg_cuda_image image;
    cg_cuda_function f = {.name = "large",
                          .threads = 32,
                          .shared_bytes = 100 * 1024,
                          .n_params = 1,
                          .source = "extern \"C\" __global__ void large() {}"};
    ck_assert(!cg_cuda_compile(&f, cg_cuda_target_find("cuda:sm_86"), NULL, &diag, &image));
    ck_assert_str_eq(diag.messages[0].where, "large");
    ck_assert_ptr_nonnull(strstr(diag.messages[0].text, "102400 bytes of shared memory does not"));
    ck_assert_ptr_null(image.cubin);
    ir_diag_clear(&diag);
    image = compile(&f, "cuda:sm_80", NULL);
    ck_assert_uint_eq(image.occupancy_blocks, 1);
    cg_cuda_image_free(&image);
}
END_TEST

/* --- the cache -----------------------------------------------------------------------------------
 */

static void flip_byte(const char *path, long at) {
    FILE *f = fopen(path, "r+b");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int c = fgetc(f);
    ck_assert_int_ne(c, EOF);
    ck_assert_int_eq(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    fputc(c ^ 1, f);
    ck_assert_int_eq(fclose(f), 0);
}

static int count_files(const char *directory) {
    DIR *d = opendir(directory);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

START_TEST(cache) {
    if (!cuda_available())
        return;
    char base[200], directory[256], key[65], other[65], path[512];
    test_temporary(base, sizeof base, "cache");
    ck_assert_ptr_nonnull(mkdtemp(base));
    snprintf(directory, sizeof directory, "%s/a/b", base); /* made when needed */
    ir_arena *arena = ir_arena_create();
    cg_cuda_function f = small_function(arena), changed = f;
    const cg_cuda_target *target = cg_cuda_target_find("cuda:sm_80");
    cg_cuda_image fresh = compile(&f, target->name, NULL), found = {0};
    cg_cuda_cache_key(&f, target, key);
    ck_assert(!cg_cuda_cache_get(directory, key, &found));
    cg_cuda_image first = compile(&f, target->name, directory);
    same_image(&first, &fresh);
    ck_assert_int_eq(count_files(directory), 1);
    ck_assert(cg_cuda_cache_get(directory, key, &found));
    ck_assert_mem_eq(found.cubin, fresh.cubin, fresh.cubin_bytes);
    cg_cuda_image_free(&found);
    cg_cuda_image second = compile(&f, target->name, directory);
    same_image(&second, &fresh);
    /* What is found is what is given: an image put there under this key by somebody else. */
    cg_cuda_image planted = fresh;
    planted.registers = 77;
    cg_cuda_cache_put(directory, key, &planted);
    cg_cuda_image taken = compile(&f, target->name, directory);
    ck_assert_uint_eq(taken.registers, 77);
    cg_cuda_image_free(&taken);

    /* Any byte that is damaged, or a file that is cut: compiled again. */
    snprintf(path, sizeof path, "%s/%s", directory, key);
    const long places[] = {0, 9, 60, 200, -1};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        cg_cuda_cache_put(directory, key, &fresh);
        flip_byte(path, places[i]);
        ck_assert_msg(!cg_cuda_cache_get(directory, key, &found), "byte %ld", places[i]);
    }
    cg_cuda_cache_put(directory, key, &fresh);
    ck_assert_int_eq(truncate(path, 300), 0);
    cg_cuda_image again = compile(&f, target->name, directory);
    same_image(&again, &fresh);

    /* Another text, name or architecture is another key. */
    changed.source = ir_arena_printf(arena, "%s ", f.source);
    cg_cuda_cache_key(&changed, target, other);
    ck_assert_str_ne(key, other);
    changed = f;
    changed.name = "another";
    cg_cuda_cache_key(&changed, target, other);
    ck_assert_str_ne(key, other);
    cg_cuda_cache_key(&f, cg_cuda_target_find("cuda:sm_86"), other);
    ck_assert_str_ne(key, other);

    /* A place that cannot be written to is no error. */
    cg_cuda_image none = compile(&f, target->name, "/proc/no/such/place");
    same_image(&none, &fresh);
    cg_cuda_image_free(&none);
    cg_cuda_image_free(&again);
    cg_cuda_image_free(&second);
    cg_cuda_image_free(&first);
    cg_cuda_image_free(&fresh);
    ir_arena_destroy(arena);
    unlink(path);
    rmdir(directory);
    snprintf(directory, sizeof directory, "%s/a", base);
    rmdir(directory);
    rmdir(base);
}
END_TEST

/* --- what is refused -----------------------------------------------------------------------------
 */

static void expect_refusal(builder *b, const char *text) {
    ir_arena *arena = ir_arena_create();
    ir_diag diag = {0};
    cg_cuda_code code;
    ck_assert(!cg_cuda_generate(&b->kernel, arena, &diag, &code));
    ck_assert_int_ge(diag.errors, 1);
    ck_assert_str_eq(diag.messages[0].where, "refused");
    ck_assert_msg(strstr(diag.messages[0].text, text) != NULL, "%s", diag.messages[0].text);
    ir_diag_clear(&diag);
    ir_arena_destroy(arena);
    free(b);
}

/* A copy of rows of one type to rows of another. */
static builder *copy_of(ir_type from, ir_type to, int64_t width, cg_program **program) {
    builder *b = builder_new("refused");
    int x = add_arg(b, from, false), y = add_arg(b, to, true);
    *program = add_program(b, 1, width);
    store(*program, CG_STORE, load(*program, rows_of(x, width)), 0, rows_of(y, width));
    return b;
}

START_TEST(refusals) {
    cg_program *p;
    expect_refusal(copy_of(matrix(IR_F8E4M3, 64), matrix(IR_F32, 64), 64, &p),
                   "element type f8e4m3");
    expect_refusal(copy_of(matrix(IR_F32, 64), matrix(IR_I32, 64), 64, &p), "not f32, f16 or bf16");
    ir_type strange = matrix(IR_F32, 64);
    strange.layout = "n99";
    expect_refusal(copy_of(strange, matrix(IR_F32, 64), 64, &p), "layout \"n99\"");
    ir_dim dims[] = {IR_DIM_T, ir_dim_const(64)};
    ir_type q8 = ir_quantized(ir_encoding_get(IR_ENC_Q8_0), 2, dims);
    expect_refusal(copy_of(q8, matrix(IR_F32, 64), 64, &p), "q8_0 that is not packed");
    builder *b = copy_of(matrix(IR_F32, 64), matrix(IR_F32, 64), 64, &p);
    p->stores[0].access.row_map = CG_ROW_GATHERED;
    p->stores[0].access.index_arg = 0;
    b->args[0].type.dtype = IR_I32;
    expect_refusal(b, "a store to gathered rows");
    b = copy_of(matrix(IR_F32, 64), matrix(IR_F32, 64), 64, &p);
    p->stores[0].kind = CG_STORE_A8;
    expect_refusal(b, "not a8 or a8_e4m3");
    b = copy_of(matrix(IR_F32, 48), ir_quantized(ir_encoding_get(IR_ENC_A8), 2, dims), 48, &p);
    p->stores[0].kind = CG_STORE_A8;
    expect_refusal(b, "multiples of 32");
    b = copy_of(matrix(IR_F32, 64), matrix(IR_F32, 64), 64, &p);
    p->stores[0].access.arg = CG_ARG_OPERAND;
    expect_refusal(b, "not a prologue's");
    b = copy_of(matrix(IR_F32, 64), matrix(IR_F32, 64), 64, &p);
    p->stores[0].value = add_node(p, (cg_node){.kind = CG_INPUT});
    expect_refusal(b, "input of part 0");
    b = copy_of(matrix(IR_F32, 64), matrix(IR_F32, 64), 64, &p);
    p->stores[0].value = rotate(p, 0, 65, true);
    expect_refusal(b, "a rotation of 65");
    /* two arrays of a row of 16384 do not fit a block's shared memory everywhere */
    b = copy_of(matrix(IR_F32, 16384), matrix(IR_F32, 16384), 16384, &p);
    b->args[0].written = true;
    int sum = reduce(p, CG_REDUCE_SUM, scalar(p, CG_MUL, 0, 0, 0));
    p->stores[0].value = scalar(p, CG_ADD, sum, 0, 0);
    expect_refusal(b, "bytes of shared memory");
}
END_TEST

static Suite *cuda_suite(void) {
    Suite *suite = suite_create("cuda_build");
    TCase *tcase = tcase_create("build");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, architectures);
    tcase_add_test(tcase, occupancy);
    tcase_add_test(tcase, images);
    tcase_add_test(tcase, facts);
    tcase_add_test(tcase, compiler_messages);
    tcase_add_test(tcase, blocks_that_do_not_fit);
    tcase_add_test(tcase, cache);
    tcase_add_test(tcase, refusals);
    suite_add_tcase(suite, tcase);
    return suite;
}

CHECK_MAIN(cuda_suite)
