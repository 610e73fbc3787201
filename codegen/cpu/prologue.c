/* A matmul's prologue: rows of x are computed into this thread's scratch, then multiplied from
 * there as if they were an argument's.
 *
 *   scratch    note | the programs' scratch, unpacked tiles | rows of x
 *
 * A launch comes to a thread in several calls, each for some of the outputs and all rows. The note
 * says which block of rows an earlier call of the launch has left behind; the pool clears it when a
 * launch begins. So a thread computes the rows once, but each thread computes all of them: that
 * costs more than a rows kernel, which shares them, and saves what the pool needs for a launch. */
#include "codegen/cpu/matmul.h"

enum {
    NOTE_BYTES = 64,
    MOST_ROWS = 512, /* a common limit of the tokens in a step */
    MOST_BYTES = 4 << 20,
};

static int64_t row_bytes(const cg_matmul *m) {
    return m->x_type.encoding ? ir_encoding_row_bytes(m->x_type.encoding, m->k) : 4 * m->k;
}

int64_t cg_cpu_prologue_rows(const cg_kernel *kernel) {
    int64_t rows = MOST_BYTES / row_bytes(&kernel->matmul);
    rows = rows > MOST_ROWS ? MOST_ROWS : rows;
    rows -= rows % CG_CPU_MAX_BLOCK_ROWS;
    return rows ? rows : CG_CPU_MAX_BLOCK_ROWS;
}

static int64_t rows_at(const cg_kernel *kernel, int64_t program_bytes) {
    int64_t own = cg_cpu_program_scratch(kernel->matmul.prologue, kernel->matmul.k);
    return NOTE_BYTES + (own > program_bytes ? own : program_bytes);
}

int64_t cg_cpu_prologue_scratch(const cg_kernel *kernel, int64_t program_bytes) {
    int64_t rows = cg_cpu_prologue_rows(kernel) * row_bytes(&kernel->matmul);
    return rows_at(kernel, program_bytes) + (rows + 63) / 64 * 64;
}

bool cg_cpu_check_prologue(cg_cpu_emitter *em) {
    const cg_matmul *m = &em->kernel->matmul;
    const cg_program *p = m->prologue;
    cg_store_kind kind = m->x_type.encoding ? CG_STORE_A8 : CG_STORE;
    if (!m->x_type.encoding && m->x_type.dtype != IR_F32)
        return cg_cpu_unsupported(em, "a prologue that makes %s", ir_dtype_name(m->x_type.dtype));
    if (p->heads != 1 || p->width != m->k || p->n_stores != 1)
        return cg_cpu_unsupported(em, "a prologue of %lld heads of %lld columns with %d results",
                                  (long long)p->heads, (long long)p->width, p->n_stores);
    const cg_access *access = &p->stores[0].access;
    if (p->stores[0].kind != kind || access->arg != CG_ARG_OPERAND ||
        access->row_map != CG_ROW_SELF || access->row_stride != m->k || access->offset ||
        access->column_stride != 1)
        return cg_cpu_unsupported(em, "a prologue whose result is not a row of x");
    for (int i = 0; i < p->n_nodes; i++)
        if (p->nodes[i].kind == CG_INPUT)
            return cg_cpu_unsupported(em, "a prologue that reads the anchor's output");
    return cg_cpu_check_program(em, p, p->width);
}

void cg_cpu_emit_prologue(cg_cpu_emitter *em, int64_t program_bytes, LLVMValueRef begin,
                          LLVMValueRef end) {
    const cg_program *p = em->kernel->matmul.prologue;
    em->operand = cg_cpu_offset_const(em, em->scratch, rows_at(em->kernel, program_bytes));
    em->operand_row = begin;
    /* 0: nothing; else the first row of the block, plus 1. */
    LLVMValueRef held = cg_cpu_load(em, em->i64, em->scratch, 8);
    LLVMValueRef wanted = cg_cpu_add_const(em, begin, 1);
    LLVMValueRef other = LLVMBuildICmp(em->builder, LLVMIntNE, held, wanted, "");
    cg_cpu_if compute = cg_cpu_begin_if(em, other);
    cg_cpu_loop rows = cg_cpu_for(em, begin, end, 1);
    cg_cpu_chunk chunk = {.row = rows.index,
                          .head = cg_cpu_i64(em, 0),
                          .first_col = cg_cpu_i64(em, 0),
                          .n_cols = p->width,
                          .scratch = cg_cpu_prologue_programs(em)};
    cg_cpu_emit_program(em, p, &chunk);
    cg_cpu_end_for(em, &rows);
    cg_cpu_store(em, wanted, em->scratch, 8);
    cg_cpu_end_if(em, &compute);
}

LLVMValueRef cg_cpu_prologue_programs(cg_cpu_emitter *em) {
    return cg_cpu_offset_const(em, em->scratch, NOTE_BYTES);
}
