/* The part of `modelcc bench` that measures what the engine itself costs. */
#ifndef MCC_COMPILER_BENCH_OVERHEAD_H
#define MCC_COMPILER_BENCH_OVERHEAD_H

#include "runtime/modelcc.h"

#include <stdbool.h>
#include <stdint.h>

/* Times decode steps of 1, 8 and 32 sequences on engines without kernels (MCC_ENGINE_NULL_DEVICE).
 *
 * Counted is all between two steps' ends: mcc_engine_step, and taking its events. So planning, KV
 * pages, the step block, choosing the tokens (greedily, each from a row of as many logits as the
 * vocabulary has), their text, and handing them out. Not counted is what kernels do; and the rows
 * are all zeros here, which share a page of memory, so that reading them is faster than reading
 * rows that kernels wrote, by what the caches are slower (some 200 kB a row of 49,152 logits).
 *
 * `options` are those of the engines but for flags and limits; `steps` are timed. Prints a table or
 * JSON. EXIT_FINE, or EXIT_FAILED after a message. */
int bench_overhead_run(const mcc_artifact *artifact, const mcc_engine_options *options,
                       int32_t steps, bool json);

#endif
