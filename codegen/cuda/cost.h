/* A model of what a launch costs, for choosing among functions that compute the same. */
#ifndef MCC_CODEGEN_CUDA_COST_H
#define MCC_CODEGEN_CUDA_COST_H

#include <stdint.h>

struct cg_cuda_target;

typedef struct cg_cuda_cost {
    int64_t blocks;
    int launches, warps, registers; /* of a block; of a thread */
    int64_t shared_bytes;           /* of a block */
    double instructions;            /* of all warps of a block */
    double latency;                 /* cycles that a block takes with an SM to itself */
    double block_bytes, dram_bytes; /* that a block reads; that the launch reads at least */
    double flight_bytes;            /* that a block has asked for at a time */
} cg_cuda_cost;

/* Predicted time in cycles on an architecture, or NULL: on a GPU in the middle. Only comparisons
 * mean anything. */
double cg_cuda_cycles(const cg_cuda_cost *cost, const struct cg_cuda_target *target);

#endif
