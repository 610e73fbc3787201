/* tokenizer.json from anywhere: it compiles to a blob that works, or there is an error. The input
 * is the document, or with a 0 byte in it, tokenizer.json and tokenizer_config.json. */
#include <stdlib.h>
#include <string.h>

#include "compiler/tokenizer/tokenizer.h"
#include "runtime/tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const fe_blob *blob) {
    static const char text[] = "Hello <s> wor\xc3\xa9ld 123\n\n  \xf0\x9f\x99\x82 \xff\xe2\x96\x81";
    rt_error error = {0};
    rt_tokenizer *tokenizer = rt_tokenizer_open(blob->data, blob->size, &error);
    if (!tokenizer)
        abort(); /* the compiler has opened it already */
    int32_t ids[64];
    int64_t count = rt_tokenizer_encode(tokenizer, text, sizeof text - 1, 3, ids, 64, &error);
    if (count > 64)
        count = 64;
    char out[256];
    rt_detok detok;
    rt_detok_init(&detok, tokenizer, 0);
    for (int64_t i = 0; i < count; i++)
        if (rt_detok_push(&detok, ids[i], out, sizeof out) < 0)
            abort(); /* an id that encoding gave has no text */
    if (count >= 0 && rt_tokenizer_decode(tokenizer, ids, count, 0, out, sizeof out, &error) < 0)
        abort();
    rt_tokenizer_close(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    size_t first = zero ? (size_t)(zero - data) : size;
    ir_arena *arena = ir_arena_create();
    ir_diag diag = {0};
    fe_blob blob;
    bool good = fe_tokenizer_from_json(arena, &diag, "input", (const char *)data, first,
                                       zero ? (const char *)zero + 1 : NULL,
                                       zero ? size - first - 1 : 0, &blob);
    if (good != (diag.errors == 0))
        abort();
    if (good)
        use(&blob);
    ir_diag_clear(&diag);
    ir_arena_destroy(arena);
    return 0;
}
