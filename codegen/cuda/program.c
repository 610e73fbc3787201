/* Row programs as CUDA C. */
#include "codegen/cuda/internal.h"

const char *cg_cuda_program(cg_cuda_emitter *em, int index) {
    cg_cuda_unsupported(em, "program %d: row programs are not supported yet", index);
    return NULL;
}

bool cg_cuda_whole_rows(const cg_program *program) {
    for (int i = 0; i < program->n_nodes; i++)
        if (program->nodes[i].kind == CG_REDUCE || program->nodes[i].kind == CG_ROTATE)
            return true;
    return false;
}

int64_t cg_cuda_tmp_floats(const cg_kernel *kernel, const cg_program *program) {
    (void)kernel;
    (void)program;
    return 0;
}
