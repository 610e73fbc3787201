#include "compiler/profile.h"

#include <math.h>

/* What is not in data sheets, the same for all: rounded figures of published microbenchmarks. */
static const double LATENCY = 600e-9;        /* of DRAM, s */
static const double REQUESTS_IN_FLIGHT = 4;  /* of a warp */
static const double DRAM_EFFICIENCY = 0.92;  /* of the peak, streaming */
static const double L2_BYTES = 64 * 0.6;     /* a clock and multiprocessor, sustained */
static const double TENSOR_EFFICIENCY = 0.9; /* of mma.sync */
static const double TENSOR_HOPPER = 0.62; /* … where wgmma or tcgen05 is what reaches the peak */
static const double ISSUE = 4 * 0.8;      /* instructions a clock and multiprocessor */
static const double LAUNCH = 3e-6, NODE = 1.5e-6;

static double divide(double a, double b) {
    return b > 0 ? a / b : 0;
}

profile_prediction profile_predict(const modelcc_emulator_gpu *gpu, const profile_input *in) {
    const emu_counters *c = in->counters;
    profile_prediction p = {.launch = in->graph ? NODE : LAUNCH, .bound = "launch"};
    double clock = gpu->clock_mhz * 1e6, sms = gpu->sms, blocks = (double)in->blocks;
    double resident = in->resident > 0 ? in->resident : 1;
    double busy = fmin(sms, blocks), clocks = busy * clock; /* of all multiprocessors, a second */
    bool hopper = gpu->major == 9 || gpu->major == 10;
    double peak = 1e12 * (in->int8 ? gpu->int8_tops : gpu->f16_tflops) * busy / sms;

    double dram_bytes = 32 * (double)(c->dram_read_sectors + c->dram_write_sectors);
    double l2_bytes = 32 * (double)(c->global_load_sectors + c->global_store_sectors);
    double requests = (double)(c->global_load_requests + c->global_store_requests);
    double request_bytes = divide((double)(c->global_load_bytes + c->global_store_bytes), requests);
    double warps = fmin(blocks, sms * resident) * ceil(in->threads / 32.0);
    p.waves = blocks / (sms * resident);
    p.dram = dram_bytes / (gpu->dram_gbs * 1e9 * DRAM_EFFICIENCY);
    p.l2 = divide(l2_bytes, L2_BYTES * clocks);
    p.shared = divide((double)c->shared_wavefronts, clocks);
    p.tensor = divide(2 * (double)c->mma_macs, peak * (hopper ? TENSOR_HOPPER : TENSOR_EFFICIENCY));
    p.f32 = divide(64 * (double)c->by_kind[EMU_KIND_FLOAT], 1e12 * gpu->f32_tflops * busy / sms);
    p.issue = divide((double)c->warp_instructions, ISSUE * clocks);
    p.flight = divide(dram_bytes * LATENCY, warps * REQUESTS_IN_FLIGHT * request_bytes);

    const struct {
        const char *name;
        double seconds;
    } all[] = {{"DRAM", p.dram},
               {"L2", p.l2},
               {"shared memory", p.shared},
               {"tensor cores", p.tensor},
               {"f32", p.f32},
               {"issue", p.issue},
               {"bytes in flight", p.flight}};
    double most = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].seconds > most) {
            most = all[i].seconds;
            p.bound = all[i].name;
        }
    if (p.waves > 1) /* the last wave takes as long as the others */
        most *= ceil(p.waves) / p.waves;
    if (p.launch > most)
        p.bound = "launch";
    p.seconds = p.launch + most;
    return p;
}
