/* The GGUF reader: what it reads, and that no damaged file gets past it. */
#include <stdio.h>

#include "check_main.h"
#include "compiler/frontend/gguf.h"
#include "gguf_bytes.h"

static ir_arena *arena;
static ir_diag diag;
static gguf_bytes file;

static void setup(void) {
    arena = ir_arena_create();
    diag = (ir_diag){0};
    file = (gguf_bytes){0};
}

static void teardown(void) {
    ir_arena_destroy(arena);
    ir_diag_clear(&diag);
    free(file.data);
}

/* Every value type, then two tensors: 32 x 2 in Q8_0 (68 bytes) and 3 in F32. */
static size_t data_at;

static void write_good_file(void) {
    put_header(&file, 3, 2, 16);
    put_text(&file, "general.architecture", "llama");
    put_key(&file, "t.u8", 0), put_int(&file, 200, 1);
    put_key(&file, "t.i8", 1), put_int(&file, (uint64_t)-5, 1);
    put_key(&file, "t.u16", 2), put_int(&file, 60000, 2);
    put_key(&file, "t.i16", 3), put_int(&file, (uint64_t)-300, 2);
    put_u32(&file, "t.u32", 4000000000u);
    put_key(&file, "t.i32", 5), put_int(&file, (uint64_t)-70000, 4);
    put_f32(&file, "t.f32", 0.5f);
    put_key(&file, "t.bool", 7), put_int(&file, 1, 1);
    put_key(&file, "t.u64", 10), put_int(&file, UINT64_MAX, 8);
    put_key(&file, "t.i64", 11), put_int(&file, (uint64_t)-7, 8);
    double d = 0.25;
    put_key(&file, "t.f64", 12), put(&file, &d, 8);
    put_array(&file, "t.strings", 8, 3);
    put_string(&file, "a"), put_string(&file, ""), put_string(&file, "ccc");
    put_array(&file, "t.ints", 5, 2), put_int(&file, 1, 4), put_int(&file, (uint64_t)-2, 4);
    put_array(&file, "t.floats", 6, 1);
    float f = 1.5f;
    put(&file, &f, 4);
    put_array(&file, "t.empty", 8, 0);
    put_tensor(&file, "blk.0.ffn_down.weight", 32, 2, 8, 0);
    put_tensor(&file, "output_norm.weight", 3, 0, 0, 96);
    put_padding(&file, 32);
    data_at = file.size;
    for (int i = 0; i < 96 + 12; i++)
        put_int(&file, (uint64_t)i, 1);
}

static bool parse(fe_gguf *gguf) {
    return fe_gguf_parse(gguf, (fe_bytes){file.data, file.size}, "model.gguf", arena, &diag);
}

/* Asserts that the file is refused and that some message holds `text`. */
static void refuse(const char *text) {
    fe_gguf gguf;
    ck_assert(!parse(&gguf));
    ck_assert_int_gt(diag.errors, 0);
    for (int i = 0; i < diag.count; i++) {
        char line[4096];
        snprintf(line, sizeof line, "%s: %s", diag.messages[i].where, diag.messages[i].text);
        if (strstr(line, text))
            return;
    }
    ir_diag_print(&diag, stderr);
    ck_abort_msg("no message says \"%s\"", text);
}

