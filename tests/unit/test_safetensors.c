/* The safetensors reader: what it reads, and that no damaged file gets past it. */
#include <stdio.h>
#include <string.h>

#include "check_main.h"
#include "compiler/frontend/safetensors.h"

static ir_arena *arena;
static ir_diag diag;
static uint8_t file[4096];
static size_t file_size;

static void setup(void) {
    arena = ir_arena_create();
    diag = (ir_diag){0};
}

static void teardown(void) {
    ir_arena_destroy(arena);
    ir_diag_clear(&diag);
}

/* A file with this header and `data` bytes after it. */
static void write_file(const char *header, size_t data) {
    size_t length = strlen(header);
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)(length >> (8 * i));
    memcpy(file + 8, header, length);
    for (size_t i = 0; i < data; i++)
        file[8 + length + i] = (uint8_t)i;
    file_size = 8 + length + data;
    ir_diag_clear(&diag);
}

static bool parse(fe_safetensors *st) {
    return fe_safetensors_parse(st, (fe_bytes){file, file_size}, "model.safetensors", arena, &diag);
}

/* Asserts that the file is refused and that some message holds `text`. */
static void refuse(const char *text) {
    fe_safetensors st;
    ck_assert(!parse(&st));
    ck_assert_int_gt(diag.errors, 0);
    for (int i = 0; i < diag.count; i++) {
        char line[2048];
        snprintf(line, sizeof line, "%s: %s", diag.messages[i].where, diag.messages[i].text);
        if (strstr(line, text))
            return;
    }
    ir_diag_print(&diag, stderr);
    ck_abort_msg("no message says \"%s\"", text);
}

