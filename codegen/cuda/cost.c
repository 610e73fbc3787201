/* What a launch costs, roughly: which of several functions suits a number of rows. */
#include "codegen/cuda/cost.h"

#include "codegen/cuda/cuda.h"

enum {
    SCHEDULERS = 4,
    LAUNCH_CYCLES = 3000,
    DRAM_LATENCY = 700,
    L2_BYTES_AN_SM = 25 /* a cycle */
};

/* Where the architecture is open. */
static const cg_cuda_target middle = {.sm_registers = 65536,
                                      .sm_shared = 160 * 1024,
                                      .sm_threads = 1536,
                                      .sm_blocks = 16,
                                      .sms = 120,
                                      .dram_bytes_a_cycle = 1600};

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static double larger(double a, double b) {
    return a > b ? a : b;
}

double cg_cuda_cycles(const cg_cuda_cost *c, const cg_cuda_target *target) {
    const cg_cuda_target *t = target ? target : &middle;
    int64_t resident =
        least(t->sm_threads / 32 / c->warps, t->sm_shared / (c->shared_bytes + 1024));
    resident = least(resident, t->sm_registers / (c->warps * 32 * c->registers));
    resident = resident > 0 ? resident : 1;
    /* the busiest SM */
    int64_t blocks = (c->blocks + t->sms - 1) / t->sms, waves = (blocks + resident - 1) / resident;
    /* A scheduler issues no more than three of four cycles. */
    double issue = (double)blocks * c->instructions / SCHEDULERS / 0.75;
    double cycles = larger(issue, (double)waves * c->latency);
    cycles = larger(cycles, (double)c->blocks * c->block_bytes / (L2_BYTES_AN_SM * t->sms));
    cycles = larger(cycles, c->dram_bytes / t->dram_bytes_a_cycle);
    /* What is asked for comes a latency later, whatever the bandwidth. */
    double flight = c->flight_bytes * (double)least(resident, blocks);
    if (flight > 0)
        cycles = larger(cycles, (double)blocks * c->block_bytes / flight * DRAM_LATENCY);
    return c->launches * LAUNCH_CYCLES + cycles;
}