START_TEST(reads_scalars) {
    write_good_file();
    fe_gguf gguf;
    ck_assert(parse(&gguf));
    ck_assert_int_eq(gguf.version, 3);
    ck_assert_int_eq(gguf.value_count, 16);
    static const struct {
        const char *key;
        int64_t value;
    } ints[] = {{"t.u8", 200},         {"t.i8", -5},      {"t.u16", 60000}, {"t.i16", -300},
                {"t.u32", 4000000000}, {"t.i32", -70000}, {"t.i64", -7}};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        int64_t value = 0;
        ck_assert_msg(fe_gguf_int(&gguf, ints[i].key, &value, &diag), "%s", ints[i].key);
        ck_assert_int_eq(value, ints[i].value);
    }
    double f32 = 0, f64 = 0, from_int = 0;
    bool flag = false;
    fe_bytes text;
    ck_assert(fe_gguf_float(&gguf, "t.f32", &f32, &diag) && f32 == 0.5);
    ck_assert(fe_gguf_float(&gguf, "t.f64", &f64, &diag) && f64 == 0.25);
    ck_assert(fe_gguf_float(&gguf, "t.i8", &from_int, &diag) && from_int == -5);
    ck_assert(fe_gguf_bool(&gguf, "t.bool", &flag, &diag) && flag);
    ck_assert(fe_gguf_string(&gguf, "general.architecture", &text, &diag));
    ck_assert_int_eq(text.size, 5);
    ck_assert_mem_eq(text.data, "llama", 5);
    ck_assert_int_eq(diag.count, 0);
}
END_TEST

START_TEST(reads_arrays) {
    write_good_file();
    fe_gguf gguf;
    ck_assert(parse(&gguf));
    fe_bytes *strings;
    int32_t *ints;
    float *floats;
    int64_t count;
    ck_assert(fe_gguf_strings(&gguf, "t.strings", &strings, &count, arena, &diag));
    ck_assert_int_eq(count, 3);
    ck_assert_int_eq(strings[1].size, 0);
    ck_assert_int_eq(strings[2].size, 3);
    ck_assert_mem_eq(strings[2].data, "ccc", 3);
    ck_assert(fe_gguf_ints(&gguf, "t.ints", &ints, &count, arena, &diag));
    ck_assert_int_eq(count, 2);
    ck_assert_int_eq(ints[1], -2);
    ck_assert(fe_gguf_floats(&gguf, "t.floats", &floats, &count, arena, &diag));
    ck_assert_int_eq(count, 1);
    ck_assert(floats[0] == 1.5f);
    ck_assert(fe_gguf_strings(&gguf, "t.empty", &strings, &count, arena, &diag));
    ck_assert_int_eq(count, 0);
    ck_assert_int_eq(diag.count, 0);
}
END_TEST

START_TEST(reads_tensors) {
    write_good_file();
    fe_gguf gguf;
    ck_assert(parse(&gguf));
    ck_assert_int_eq(gguf.tensor_count, 2);
    const fe_gguf_tensor *t = gguf.tensors;
    ck_assert_str_eq(t[0].name, "blk.0.ffn_down.weight");
    ck_assert_int_eq(t[0].format, FE_Q8_0);
    ck_assert_int_eq(t[0].rank, 2);
    ck_assert_int_eq(t[0].dims[0], 32);
    ck_assert_int_eq(t[0].dims[1], 2);
    ck_assert_uint_eq(t[0].offset, data_at);
    ck_assert_uint_eq(t[0].size, 68);
    ck_assert_int_eq(t[1].rank, 1);
    ck_assert_uint_eq(t[1].offset, data_at + 96);
    ck_assert_uint_eq(t[1].size, 12);
}
END_TEST

START_TEST(wrong_types_and_absence) {
    write_good_file();
    fe_gguf gguf;
    ck_assert(parse(&gguf));
    int64_t value = 42;
    bool flag;
    fe_bytes text;
    ck_assert(!fe_gguf_int(&gguf, "absent", &value, &diag));
    ck_assert_int_eq(value, 42);
    ck_assert_int_eq(diag.errors, 0);
    ck_assert(!fe_gguf_int(&gguf, "t.f32", &value, &diag));
    ck_assert(!fe_gguf_int(&gguf, "t.ints", &value, &diag));
    ck_assert(!fe_gguf_int(&gguf, "t.u64", &value, &diag)); /* 2^64-1 is beyond int64_t */
    ck_assert(!fe_gguf_bool(&gguf, "t.u8", &flag, &diag));
    ck_assert(!fe_gguf_string(&gguf, "t.strings", &text, &diag));
    ck_assert_int_eq(diag.errors, 5);
    ck_assert(strstr(diag.messages[0].text, "metadata t.f32 is f32 at offset"));
}
END_TEST