static const char good[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"b.weight\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
    "\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
    "\"ids\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[20,28]},"
    "\"empty\":{\"dtype\":\"F16\",\"shape\":[0,4],\"data_offsets\":[20,20]},"
    "\"scalar\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[28,30]}}  ";
enum { good_data = 30 };

START_TEST(reads_a_file) {
    write_file(good, good_data);
    fe_safetensors st;
    ck_assert(parse(&st));
    ck_assert_int_eq(st.count, 5);
    ck_assert_str_eq(st.tensors[0].name, "a.weight");
    ck_assert_int_eq(st.tensors[0].format, FE_F32);
    const fe_safetensor *b = &st.tensors[1];
    ck_assert_str_eq(b->name, "b.weight");
    ck_assert_int_eq(b->format, FE_BF16);
    ck_assert_int_eq(b->rank, 2);
    ck_assert_int_eq(b->dims[0], 2);
    ck_assert_int_eq(b->dims[1], 3);
    ck_assert_uint_eq(b->offset, 8 + strlen(good) + 8);
    ck_assert_uint_eq(b->size, 12);
    ck_assert_str_eq(st.tensors[2].name, "empty");
    ck_assert_str_eq(st.tensors[3].dtype, "I64");
    ck_assert_int_eq(st.tensors[3].format, FE_FORMAT_COUNT);
    ck_assert_int_eq(st.tensors[4].rank, 0);
    ck_assert_int_eq(diag.count, 0);
}
END_TEST

START_TEST(truncated_at_every_length) {
    write_file(good, good_data);
    size_t whole = file_size;
    for (size_t size = 0; size < whole; size++) {
        uint8_t *copy = malloc(size ? size : 1); /* exact, so that a sanitizer sees the end */
        memcpy(copy, file, size);
        fe_safetensors st;
        ck_assert_msg(!fe_safetensors_parse(&st, (fe_bytes){copy, size}, "m", arena, &diag),
                      "accepted at %zu of %zu bytes", size, whole);
        ck_assert_int_gt(diag.errors, 0);
        ir_diag_clear(&diag);
        free(copy);
    }
    file_size = whole - 1;
    refuse("model.safetensors: tensor scalar: needs bytes");
    file[file_size++] = 0, file[file_size++] = 0;
    refuse("but the file at");
}
END_TEST

START_TEST(every_bit_flipped) {
    write_file(good, good_data);
    int refused = 0;
    size_t header_end = 8 + strlen(good);
    for (size_t bit = 0; bit < header_end * 8; bit++) {
        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
        fe_safetensors st;
        if (!parse(&st)) {
            ck_assert_int_gt(diag.errors, 0);
            refused++;
        } else {
            for (int64_t i = 0; i < st.count; i++)
                ck_assert_uint_le(st.tensors[i].offset + st.tensors[i].size, file_size);
        }
        ir_diag_clear(&diag);
        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert_int_gt(refused, 1000);
}
END_TEST

START_TEST(lying_headers) {
    memset(file, 0xff, 16);
    file_size = 16;
    refuse("promises a header of 18446744073709551615 bytes");
    write_file("", 0);
    file[0] = 200;
    refuse("the header needs bytes 8..208 but the file ends at 8 (truncated?)");
    write_file("{\"a\":", 0);
    refuse("is not valid JSON near offset");
    write_file("[1]", 0);
    refuse("is not a JSON object at offset 8");
    write_file("{} {}", 0);
    refuse("is not valid JSON near offset 11");
    write_file("{\"a\\u001b[1m\":{}}", 0);
    refuse("tensor name \"a?[1m\"");
    write_file("{\"a\":3}", 0);
    refuse("tensor a: its entry in the header is not an object");
}
END_TEST

START_TEST(deep_nesting) {
    char header[3001];
    memset(header, '[', 3000);
    header[3000] = '\0';
    write_file(header, 0);
    refuse("is not valid JSON");
}
END_TEST

#define ENTRY(name, dtype, shape, offsets)                                                         \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

START_TEST(lying_tensors) {
    write_file("{" ENTRY("a", "F32", "[3]", "[0,8]") "}", 8);
    refuse("tensor a: its shape in F32 needs 12 bytes, its offsets");
    write_file("{" ENTRY("a", "F32", "[4294967296,4294967296]", "[0,8]") "}", 8);
    refuse("tensor a: its shape in F32 needs 9223372036854775807 bytes or more");
    write_file("{" ENTRY("a", "F32", "[-2]", "[0,8]") "}", 8);
    refuse("tensor a: dimension 0 of its shape is not a size");
    write_file("{" ENTRY("a", "F32", "[2.5]", "[0,8]") "}", 8);
    refuse("dimension 0 of its shape is not a size");
    write_file("{" ENTRY("a", "F32", "[1e300]", "[0,8]") "}", 8);
    refuse("dimension 0 of its shape is not a size");
    write_file("{" ENTRY("a", "F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", 8);
    refuse("has more than 8 dimensions");
    write_file("{" ENTRY("a", "F32", "[2]", "[8,0]") "}", 8);
    refuse("has no \"data_offsets\" [begin, end]");
    write_file("{" ENTRY("a", "F32", "[2]", "[0,8,9]") "}", 8);
    refuse("has no \"data_offsets\" [begin, end]");
    write_file("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8);
    refuse("has no \"data_offsets\"");
    write_file("{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
    refuse("has no \"dtype\"");
    write_file("{" ENTRY("a", "F32", "[2]", "[0,8]") "," ENTRY("b", "F32", "[2]", "[4,12]") "}",
               12);
    refuse("tensor b begins at");
    write_file("{" ENTRY("a", "F32", "[2]", "[0,8]") "," ENTRY("b", "F32", "[2]", "[12,20]") "}",
               20);
    refuse("(a gap)");
    write_file("{" ENTRY("a", "F32", "[2]", "[0,8]") "," ENTRY("a", "F32", "[2]", "[8,16]") "}",
               16);
    refuse("tensor a is there twice");
}
END_TEST

START_TEST(lists_every_bad_tensor) {
    write_file("{" ENTRY("a", "F32", "[3]", "[0,8]") "," ENTRY("b", "F16", "[9]", "[8,12]") "}",
               12);
    refuse("tensor a: its shape");
    ck_assert_int_eq(diag.errors, 2);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("safetensors");
    TCase *c = tcase_create("safetensors");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, reads_a_file);
    tcase_add_test(c, truncated_at_every_length);
    tcase_add_test(c, every_bit_flipped);
    tcase_add_test(c, lying_headers);
    tcase_add_test(c, deep_nesting);
    tcase_add_test(c, lying_tensors);
    tcase_add_test(c, lists_every_bad_tensor);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)
