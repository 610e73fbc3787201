/* Reads the bytes as a config.json: whatever is accepted has passed fe_config_check. Start it from
 * the config.json files of tests/golden/. */
#include "compiler/frontend/hf.h"
#include "compiler/frontend/hf_fp8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ir_arena *arena = ir_arena_create();
    ir_diag diag = {0};
    fe_model model = {.arena = arena, .path = "fuzz"};
    cJSON *root = fe_json_parse((fe_bytes){data, size}, "config.json", 0, &diag);
    fe_hf_fp8 fp8 = {0};
    bool ok = root && fe_hf_fp8_config(root, &fp8, "config.json", arena, &diag);
    if (root && ok == (diag.errors != 0))
        __builtin_trap(); /* errors and refusals go together */
    if (fp8.block_rows < 0 || fp8.block_cols < 0)
        __builtin_trap();
    ok = root && fe_hf_config(&model, root, "config.json", &diag) && ok;
    if (ok == (diag.errors != 0))
        __builtin_trap(); /* errors and refusals go together */
    for (int64_t i = 0; ok && i < model.config.layers; i++)
        if (model.config.layer[i].window < 0)
            __builtin_trap();
    cJSON_Delete(root);
    ir_diag_clear(&diag);
    ir_arena_destroy(arena);
    return 0;
}
