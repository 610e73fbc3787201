/* The processor levels of targets.def. */
#include "codegen/cpu/cpu.h"
#include "runtime/artifact.h"

#include <string.h>

static const cg_cpu_target targets[] = {
#define TARGET(name_, suffix_, cpu_, features_, bits_, avx512_, vnni_)                             \
    {.name = name_,                                                                                \
     .suffix = suffix_,                                                                            \
     .llvm_cpu = cpu_,                                                                             \
     .features = features_,                                                                        \
     .cpu_features = bits_,                                                                        \
     .avx512 = avx512_,                                                                            \
     .vnni = vnni_},
#include "codegen/cpu/targets.def"
#undef TARGET
};

enum { N_TARGETS = sizeof targets / sizeof targets[0] };

const cg_cpu_target *cg_cpu_targets(int *count) {
    *count = N_TARGETS;
    return targets;
}

/* MCC_CPU_ bits of the machine that this runs on. */
static uint64_t machine_features(void) {
    uint64_t bits = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v3"))
        bits |= MCC_CPU_X86_64_V3;
    if (__builtin_cpu_supports("x86-64-v4"))
        bits |= MCC_CPU_X86_64_V4;
    if (__builtin_cpu_supports("avx512vnni"))
        bits |= MCC_CPU_AVX512_VNNI;
#endif
    return bits;
}

const cg_cpu_target *cg_cpu_target_find(const char *name) {
    if (strcmp(name, "cpu") == 0) {
        uint64_t have = machine_features();
        for (int i = N_TARGETS - 1; i >= 0; i--)
            if ((targets[i].cpu_features & ~have) == 0)
                return &targets[i];
        return NULL;
    }
    for (int i = 0; i < N_TARGETS; i++)
        if (strcmp(targets[i].name, name) == 0)
            return &targets[i];
    return NULL;
}

const ir_target *cg_cpu_pass_target(void) {
    static const ir_target target = {
        .name = "cpu",
        .tile_n = 16,
        .group_k = 32,
        .page_tokens = 16,
        .buffer_align = 64,
        .matmul_epilogue = true,
        .matmul_lockstep = true,
        .matmul_group_axis = 32,
        .matmul_prologue = true,
        /* Threads that share a matmul compute its prologue each, where they share the rows of a
         * rows kernel, and a launch costs little here (for one row even nothing: whoever ends the
         * launch before does it on the way). SmolLM2, CPU time of prefill with 1 and 2 threads:
         * -1 % and +3 %; of decode: -1 % and +-1 %. */
        .matmul_prologue_pays = false,
        .attention_epilogue = true,
        .rows_chain = true,
    };
    return &target;
}

const cg_backend cg_cpu_backend = {.tiling = cg_cpu_tiling,
                                   .scratch_bytes = cg_cpu_scratch_bytes,
                                   .shared_bytes = cg_cpu_shared_bytes,
                                   .packed_bytes = cg_cpu_packed_bytes,
                                   .packed_tiles = cg_cpu_packed_tiles,
                                   .pack_tiles = cg_cpu_pack_tiles};
