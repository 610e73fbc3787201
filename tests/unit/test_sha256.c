/* SHA-256 against the vectors of FIPS 180-4 (NIST's examples) and the two implementations against
 * each other at every length around block boundaries. */
#include "check_main.h"
#include "runtime/sha256.h"

#include <string.h>

static void hex_of(const void *data, size_t size, bool portable, char text[65]) {
    rt_sha256 hash;
    uint8_t digest[32];
    if (portable)
        rt_sha256_init_portable(&hash);
    else
        rt_sha256_init(&hash);
    rt_sha256_update(&hash, data, size);
    rt_sha256_final(&hash, digest);
    rt_sha256_hex(digest, text);
}

START_TEST(fips_vectors) {
    static const struct {
        const char *text, *hex;
    } vectors[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqr"
         "lmnopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        for (int portable = 0; portable < 2; portable++) {
            char hex[65];
            hex_of(vectors[i].text, strlen(vectors[i].text), portable, hex);
            ck_assert_str_eq(hex, vectors[i].hex);
        }
    }
}
END_TEST

START_TEST(million_times_a) {
    rt_sha256 hash;
    uint8_t digest[32];
    char hex[65], chunk[1000];
    memset(chunk, 'a', sizeof chunk);
    rt_sha256_init(&hash);
    for (int i = 0; i < 1000; i++)
        rt_sha256_update(&hash, chunk, sizeof chunk);
    rt_sha256_final(&hash, digest);
    rt_sha256_hex(digest, hex);
    ck_assert_str_eq(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}
END_TEST

START_TEST(lengths_and_pieces) {
    uint8_t data[300];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 151 + 7);
    for (size_t n = 0; n <= sizeof data; n++) {
        char whole[65], portable[65], pieces[65];
        hex_of(data, n, false, whole);
        hex_of(data, n, true, portable);
        ck_assert_str_eq(whole, portable);
        rt_sha256 hash;
        uint8_t digest[32];
        rt_sha256_init(&hash);
        for (size_t at = 0, step = 1; at < n; at += step, step = step % 71 + 5) {
            if (step > n - at)
                step = n - at;
            rt_sha256_update(&hash, data + at, step);
        }
        rt_sha256_final(&hash, digest);
        rt_sha256_hex(digest, pieces);
        ck_assert_str_eq(whole, pieces);
    }
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("sha256");
    TCase *t = tcase_create("sha256");
    tcase_add_test(t, fips_vectors);
    tcase_add_test(t, million_times_a);
    tcase_add_test(t, lengths_and_pieces);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
