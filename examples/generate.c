/* Continues a prompt with a model that modelcc compiled: generate MODEL.so PROMPT [TOKENS] */
#include <modelcc.h>
#include <stdio.h>
#include <stdlib.h>

static mcc_error error = {.struct_size = sizeof error};

static int fail(void) {
    fprintf(stderr, "error: %s\n", error.text);
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL.so PROMPT [TOKENS]\n", argv[0]);
        return 2;
    }
    mcc_artifact *model;
    mcc_engine *engine;
    if (mcc_artifact_open(argv[1], NULL, &model, &error) ||
        mcc_engine_create(model, NULL, &engine, &error))
        return fail();
    mcc_request_params params = {.struct_size = sizeof params, .prompt = argv[2]};
    params.max_tokens = argc > 3 ? atoi(argv[3]) : 64;
    uint64_t id;
    if (mcc_request_submit(engine, &params, &id, &error))
        return fail();
    mcc_event event = {.struct_size = sizeof event};
    while (event.kind != MCC_EVENT_FINISHED) {
        if (mcc_engine_step(engine, NULL, &error))
            return fail();
        do {
            if (mcc_engine_poll(engine, id, &event, &error))
                return fail();
            fwrite(event.text, 1, event.text_bytes, stdout);
        } while (event.kind == MCC_EVENT_TOKEN);
    }
    printf("\n%lld tokens\n", (long long)event.completion_tokens);
    mcc_engine_destroy(engine);
    mcc_artifact_close(model);
}
