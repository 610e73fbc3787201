/* Builds the graph of a decoder-only transformer: the blocks that the rows of archs.def choose
 * from.
 *
 *   hidden = embed_tokens[token_ids] (* scale)
 *   layer:   hidden += [post norm] o_proj(attention(rope(q), rope(k), v)) of norm(hidden)
 *            hidden += [post norm] down_proj(act(gate_proj) * up_proj)    of norm(hidden)
 *   logits = lm_head(norm(hidden[output_rows]))       embeddings: without lm_head
 *
 * Ops are named after the weights they use ("layers.3.mlp.down_proj"), as Hugging Face names them;
 * those without weights after their place ("layers.3.self_attn.rope_q"). Both formats give the same
 * names, so plans and diagnostics do not depend on where a model came from. */
#include <inttypes.h>
#include <string.h>

#include "compiler/frontend/frontend.h"

typedef struct builder {
    const fe_model *model;
    const fe_config *config;
    fe_task task;
    ir_module *module;
    ir_graph *graph;
    ir_arena *names; /* the module's arena */
    ir_diag *diag;
    ir_value *rope[FE_ROPES]; /* cosine and sine tables; NULL where no layer uses one */
} builder;

/* ---- small pieces ---- */

/* "layers.3." + "mlp.down_proj". */
static const char *in_layer(builder *b, int64_t layer, const char *name) {
    return ir_arena_printf(b->names, "layers.%" PRId64 ".%s", layer, name);
}

static ir_value *build(builder *b, ir_opcode code, const char *name, const ir_type *type,
                       ir_value *const *operands, int n_operands, const ir_attr *attrs,
                       int n_attrs) {
    return ir_build(b->graph, b->diag, code, name, type, n_operands, operands, n_attrs, attrs);
}

static ir_value *input(builder *b, const char *name, ir_dim dim) {
    ir_type type = ir_tensor(IR_I32, 1, &dim);
    return build(b, IR_OP_INPUT, NULL, &type, NULL, 0, &IR_STRING("name", name), 1);
}

static ir_value *to_f32(builder *b, ir_value *a, const char *name) {
    if (!a || a->type.dtype == IR_F32)
        return a;
    ir_type type = ir_tensor(IR_F32, a->type.rank, a->type.dims);
    return build(b, IR_OP_CAST, name, &type, &a, 1, NULL, 0);
}

/* The weight "name.kind" ("…q_proj" + "bias"), added to the module's table at its first use. */
static ir_value *weight(builder *b, const char *name, const char *kind) {
    const char *full = ir_arena_printf(b->names, "%s.%s", name, kind);
    if (!ir_module_weight(b->module, full)) {
        const fe_tensor *t = fe_model_tensor(b->model, full);
        if (!t) {
            ir_internal_error(b->diag, full, "the decoder uses a weight that weights.def lacks");
            return NULL;
        }
        const fe_format_info *format = &fe_formats[t->format];
        ir_dim dims[2] = {ir_dim_const(t->rows), ir_dim_const(t->cols)};
        const ir_dim *from = t->rank == 2 ? dims : dims + 1;
        ir_type type = format->plain
                           ? ir_tensor(format->dtype, t->rank, from)
                           : ir_quantized(ir_encoding_get(format->encoding), t->rank, from);
        ir_module_add_weight(b->module, full, &type, t->data, (int64_t)t->bytes);
    }
    return ir_weight_value(b->graph, b->diag, full);
}

static ir_value *norm(builder *b, ir_value *x, const char *name) {
    ir_value *w = to_f32(b, weight(b, name, "weight"), NULL);
    if (b->config->norm_plus_one)
        w = ir_binary(b->graph, b->diag, IR_OP_ADD, NULL, w,
                      ir_constant_splat(b->graph, b->diag, 1));
    ir_value *operands[] = {x, w};
    return build(b, IR_OP_RMS_NORM, name, NULL, operands, 2, &IR_FLOAT("eps", b->config->rms_eps),
                 1);
}

/* x[…, K] times the transpose of weight[N, K], plus a bias[N] if the model has one. */
static ir_value *linear(builder *b, ir_value *x, const char *name, bool bias) {
    ir_value *operands[] = {x, weight(b, name, "weight")};
    ir_value *y = build(b, IR_OP_MATMUL, name, NULL, operands, 2, &IR_INT("transpose_b", 1), 1);
    if (!bias)
        return y;
    return ir_binary(b->graph, b->diag, IR_OP_ADD, ir_arena_printf(b->names, "%s.bias", name), y,
                     to_f32(b, weight(b, name, "bias"), NULL));
}

