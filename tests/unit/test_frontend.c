/* Opening models: what the frontend finds in good ones, and what it says about bad ones. Each bad
 * model is a golden checkpoint with one thing changed. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check_main.h"
#include "compiler/frontend/frontend.h"
#include "gguf_bytes.h"
#include "ir/verify.h"

#define GOLDEN MCC_TEST_DATA "/golden"

static char directory[200]; /* of this test's model */
static ir_diag diag;

static const char *in_directory(const char *name) {
    static char path[2][512];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", directory, name);
    return path[turn];
}

static void setup(void) {
    test_temporary(directory, sizeof directory, "frontend");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    diag = (ir_diag){0};
}

static void teardown(void) {
    DIR *d = opendir(directory);
    for (struct dirent *e; (e = readdir(d));)
        unlink(in_directory(e->d_name));
    closedir(d);
    rmdir(directory);
    ir_diag_clear(&diag);
}

/* ---- making models ---- */

static char *read_whole(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*size + 1);
    ck_assert_uint_eq(fread(data, 1, *size, f), *size);
    data[*size] = '\0';
    fclose(f);
    return data;
}

static void write_whole(const char *name, const void *data, size_t size) {
    unlink(in_directory(name));
    FILE *f = fopen(in_directory(name), "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, size, f), size);
    fclose(f);
}

static void write_text(const char *name, const char *text) {
    write_whole(name, text, strlen(text));
}

/* Fills the directory with links to a golden checkpoint's files. */
static void start_from(const char *golden) {
    char from[512], target[1024];
    snprintf(from, sizeof from, "%s/%s", GOLDEN, golden);
    DIR *d = opendir(from);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(target, sizeof target, "%s/%s", from, e->d_name);
        if (e->d_name[0] != '.')
            ck_assert_int_eq(symlink(target, in_directory(e->d_name)), 0);
    }
    closedir(d);
}

/* Replaces the first `old` in a file of the directory, which may be binary. */
static void edit(const char *name, const char *old, const char *new) {
    size_t size;
    char *data = read_whole(in_directory(name), &size);
    char *at = memmem(data, size, old, strlen(old));
    ck_assert_msg(at != NULL, "%s does not hold %s", name, old);
    size_t before = (size_t)(at - data), after = size - before - strlen(old);
    char *result = malloc(size + strlen(new));
    memcpy(result, data, before);
    memcpy(result + before, new, strlen(new));
    memcpy(result + before + strlen(new), at + strlen(old), after);
    write_whole(name, result, before + strlen(new) + after);
    free(data);
    free(result);
}

/* ---- expectations ---- */

static bool said(const char *text) {
    for (int i = 0; i < diag.count; i++) {
        char line[8192];
        snprintf(line, sizeof line, "%s: %s", diag.messages[i].where, diag.messages[i].text);
        if (strstr(line, text))
            return true;
    }
    return false;
}

static void expect_said(const char *text) {
    if (!said(text))
        ir_diag_print(&diag, stderr);
    ck_assert_msg(said(text), "no message says \"%s\"", text);
}

static void refuse(const char *path, const char *text) {
    ir_diag_clear(&diag);
    ck_assert_ptr_null(fe_open(path, &diag));
    ck_assert_int_gt(diag.errors, 0);
    expect_said(text);
}

static fe_model *accept(const char *path) {
    ir_diag_clear(&diag);
    fe_model *model = fe_open(path, &diag);
    if (!model)
        ir_diag_print(&diag, stderr);
    ck_assert_ptr_nonnull(model);
    ir_module *module = fe_build(model, FE_LOGITS, &diag);
    ck_assert_ptr_nonnull(module);
    ck_assert(ir_verify(module, &diag));
    ir_module_destroy(module);
    return model;
}

/* ---- good models ---- */

