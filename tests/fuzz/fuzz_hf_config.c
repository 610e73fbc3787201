/* Reads the bytes as a config.json: whatever is accepted has passed fe_config_check. Start it from
 * the config.json files of tests/golden/. */
#include "compiler/frontend/hf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ir_arena *arena = ir_arena_create();
    ir_diag diag = {0};
    fe_model model = {.arena = arena, .path = "fuzz"};
    cJSON *root = fe_json_parse((fe_bytes){data, size}, "config.json", 0, &diag);
    bool ok = root && fe_hf_config(&model, root, "config.json", &diag);
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