START_TEST(truncated_at_every_length) {
    write_good_file();
    size_t whole = file.size;
    for (file.size = 0; file.size < whole; file.size++) {
        /* An exact copy, so that a sanitizer sees any read beyond the end. */
        uint8_t *copy = malloc(file.size ? file.size : 1);
        memcpy(copy, file.data, file.size);
        fe_gguf gguf;
        ck_assert_msg(
            !fe_gguf_parse(&gguf, (fe_bytes){copy, file.size}, "model.gguf", arena, &diag),
            "accepted at %zu of %zu bytes", file.size, whole);
        ck_assert_int_gt(diag.errors, 0);
        ir_diag_clear(&diag);
        free(copy);
    }
    file.size = data_at + 50;
    char expected[200];
    snprintf(expected, sizeof expected,
             "model.gguf: tensor blk.0.ffn_down.weight: needs bytes %zu..%zu but the file ends at "
             "%zu (truncated?)",
             data_at, data_at + 68, file.size);
    refuse(expected);
}
END_TEST

START_TEST(every_bit_flipped) {
    write_good_file();
    int refused = 0;
    for (size_t bit = 0; bit < data_at * 8; bit++) {
        file.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        fe_gguf gguf;
        if (!parse(&gguf)) {
            ck_assert_int_gt(diag.errors, 0);
            refused++;
        } else {
            for (int64_t i = 0; i < gguf.tensor_count; i++)
                ck_assert_uint_le(gguf.tensors[i].offset + gguf.tensors[i].size, file.size);
        }
        ir_diag_clear(&diag);
        file.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert_int_gt(refused, 1000); /* lengths, counts and types; flips in values are values */
}
END_TEST

START_TEST(lying_headers) {
    put(&file, "GGML", 4), put_int(&file, 3, 4), put_int(&file, 0, 8), put_int(&file, 0, 8);
    refuse("is not a GGUF file: it begins with \"GGML\"");
    file.size = 0;
    put_header(&file, 1, 0, 0);
    refuse("is GGUF version 1, expected 2 or 3");
    file.size = 0;
    put_header(&file, 0x03000000, 0, 0);
    refuse("big-endian");
    file.size = 0;
    put_header(&file, 3, UINT64_MAX, 0);
    refuse("promises 0 metadata entries and 18446744073709551615 tensors");
    file.size = 0;
    put_header(&file, 3, 0, UINT64_MAX / 13);
    refuse("metadata entries");
}
END_TEST

START_TEST(lying_values) {
    put_header(&file, 3, 0, 1);
    put_array(&file, "a", 4, UINT64_MAX / 4 + 2); /* times 4 wraps to 4 */
    put_int(&file, 0, 8);
    refuse("metadata a needs 18446744073709551615 bytes");
    file.size = 0;
    put_header(&file, 3, 0, 1);
    put_key(&file, "a", 8), put_int(&file, UINT64_MAX - 3, 8), put_int(&file, 0, 8);
    refuse("metadata a needs 18446744073709551612 bytes at offset 45");
    file.size = 0;
    put_header(&file, 3, 0, 1);
    put_array(&file, "a", 9, 1);
    put_int(&file, 4, 4), put_int(&file, 0, 8);
    refuse("metadata a is an array of arrays");
    file.size = 0;
    put_header(&file, 3, 0, 1);
    put_key(&file, "a", 13), put_int(&file, 0, 8);
    refuse("metadata a has value type 13 at offset 33");
    file.size = 0;
    put_header(&file, 3, 0, 2);
    put_u32(&file, "a", 1), put_u32(&file, "a", 1);
    refuse("metadata a is there twice");
    file.size = 0;
    put_header(&file, 3, 0, 1);
    put_u32(&file, "a\033[31m", 1);
    refuse("a metadata key at offset 24 is \"a?[31m\" (6 bytes)");
    file.size = 0;
    put_header(&file, 3, 0, 1);
    put_u32(&file, "general.alignment", 48);
    refuse("general.alignment is 48, expected a power of two");
}
END_TEST

/* A file with one or two tensors and 256 bytes of data. */
static void two_tensors(uint64_t d0, uint64_t d1, uint32_t type, uint64_t offset,
                        const char *second, uint64_t second_offset) {
    file.size = 0;
    ir_diag_clear(&diag);
    put_header(&file, 3, second ? 2 : 1, 0);
    put_tensor(&file, "a", d0, d1, type, offset);
    if (second)
        put_tensor(&file, second, 8, 0, 0, second_offset);
    put_padding(&file, 32);
    for (int i = 0; i < 256; i++)
        put_int(&file, 0, 1);
}

START_TEST(lying_tensors) {
    two_tensors(1ull << 62, 4, 0, 0, NULL, 0);
    refuse("tensor a: its dimensions multiply to more than 2^63 elements");
    two_tensors(1ull << 62, 1, 0, 0, NULL, 0);
    refuse("tensor a: its data would be larger than 2^63 bytes");
    two_tensors(UINT64_MAX, 1, 0, 0, NULL, 0);
    refuse("tensor a: dimension 0 is 18446744073709551615");
    two_tensors(0, 1, 0, 0, NULL, 0);
    refuse("dimension 0 is 0");
    two_tensors(33, 1, 8, 0, NULL, 0);
    refuse("tensor a: rows of 33 elements, Q8_0 needs a multiple of 32");
    two_tensors(64, 1, 0, UINT64_MAX - 31, NULL, 0);
    refuse("is beyond any file");
    two_tensors(64, 1, 0, 4, NULL, 0);
    refuse("offset 4 is not a multiple of the alignment 32");
    two_tensors(65, 1, 0, 0, NULL, 0);
    refuse("tensor a: needs bytes 96..356 but the file ends at 352 (truncated?)");
    two_tensors(64, 1, 0, 0, "b", 224);
    refuse("tensor a at bytes 128..384 overlaps tensor b, which begins at 352");
    two_tensors(8, 1, 0, 0, "a", 32);
    refuse("tensor a is there twice");
    file.size = 0;
    put_header(&file, 3, 1, 0);
    put_string(&file, "a"), put_int(&file, 5, 4);
    put_padding(&file, 128);
    refuse("has 5 dimensions, expected 1 to 4");
}
END_TEST

START_TEST(lists_all_unsupported_types) {
    put_header(&file, 3, 5, 0);
    put_tensor(&file, "a", 256, 2, 17, 0);
    put_tensor(&file, "b", 32, 0, 0, 0);
    put_tensor(&file, "c", 256, 0, 17, 0);
    put_tensor(&file, "d", 32, 0, 39, 0);
    put_tensor(&file, "e", 32, 0, 1000, 0);
    put_padding(&file, 512);
    refuse(
        "tensor type IQ2_XS is not supported; tensors that have it (2): a, c (supported: F32 F16");
    ir_diag_clear(&diag);
    refuse("tensor type MXFP4 is not supported; tensors that have it (1): d");
    ir_diag_clear(&diag);
    refuse("tensor type number 1000 is not supported; tensors that have it (1): e");
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("gguf");
    TCase *c = tcase_create("gguf");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, reads_scalars);
    tcase_add_test(c, reads_arrays);
    tcase_add_test(c, reads_tensors);
    tcase_add_test(c, wrong_types_and_absence);
    tcase_add_test(c, truncated_at_every_length);
    tcase_add_test(c, every_bit_flipped);
    tcase_add_test(c, lying_headers);
    tcase_add_test(c, lying_values);
    tcase_add_test(c, lying_tensors);
    tcase_add_test(c, lists_all_unsupported_types);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)