START_TEST(reads_everything_from_a_directory) {
    start_from("tiny-gemma3");
    write_text("generation_config.json", "{\"eos_token_id\": [1, 106, 1], \"bos_token_id\": 2}");
    write_text("README.md", "---\nlanguage: en\nlicense: gemma\n---\n# Tiny\nlicense: other\n");
    fe_model *m = accept(directory);
    const fe_config *c = &m->config;
    ck_assert_str_eq(m->arch->name, "gemma3");
    ck_assert_str_eq(m->format, "safetensors");
    ck_assert_str_eq(m->license, "gemma");
    ck_assert_int_eq(c->hidden, 64);
    ck_assert_int_eq(c->head_dim, 32);
    ck_assert_int_eq(c->eos_count, 2);
    ck_assert_int_eq(c->eos[1], 106);
    ck_assert_int_eq(c->bos, 2);
    ck_assert(c->tied && c->norm_plus_one && !c->rope_interleaved);
    ck_assert_double_eq(c->embedding_scale, 8);
    /* sliding_window_pattern is 3: layers 0, 1, 3 slide, 2 does not. */
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(c->layer[i].window, i == 2 ? 0 : 16);
        ck_assert_int_eq(c->layer[i].rope, i == 2 ? FE_ROPE_GLOBAL : FE_ROPE_LOCAL);
    }
    ck_assert_int_eq(m->tokenizer.kind, FE_TOKENIZER_JSON);
    ck_assert_uint_gt(m->tokenizer.json.size, 0);
    ck_assert_uint_gt(m->tokenizer.config.size, 0);
    ck_assert_uint_gt(m->chat_template.size, 0);
    const fe_tensor *t = fe_model_tensor(m, "layers.3.mlp.down_proj.weight");
    ck_assert_ptr_nonnull(t);
    ck_assert_int_eq(t->rows, 64);
    ck_assert_int_eq(t->cols, 128);
    ck_assert_str_eq(t->file_name, "model.layers.3.mlp.down_proj.weight");
    ck_assert_ptr_null(fe_model_tensor(m, "layers.4.mlp.down_proj.weight"));
    fe_close(m);
}
END_TEST

START_TEST(reads_everything_from_gguf) {
    fe_model *m = accept(GOLDEN "/gguf/gemma3-mixed.gguf");
    const fe_config *c = &m->config;
    ck_assert_str_eq(m->arch->name, "gemma3");
    ck_assert_str_eq(m->format, "GGUF");
    ck_assert(c->tied && !c->norm_plus_one && !c->rope_interleaved);
    ck_assert_int_eq(c->layer[4].window, 16);
    ck_assert_int_eq(c->layer[5].window, 0);
    ck_assert_int_eq(c->layer[5].rope, FE_ROPE_GLOBAL);
    ck_assert_int_eq(c->layer[6].rope, FE_ROPE_LOCAL);
    ck_assert_int_eq(m->tokenizer.kind, FE_TOKENIZER_GGUF);
    ck_assert_int_gt(m->tokenizer.gguf.token_count, 0);
    ck_assert_ptr_nonnull(m->tokenizer.gguf.scores);
    ck_assert_ptr_nonnull(fe_model_tensor(m, "layers.0.pre_feedforward_layernorm.weight"));
    fe_close(m);

    m = accept(GOLDEN "/gguf/llama3-rope-q8_0.gguf");
    ck_assert(m->config.rope_interleaved);
    ck_assert_ptr_nonnull(m->config.rope[FE_ROPE_GLOBAL].factors);
    ck_assert_int_gt(m->tokenizer.gguf.merge_count, 0);
    fe_close(m);
}
END_TEST

START_TEST(ropes_of_version_5) {
    start_from("tiny-gemma3");
    edit("config.json", "\"rope_scaling\": null",
         "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"linear\", \"factor\": 8.0,"
         "\"rope_theta\": 5e5}, \"sliding_attention\": {\"rope_type\": \"default\","
         "\"rope_theta\": 7e3}}");
    fe_model *m = accept(directory);
    ck_assert_double_eq(m->config.rope[FE_ROPE_GLOBAL].theta, 5e5);
    ck_assert_double_eq(m->config.rope[FE_ROPE_GLOBAL].scale, 0.125);
    ck_assert_double_eq(m->config.rope[FE_ROPE_LOCAL].theta, 7e3);
    ck_assert_double_eq(m->config.rope[FE_ROPE_LOCAL].scale, 1);
    fe_close(m);
}
END_TEST