/* [T, heads * head_dim] -> [T, heads, head_dim] */
static ir_value *split_heads(builder *b, ir_value *x, const char *name, int64_t heads) {
    ir_dim dims[] = {IR_DIM_T, ir_dim_const(heads), ir_dim_const(b->config->head_dim)};
    return ir_reshape(b->graph, b->diag, name, x, 3, dims);
}

/* ---- rope ---- */

static const char *rope_style(const fe_config *c) {
    return c->rope_interleaved ? "interleaved" : "half";
}

static ir_value *rope_table(builder *b, ir_value *positions, int which) {
    const fe_config *c = b->config;
    const fe_rope *rope = &c->rope[which];
    const char *name = which == FE_ROPE_LOCAL ? "rope_table_local" : "rope_table";
    ir_value *operands[2] = {positions};
    int n = 1;
    if (rope->factors) {
        int64_t pairs = c->rope_dims / 2;
        ir_dim dim = ir_dim_const(pairs);
        ir_type type = ir_tensor(IR_F32, 1, &dim);
        operands[n++] = build(b, IR_OP_CONSTANT, NULL, &type, NULL, 0,
                              &IR_FLOAT_LIST("values", rope->factors, (int)pairs), 1);
    }
    ir_attr attrs[] = {IR_FLOAT("theta", rope->theta), IR_INT("dims", c->rope_dims),
                       IR_INT("width", c->head_dim), IR_STRING("style", rope_style(c)),
                       IR_FLOAT("scale", rope->scale)};
    return build(b, IR_OP_ROPE_TABLE, name, NULL, operands, n, attrs, 5);
}

static void rope_tables(builder *b) {
    bool needed[FE_ROPES] = {false};
    for (int64_t i = 0; i < b->config->layers; i++)
        needed[b->config->layer[i].rope] = true;
    ir_value *positions = input(b, "positions", IR_DIM_T);
    for (int i = 0; i < FE_ROPES; i++)
        if (needed[i])
            b->rope[i] = rope_table(b, positions, i);
}

static ir_value *rope(builder *b, ir_value *x, const char *name, int which) {
    ir_value *operands[] = {x, b->rope[which]};
    ir_attr attrs[] = {IR_INT("dims", b->config->rope_dims),
                       IR_STRING("style", rope_style(b->config))};
    return build(b, IR_OP_ROPE, name, NULL, operands, 2, attrs, 2);
}

/* ---- blocks ---- */

static ir_value *attention(builder *b, ir_value *x, int64_t i) {
    const fe_config *c = b->config;
    const fe_layer *layer = &c->layer[i];
    bool qk_norm = b->model->arch->flags & FE_QK_NORM;
    ir_value *q = linear(b, x, in_layer(b, i, "self_attn.q_proj"), c->qkv_bias);
    ir_value *k = linear(b, x, in_layer(b, i, "self_attn.k_proj"), c->qkv_bias);
    ir_value *v = linear(b, x, in_layer(b, i, "self_attn.v_proj"), c->qkv_bias);
    q = split_heads(b, q, in_layer(b, i, "self_attn.q_heads"), c->heads);
    k = split_heads(b, k, in_layer(b, i, "self_attn.k_heads"), c->kv_heads);
    v = split_heads(b, v, in_layer(b, i, "self_attn.v_heads"), c->kv_heads);
    if (qk_norm) {
        q = norm(b, q, in_layer(b, i, "self_attn.q_norm"));
        k = norm(b, k, in_layer(b, i, "self_attn.k_norm"));
    }
    q = rope(b, q, in_layer(b, i, "self_attn.rope_q"), layer->rope);
    k = rope(b, k, in_layer(b, i, "self_attn.rope_k"), layer->rope);
    ir_value *operands[] = {q, k, v};
    ir_attr attrs[3] = {IR_FLOAT("scale", c->attention_scale)};
    int n = 1;
    if (layer->window)
        attrs[n++] = IR_INT("window", layer->window);
    if (c->attention_softcap > 0)
        attrs[n++] = IR_FLOAT("softcap", c->attention_softcap);
    ir_value *y = build(b, IR_OP_ATTENTION, in_layer(b, i, "self_attn.attention"), NULL, operands,
                        3, attrs, n);
    ir_dim dims[] = {IR_DIM_T, ir_dim_const(c->heads * c->head_dim)};
    y = ir_reshape(b->graph, b->diag, in_layer(b, i, "self_attn.merge_heads"), y, 2, dims);
    return linear(b, y, in_layer(b, i, "self_attn.o_proj"), c->o_bias);
}

