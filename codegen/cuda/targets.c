/* The architectures of targets.def, and what fits an SM of theirs. */
#include "codegen/cuda/cuda.h"

#include <string.h>

static const cg_cuda_target targets[] = {
#define TARGET(name_, arch_, specific_, registers_, shared_, block_, threads_, blocks_, sms_,      \
               dram_)                                                                              \
    {.name = name_,                                                                                \
     .arch_name = &name_[sizeof "cuda:" - 1],                                                      \
     .arch = arch_,                                                                                \
     .specific = specific_,                                                                        \
     .sm_registers = registers_,                                                                   \
     .sm_shared = shared_ * 1024,                                                                  \
     .block_shared = block_ * 1024,                                                                \
     .sm_threads = threads_,                                                                       \
     .sm_blocks = blocks_,                                                                         \
     .sms = sms_,                                                                                  \
     .dram_bytes_a_cycle = dram_},
#include "codegen/cuda/targets.def"
#undef TARGET
};

const cg_cuda_target *cg_cuda_targets(int *count) {
    *count = sizeof targets / sizeof targets[0];
    return targets;
}

const cg_cuda_target *cg_cuda_target_find(const char *name) {
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (strcmp(targets[i].name, name) == 0)
            return &targets[i];
    return NULL;
}

/* Tiles, groups and pages as on the CPU: one packing and one page layout serve both. */
const ir_target *cg_cuda_pass_target(void) {
    static const ir_target target = {
        .name = "cuda",
        .tile_n = 16,
        .group_k = 32,
        .page_tokens = 16,
        .buffer_align = 64,
        .matmul_epilogue = true,
        .matmul_lockstep = true,
        .matmul_group_axis = 32,
        .matmul_prologue = true,
        .matmul_prologue_pays = true, /* a launch costs more than what is computed twice */
        .matmul_heads = true,
        .attention_epilogue = true,
        .rows_chain = true,
    };
    return &target;
}

static uint32_t least(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

/* Registers are given to warps in pieces of 256, shared memory to blocks in pieces of 128 bytes,
 * and 1 KB a block is the system's (CUDA occupancy calculator). */
uint32_t cg_cuda_occupancy(const cg_cuda_target *target, uint32_t threads, uint32_t registers,
                           uint32_t shared_bytes) {
    if (threads == 0 || shared_bytes > target->block_shared)
        return 0;
    uint32_t warps = (threads + 31) / 32;
    uint32_t warp_registers = ((registers ? registers : 1) * 32 + 255) / 256 * 256;
    uint32_t block_shared = (shared_bytes + 1024 + 127) / 128 * 128;
    uint32_t blocks = least(target->sm_blocks, target->sm_threads / 32 / warps);
    /* Four schedulers have a quarter of the registers each, and a warp's must lie in one. */
    blocks = least(blocks, target->sm_registers / 4 / warp_registers * 4 / warps);
    return least(blocks, target->sm_shared / block_shared);
}
