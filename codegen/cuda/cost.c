/* What a launch costs, roughly: which of several functions suits a number of rows. One table serves
 * all architectures, so the GPU is a middling large one. */
#include "codegen/cuda/cost.h"

enum {
    SMS = 120,
    SCHEDULERS = 4,
    SM_WARPS = 48,
    SM_SHARED = 160 * 1024,
    SM_REGISTERS = 65536,
    LAUNCH_CYCLES = 3000,
    L2_BYTES_A_CYCLE = 3000,
    DRAM_BYTES_A_CYCLE = 1600
};

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static double larger(double a, double b) {
    return a > b ? a : b;
}

double cg_cuda_cycles(const cg_cuda_cost *c) {
    int64_t resident = least(SM_WARPS / c->warps, SM_SHARED / (c->shared_bytes + 1024));
    resident = least(resident, SM_REGISTERS / (c->warps * 32 * c->registers));
    resident = resident > 0 ? resident : 1;
    /* the busiest SM */
    int64_t blocks = (c->blocks + SMS - 1) / SMS, waves = (blocks + resident - 1) / resident;
    /* A scheduler issues no more than three of four cycles. */
    double issue = (double)blocks * c->instructions / SCHEDULERS / 0.75;
    double cycles = larger(issue, (double)waves * c->latency);
    cycles = larger(cycles, (double)c->blocks * c->block_bytes / L2_BYTES_A_CYCLE);
    cycles = larger(cycles, c->dram_bytes / DRAM_BYTES_A_CYCLE);
    return c->launches * LAUNCH_CYCLES + cycles;
}