static ir_value *feed_forward(builder *b, ir_value *x, int64_t i) {
    static const ir_opcode ops[] = {
        [FE_SILU] = IR_OP_SILU, [FE_GELU] = IR_OP_GELU, [FE_GELU_TANH] = IR_OP_GELU_TANH};
    bool bias = b->config->mlp_bias;
    ir_value *gate = linear(b, x, in_layer(b, i, "mlp.gate_proj"), bias);
    ir_value *up = linear(b, x, in_layer(b, i, "mlp.up_proj"), bias);
    gate = ir_unary(b->graph, b->diag, ops[b->config->activation], in_layer(b, i, "mlp.act"), gate);
    ir_value *y = ir_binary(b->graph, b->diag, IR_OP_MUL, in_layer(b, i, "mlp.mul"), gate, up);
    return linear(b, y, in_layer(b, i, "mlp.down_proj"), bias);
}

static ir_value *decoder_layer(builder *b, ir_value *hidden, int64_t i) {
    bool sandwich = b->model->arch->flags & FE_SANDWICH_NORMS;
    ir_value *y = attention(b, norm(b, hidden, in_layer(b, i, "input_layernorm")), i);
    if (sandwich)
        y = norm(b, y, in_layer(b, i, "post_attention_layernorm"));
    hidden =
        ir_binary(b->graph, b->diag, IR_OP_ADD, in_layer(b, i, "self_attn.residual"), hidden, y);
    const char *before = sandwich ? "pre_feedforward_layernorm" : "post_attention_layernorm";
    y = feed_forward(b, norm(b, hidden, in_layer(b, i, before)), i);
    if (sandwich)
        y = norm(b, y, in_layer(b, i, "post_feedforward_layernorm"));
    return ir_binary(b->graph, b->diag, IR_OP_ADD, in_layer(b, i, "mlp.residual"), hidden, y);
}

static ir_value *embed(builder *b) {
    ir_value *operands[] = {weight(b, "embed_tokens", "weight"), input(b, "token_ids", IR_DIM_T)};
    ir_value *hidden = build(b, IR_OP_GATHER, "embed_tokens", NULL, operands, 2, NULL, 0);
    hidden = to_f32(b, hidden, "embed_tokens.cast");
    if (b->config->embedding_scale == 1)
        return hidden;
    return ir_binary(b->graph, b->diag, IR_OP_MUL, "embed_tokens.scale", hidden,
                     ir_constant_splat(b->graph, b->diag, b->config->embedding_scale));
}

/* Only the rows asked for: the final norm and lm_head see R rows, not T. */
static ir_value *head(builder *b, ir_value *hidden) {
    ir_value *operands[] = {hidden, input(b, "output_rows", IR_DIM_R)};
    hidden = build(b, IR_OP_GATHER, "output_rows", NULL, operands, 2, NULL, 0);
    hidden = norm(b, hidden, "norm");
    if (b->task != FE_LOGITS)
        return hidden;
    ir_value *table = weight(b, b->config->tied ? "embed_tokens" : "lm_head", "weight");
    ir_value *factors[] = {hidden, table};
    ir_value *logits =
        build(b, IR_OP_MATMUL, "lm_head", NULL, factors, 2, &IR_INT("transpose_b", 1), 1);
    if (b->config->final_softcap > 0)
        logits = build(b, IR_OP_SOFTCAP, "lm_head.softcap", NULL, &logits, 1,
                       &IR_FLOAT("cap", b->config->final_softcap), 1);
    return logits;
}

static bool build_graph(builder *b) {
    ir_value *hidden = embed(b);
    rope_tables(b);
    for (int64_t i = 0; i < b->config->layers && hidden; i++)
        hidden = decoder_layer(b, hidden, i);
    static const char *const names[] = {"logits", "embedding_last", "embedding_mean"};
    ir_value *rows = head(b, hidden);
    ir_op_spec output = {.code = IR_OP_OUTPUT,
                         .operands = &rows,
                         .n_operands = 1,
                         .attrs = &IR_STRING("name", names[b->task]),
                         .n_attrs = 1};
    return rows && ir_op_create(b->graph, NULL, &output, b->diag);
}

ir_module *fe_build(const fe_model *model, fe_task task, ir_diag *diag) {
    ir_module *module = ir_module_create(model->name, model->arch->name);
    if (!module) {
        ir_error(diag, model->path, "out of memory");
        return NULL;
    }
    builder b = {.model = model,
                 .config = &model->config,
                 .task = task,
                 .module = module,
                 .graph = module->graph,
                 .names = module->arena,
                 .diag = diag};
    if (build_graph(&b))
        return module;
    ir_module_destroy(module);
    return NULL;
}