START_TEST(windows_from_some_layer_on) {
    start_from("tiny-qwen2");
    edit("config.json", "\"use_sliding_window\": false", "\"use_sliding_window\": true");
    edit("config.json", "\"max_window_layers\": 2", "\"max_window_layers\": 1");
    fe_model *m = accept(directory);
    ck_assert_int_eq(m->config.layer[0].window, 0);
    ck_assert_int_eq(m->config.layer[1].window, 32);
    ck_assert_int_eq(m->config.layer[1].rope, FE_ROPE_GLOBAL);
    fe_close(m);
}
END_TEST

START_TEST(biases_that_config_json_asks_for) {
    start_from("tiny-llama");
    edit("config.json", "\"attention_bias\": false", "\"attention_bias\": true");
    edit("config.json", "\"mlp_bias\": false", "\"mlp_bias\": true");
    refuse(directory, "14 tensors are missing: layers.0.self_attn.q_proj.bias, ");
    expect_said("layers.1.self_attn.o_proj.bias");
    expect_said("layers.1.mlp.down_proj.bias");
}
END_TEST

START_TEST(printable_text) {
    ir_arena *arena = ir_arena_create();
    static const struct {
        const char *bytes, *shown;
    } cases[] = {
        {"Mod\xc3\xa8le \xe6\xa8\xa1 \xf0\x9f\x98\x80",
         "Mod\xc3\xa8le \xe6\xa8\xa1 \xf0\x9f\x98\x80"},
        {"a\x1b[1m\x7f\n", "a?[1m??"},
        {"\xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80 \xe2\x82", "?? ??? ???? ??"},
        {"\xc2\x9b"
         "1m \xe2\x80\xae",
         "??1m ???"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_str_eq(fe_printable(arena, cases[i].bytes, strlen(cases[i].bytes)),
                         cases[i].shown);
    char longer[200];
    memset(longer, 'x', sizeof longer);
    ck_assert_uint_eq(strlen(fe_printable(arena, longer, sizeof longer)), 123);
    ck_assert_str_eq(fe_printable(arena, NULL, 0), "");
    ir_arena_destroy(arena);
}
END_TEST

START_TEST(chat_template_file_comes_first) {
    start_from("tiny-llama");
    write_text("chat_template.jinja", "{{ messages }}");
    fe_model *m = accept(directory);
    ck_assert_uint_eq(m->chat_template.size, 14);
    fe_close(m);
    unlink(in_directory("chat_template.jinja"));
    write_text("tokenizer_config.json",
               "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"no\"},"
               "{\"name\": \"default\", \"template\": \"yes\"}]}");
    m = accept(directory);
    ck_assert_uint_eq(m->chat_template.size, 3);
    ck_assert_mem_eq(m->chat_template.data, "yes", 3);
    fe_close(m);
}
END_TEST

START_TEST(data_that_is_not_aligned) {
    start_from("tiny-mistral");
    /* One byte more of padding in the header moves every tensor to an odd address. */
    size_t size;
    char *data = read_whole(in_directory("model.safetensors"), &size);
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--)
        header = header << 8 | (uint8_t)data[i];
    gguf_bytes moved = {0};
    put_int(&moved, header + 1, 8);
    put(&moved, data + 8, header);
    put(&moved, " ", 1);
    put(&moved, data + 8 + header, size - 8 - header);
    write_whole("model.safetensors", moved.data, moved.size);
    fe_model *m = accept(directory);
    const fe_tensor *t = fe_model_tensor(m, "norm.weight");
    ck_assert_uint_eq((uintptr_t)t->data % 2, 0);
    ck_assert_uint_eq(t->offset % 2, 1);
    ck_assert_mem_eq(t->data, moved.data + t->offset, t->bytes);
    fe_close(m);
    free(moved.data);
    free(data);
}
END_TEST

START_TEST(harmless_tensors) {
    start_from("tiny-llama");
    /* An old rope table, and an lm_head that config.json ties to the embedding. */
    edit("config.json", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    fe_model *m = accept(directory);
    ck_assert_ptr_null(fe_model_tensor(m, "lm_head.weight"));
    fe_close(m);
}
END_TEST

START_TEST(text_part_of_a_multimodal_model) {
    start_from("tiny-gemma3");
    size_t size;
    char *config = read_whole(in_directory("config.json"), &size), outer[4096];
    snprintf(outer, sizeof outer,
             "{\"architectures\": [\"Gemma3ForConditionalGeneration\"], \"model_type\": \"gemma3\","
             "\"eos_token_id\": [1, 106], \"text_config\": %s}",
             config);
    write_text("config.json", outer);
    fe_model *m = accept(directory);
    expect_said("only the text part of Gemma3ForConditionalGeneration is compiled");
    ck_assert_int_eq(m->config.eos_count, 2);
    fe_close(m);
    free(config);
}
END_TEST

START_TEST(ids_beyond_the_vocabulary) {
    start_from("tiny-llama");
    write_text("generation_config.json", "{\"eos_token_id\": [2, 99999]}");
    fe_model *m = accept(directory);
    expect_said("end-of-sequence id 99999 is beyond the vocabulary of 384 and ignored");
    ck_assert_int_eq(m->config.eos_count, 1);
    fe_close(m);
}
END_TEST

/* ---- bad configurations ---- */

static const struct {
    const char *golden, *old, *new, *says;
} bad_configs[] = {
    {"tiny-llama", "\"LlamaForCausalLM\"", "\"MambaForCausalLM\"",
     "architecture \"MambaForCausalLM\" is not supported (supported: LlamaForCausalLM, "},
    {"tiny-llama", "\"hidden_size\"", "\"hidden_sizes\"", "\"hidden_size\" is missing"},
    {"tiny-llama", "\"hidden_size\": 64", "\"hidden_size\": \"64\"",
     "\"hidden_size\" is not an integer"},
    {"tiny-llama", "\"hidden_size\": 64", "\"hidden_size\": 1e18",
     "\"hidden_size\" is not an integer"},
    {"tiny-llama", "\"hidden_size\": 64", "\"hidden_size\": 0", "the hidden size is 0, expected 1"},
    {"tiny-llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000000",
     "the number of layers is 1000000000, expected 1 to 4096"},
    {"tiny-llama", "\"num_attention_heads\": 4", "\"num_attention_heads\": 0",
     "the number of heads is 0"},
    {"tiny-llama", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3",
     "4 heads are no multiple of 3 kv heads"},
    {"tiny-mistral", "\"head_dim\": 32", "\"head_dim\": 33", "rope turns 33 elements"},
    {"tiny-llama", "\"silu\"", "\"relu\"", "activation \"relu\" is not supported"},
    {"tiny-llama", "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": -1", "the rms epsilon is -1"},
    {"tiny-llama", "\"rope_theta\": 10000.0", "\"rope_theta\": 0", "the rope's theta is 0"},
    {"tiny-llama3", "\"rope_type\": \"llama3\"", "\"rope_type\": \"yarn\"",
     "rope scaling of type \"yarn\" is not supported (supported: default, linear, llama3)"},
    {"tiny-llama3", "\"low_freq_factor\"", "\"low_factor\"",
     "rope scaling llama3 needs \"low_freq_factor\", a number above 0"},
    {"tiny-llama3", "\"factor\": 8.0", "\"factor\": 0", "llama3 needs \"factor\""},
    {"tiny-mistral", "\"sliding_window\": 8", "\"sliding_window\": -8",
     "\"sliding_window\" is -8, expected 1 or above"},
    {"tiny-gemma3-softcap", "\"full_attention\"", "\"linear_attention\"",
     "layer 1 is of type \"linear_attention\""},
    {"tiny-gemma3-softcap", "\"use_bidirectional_attention\": false",
     "\"use_bidirectional_attention\": true", "bidirectional attention is not supported"},
    {"tiny-gemma3-softcap", "\"final_logit_softcapping\": 3.0", "\"final_logit_softcapping\": -3",
     "soft caps are 1.5 and -3"},
    {"tiny-llama", "\"hidden_act\"",
     "\"quantization_config\": {\"quant_method\": \"gptq\"}, \"hidden_act\"",
     "checkpoints quantized by method \"gptq\" are not supported"},
    {"tiny-qwen3-fp8", "\"fmt\": \"e4m3\"", "\"fmt\": \"e5m2\"",
     "quantization_config: fmt is \"e5m2\", expected \"e4m3\""},
    {"tiny-qwen3-fp8", "\"weight_block_size\": [", "\"weight_block_size\": [0,",
     "quantization_config: weight_block_size is no list of two sizes"},
    {"tiny-qwen3-fp8", "\"weight_block_size\": [", "\"weight_block_size\": [16, 8], \"was\": [",
     "layers.0.mlp.down_proj.weight: has [160, 288] codes and scales of shape [2, 3]"},
    {"tiny-qwen3-fp8", "\"weight_block_size\": [", "\"weight_block_size\": [128, 98], \"was\": [",
     "layers.0.mlp.down_proj.weight: has a scale for 98 k, expected a multiple of 32"},
    {"tiny-llama-fp8", "\"format\": \"float-quantized\"", "\"format\": \"pack-quantized\"",
     "format is \"pack-quantized\", expected \"float-quantized\""},
    {"tiny-llama-fp8", "\"strategy\": \"channel\"", "\"strategy\": \"tensor_group\"",
     "strategy \"tensor_group\" is not supported"},
    {"tiny-llama-fp8", "\"group_size\"", "\"symmetric\": false, \"group_size\"",
     "asymmetric weights of 8 bits, expected symmetric ones of 8"},
    {"tiny-llama-fp8", "\"group_size\"", "\"type\": \"int\", \"group_size\"",
     "type is \"int\", expected \"float\""},
    {"tiny-llama-fp8", "\"config_groups\"", "\"groups\"", "has no \"config_groups\" object"},
    {"tiny-llama", "\"hidden_act\"", "\"num_local_experts\": 8, \"hidden_act\"",
     "mixture of experts (\"num_local_experts\" is 8) is not supported"},
    {"tiny-llama", "\"eos_token_id\": 2", "\"eos_token_id\": \"two\"",
     "\"eos_token_id\" is not a token id or a list of them"},
    {"tiny-llama", "{", "[", "is not valid JSON near offset"},
};

START_TEST(bad_config) {
    start_from(bad_configs[_i].golden);
    edit("config.json", bad_configs[_i].old, bad_configs[_i].new);
    refuse(directory, bad_configs[_i].says);
}
END_TEST

START_TEST(lists_every_problem_of_a_config) {
    start_from("tiny-llama");
    edit("config.json", "\"silu\"", "\"relu\"");
    edit("config.json", "\"hidden_size\"", "\"hidden_sizes\"");
    edit("config.json", "\"hidden_sizes\"", "\"num_experts\": 4, \"hidden_sizes\"");
    refuse(directory, "activation \"relu\"");
    expect_said("\"hidden_size\" is missing");
    expect_said("mixture of experts");
}
END_TEST

/* ---- bad tensors ---- */

START_TEST(missing_unknown_and_misshapen_tensors) {
    start_from("tiny-llama");
    edit("model.safetensors", "model.layers.1.mlp.up_proj.weight",
         "model.layers.7.mlp.up_proj.weight");
    edit("model.safetensors", "\"model.norm.weight\"", "\"model.nrom.weight\"");
    edit("config.json", "\"intermediate_size\": 128", "\"intermediate_size\": 96");
    refuse(directory, "2 tensors are missing: norm.weight, layers.1.mlp.up_proj.weight");
    expect_said("2 tensors are not part of architecture llama as config.json describes it: "
                "model.layers.7.mlp.up_proj.weight, model.nrom.weight");
    expect_said("layers.1.mlp.down_proj: weight has shape [64, 128], config.json implies [64, 96] "
                "(model.layers.1.mlp.down_proj.weight in ");
    /* gate and down of both layers, up of the first */
    int shapes = 0;
    for (int i = 0; i < diag.count; i++)
        shapes += strstr(diag.messages[i].text, "has shape") != NULL;
    ck_assert_int_eq(shapes, 5);
}
END_TEST

START_TEST(unsupported_element_types_are_listed) {
    start_from("tiny-llama-tied");
    size_t size;
    char *data = read_whole(in_directory("model.safetensors"), &size);
    /* All of them become 16-bit integers. */
    char *at = data;
    int changed = 0;
    while ((at = memmem(at, (size_t)(data + size - at), "\"F16\"", 5)) && changed < 3)
        memcpy(at, "\"I16\"", 5), changed++;
    write_whole("model.safetensors", data, size);
    free(data);
    refuse(directory, "element type I16 is not supported; tensors that have it (3): ");
    expect_said("(supported: F32 F16 BF16 Q4_0");
    /* … beside what else is not there, */
    edit("config.json", "\"silu\"", "\"relu\"");
    edit("config.json", "\"hidden_size\"",
         "\"rope_scaling\": {\"rope_type\": \"yarn\"}, \"num_experts\": 4, \"hidden_size\"");
    refuse(directory, "element type I16 is not supported; tensors that have it (3): ");
    expect_said("activation \"relu\" is not supported");
    expect_said("rope scaling of type \"yarn\" is not supported");
    expect_said("mixture of experts");
    /* even of an architecture that is not. */
    edit("config.json", "LlamaForCausalLM", "FalconForCausalLM");
    refuse(directory, "element type I16 is not supported; tensors that have it (3): ");
    expect_said("architecture \"FalconForCausalLM\" is not supported");
}
END_TEST

/* Codes and scales that cannot be had as they are; the logits of good ones are
 * test_frontend_logits'. */
START_TEST(bad_fp8_numbers) {
    static const char scales[] =
        "model.layers.0.mlp.up_proj.weight_scale_inv\":{\"dtype\":\"BF16\",\"shape\":[3,2],"
        "\"data_offsets\":[";
    start_from("tiny-qwen3-fp8");
    fe_model *m = accept(directory);
    const fe_tensor *t = fe_model_tensor(m, "layers.0.mlp.up_proj.weight");
    ck_assert_int_eq(t->format, FE_FP8_E4M3);
    ck_assert_uint_eq(t->bytes, 288 * 160 / 32 * 36);
    uint64_t codes = t->offset, header = 0;
    fe_close(m);
    size_t size;
    char *data = read_whole(in_directory("model.safetensors"), &size);
    for (int i = 7; i >= 0; i--)
        header = header << 8 | (uint8_t)data[i];
    char *code = data + codes + 3 * 160 + 37, before = *code;
    *code = (char)0xff;
    write_whole("model.safetensors", data, size);
    refuse(directory, "layers.0.mlp.up_proj.weight: row 3 has a NaN at 37");
    *code = before;
    char *at = memmem(data, header, scales, sizeof scales - 1);
    ck_assert_ptr_nonnull(at);
    char *scale = data + 8 + header + strtoul(at + sizeof scales - 1, NULL, 10) + 2 * 3;
    memcpy(scale, "\x80\x7f", 2); /* of rows from 128 and k from 128 on: infinity */
    write_whole("model.safetensors", data, size);
    refuse(directory, "layers.0.mlp.up_proj.weight: row 128 has scale inf");
    free(data);
}
END_TEST

START_TEST(fp8_without_scales) {
    start_from("tiny-qwen3-fp8");
    edit("model.safetensors", "mlp.up_proj.weight_scale_inv", "mlp.up_proj.weight_scale_vni");
    refuse(directory, "model.layers.0.mlp.up_proj.weight_scale is in ");
    edit("config.json", "\"quantization_config\"", "\"quantization_options\"");
    refuse(directory, "element type F8_E4M3 is not supported");
}
END_TEST

START_TEST(scales_of_activations_are_not_used) {
    start_from("tiny-llama-fp8");
    fe_model *m = accept(directory);
    expect_said(
        "2 scales of activations are not used: model.layers.0.self_attn.k_proj.input_scale");
    ck_assert_ptr_null(fe_model_tensor(m, "layers.0.self_attn.k_proj.input_scale"));
    fe_close(m);
    edit("model.safetensors", "\"model.layers.0.self_attn.k_proj.input_scale\":",
         "\"layers.0.self_attn.k_proj.activation_scale\": ");
    fe_close(accept(directory));
    expect_said("2 scales of activations are not used: layers.0.self_attn.k_proj.activation_scale");
    /* A tied head's weight is not used, nor is its scale. */
    edit("config.json", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    edit("model.safetensors", "\"layers.0.self_attn.k_proj.activation_scale\": ",
         "\"lm_head.weight_scale\":                       ");
    fe_close(accept(directory));
    expect_said("1 scales of activations are not used: model.layers.1");
}
END_TEST

START_TEST(truncated_tensors) {
    start_from("tiny-llama");
    size_t size;
    char *data = read_whole(in_directory("model.safetensors"), &size);
    write_whole("model.safetensors", data, size - 1000);
    free(data);
    refuse(directory, "(truncated?)");
    expect_said("model.safetensors: tensor ");
}
END_TEST

/* ---- bad directories ---- */

START_TEST(nothing_there) {
    refuse(directory, "config.json: cannot open");
    refuse(in_directory("absent"), "cannot open: No such file");
    refuse("/dev/null", "is not a regular file");
    start_from("tiny-llama");
    refuse(in_directory("model.safetensors"), "name the directory that also holds config.json");
    unlink(in_directory("model.safetensors"));
    refuse(directory, "has no model.safetensors and no model.safetensors.index.json");
    write_text("pytorch_model.bin", "");
    refuse(directory, "save it as safetensors first");
    write_text("empty.gguf", "");
    refuse(in_directory("empty.gguf"), "the header needs 4 bytes at offset 0");
}
END_TEST

START_TEST(index_tricks) {
    static const char *const names[] = {
        "../model.safetensors", "/etc/passwd", "a/b.safetensors",      "..\\\\b.safetensors",
        ".safetensors",         "model.bin",   "a\\u0007.safetensors", ""};
    start_from("tiny-llama");
    unlink(in_directory("model.safetensors"));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char index[512];
        snprintf(index, sizeof index, "{\"weight_map\": {\"model.norm.weight\": \"%s\"}}",
                 names[i]);
        write_text("model.safetensors.index.json", index);
        refuse(directory, "weight_map sends tensor model.norm.weight to");
    }
    write_text("model.safetensors.index.json", "{\"weight_map\": {\"a\": 3}}");
    refuse(directory, "weight_map sends tensor a to \"no string\"");
    write_text("model.safetensors.index.json", "{\"weight_map\": []}");
    refuse(directory, "has no \"weight_map\" object");
    write_text("model.safetensors.index.json", "{\"weight_map\": {\"a\": \"b.safetensors\"}}");
    refuse(directory, "b.safetensors: cannot open");
}
END_TEST

START_TEST(index_that_promises_too_much) {
    start_from("tiny-llama3");
    edit("model.safetensors.index.json", "\"weight_map\": {",
         "\"weight_map\": {\"model.layers.9.mlp.up_proj.weight\": "
         "\"model-00001-of-00002.safetensors\",");
    refuse(directory, "1 tensors are in none of its files: model.layers.9.mlp.up_proj.weight");
}
END_TEST

/* ---- bad GGUF models ---- */

START_TEST(bad_gguf_models) {
    size_t size;
    char *data = read_whole(GOLDEN "/gguf/llama-f16.gguf", &size);
    write_whole("m.gguf", data, size);
    static const struct {
        const char *old, *new, *says;
    } edits[] = {
        {"llama.block_count", "llama.block_kount", "metadata llama.block_count is missing"},
        {"blk.1.ffn_up.weight", "blk.5.ffn_up.weight",
         "1 tensors are missing: layers.1.mlp.up_proj.weight"},
        {"blk.1.ffn_up.weight", "blk.1.ffn_Up.weight",
         "1 tensors are not part of architecture llama as the metadata describes it: "
         "blk.1.ffn_Up.weight"},
        {"llama.rope.freq_base", "llama.rope.freq_bass",
         "metadata that modelcc does not know is ignored: llama.rope.freq_bass"},
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        write_whole("m.gguf", data, size);
        edit("m.gguf", edits[i].old, edits[i].new);
        if (strstr(edits[i].says, "ignored")) {
            fe_close(accept(in_directory("m.gguf")));
            expect_said(edits[i].says);
        } else {
            refuse(in_directory("m.gguf"), edits[i].says);
        }
    }
    free(data);
}
END_TEST

START_TEST(gguf_without_what_it_needs) {
    gguf_bytes file = {0};
    put_header(&file, 3, 0, 0);
    write_whole("m.gguf", file.data, file.size);
    refuse(in_directory("m.gguf"), "metadata general.architecture is missing");
    file.size = 0;
    put_header(&file, 3, 0, 1);
    put_text(&file, "general.architecture", "falcon\x1b[31m");
    write_whole("m.gguf", file.data, file.size);
    refuse(
        in_directory("m.gguf"),
        "architecture \"falcon?[31m\" is not supported (supported: llama, qwen2, qwen3, gemma3)");
    file.size = 0;
    put_header(&file, 3, 0, 5);
    put_text(&file, "general.architecture", "llama");
    put_u32(&file, "llama.expert_count", 8);
    put_u32(&file, "llama.embedding_length", 64);
    put_text(&file, "llama.rope.scaling.type", "yarn");
    put_u32(&file, "split.count", 1);
    write_whole("m.gguf", file.data, file.size);
    refuse(in_directory("m.gguf"), "metadata llama.block_count is missing");
    expect_said("metadata llama.attention.head_count is missing");
    expect_said("metadata llama.attention.layer_norm_rms_epsilon is missing");
    expect_said("rope scaling of type \"yarn\" is not supported");
    file.size = 0;
    put_header(&file, 3, 0, 2);
    put_text(&file, "general.architecture", "llama");
    put_u32(&file, "split.count", 3);
    write_whole("m.gguf", file.data, file.size);
    refuse(in_directory("m.gguf"), "is one of 3 parts; join them first");
    file.size = 0;
    put_header(&file, 3, 1, 1);
    put_text(&file, "general.architecture", "falcon");
    put_string(&file, "token_embd.weight");
    put_int(&file, 1, 4); /* rank, one dimension, the type IQ2_XS, the offset */
    put_int(&file, 256, 8);
    put_int(&file, 17, 4);
    put_int(&file, 0, 8);
    write_whole("m.gguf", file.data, file.size);
    refuse(in_directory("m.gguf"), "architecture \"falcon\" is not supported");
    expect_said("tensor type IQ2_XS is not supported; tensors that have it (1): token_embd.weight");
    free(file.data);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("frontend");
    TCase *c = tcase_create("frontend");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, reads_everything_from_a_directory);
    tcase_add_test(c, reads_everything_from_gguf);
    tcase_add_test(c, ropes_of_version_5);
    tcase_add_test(c, windows_from_some_layer_on);
    tcase_add_test(c, biases_that_config_json_asks_for);
    tcase_add_test(c, printable_text);
    tcase_add_test(c, chat_template_file_comes_first);
    tcase_add_test(c, data_that_is_not_aligned);
    tcase_add_test(c, harmless_tensors);
    tcase_add_test(c, text_part_of_a_multimodal_model);
    tcase_add_test(c, ids_beyond_the_vocabulary);
    tcase_add_loop_test(c, bad_config, 0, sizeof bad_configs / sizeof *bad_configs);
    tcase_add_test(c, lists_every_problem_of_a_config);
    tcase_add_test(c, missing_unknown_and_misshapen_tensors);
    tcase_add_test(c, unsupported_element_types_are_listed);
    tcase_add_test(c, bad_fp8_numbers);
    tcase_add_test(c, fp8_without_scales);
    tcase_add_test(c, scales_of_activations_are_not_used);
    tcase_add_test(c, truncated_tensors);
    tcase_add_test(c, nothing_there);
    tcase_add_test(c, index_tricks);
    tcase_add_test(c, index_that_promises_too_much);
    tcase_add_test(c, bad_gguf_models);
    tcase_add_test(c, gguf_without_what_it_needs);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)
