/* Strategy none: every op is a kernel of its own. */
#include "passes/plan.h"

const fusion_strategy fusion_none = {
    .name = "none",
    .summary = "an op a kernel",
};
