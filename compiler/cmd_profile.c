/* modelcc profile: where a step's time goes, kernel by kernel. */
#include "compiler/output.h"
#include "compiler/profile.h"

#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: modelcc profile MODEL.so [options]\n\n"
    "Shows what each kernel of a step does. On the emulated GPU: memory traffic, coalescing, bank\n"
    "conflicts, instructions and tensor-core operations, counted, and the time that the GPU would\n"
    "take, predicted from its data sheet and labelled so. On the CPU or a GPU: time, measured.\n\n"
    "      --device NAME          emulator, cpu, cuda or cuda:N (default: emulator where the "
    "artifact\n"
    "                             has code for GPUs, else cpu)\n"
    "      --gpu NAME             the GPU whose time is predicted: a100, rtx3090, orin, l4, "
    "rtx4090,\n"
    "                             h100, b200, rtx5090 (default: the first that there is code for)\n"
    "      --phase NAME           decode: a token of each sequence (default); prefill: its prompt\n"
    "      --batch N              sequences (default 1)\n"
    "      --context N            tokens of each: held before, or in the prompt (default 128)\n"
    "      --num-speculative-tokens N  drafted tokens of each that a decode step checks (default "
    "0)\n"
    "      --repeat N             steps to measure (default 10)\n"
    "  -t, --threads N            (default: the processors this process may use)\n"
    "      --json                 one JSON object\n\n"
    "A prediction ranks kernels and names what bounds them; expect it to be 20 to 30 % off.\n\n"
    "examples:\n"
    "  modelcc profile qwen3.so --gpu h100 --batch 8 --context 1024\n"
    "  modelcc profile qwen3.so --device cpu --phase prefill --context 512 --json\n";

/* --- numbers -------------------------------------------------------------------------------------
 */

static double ratio(double a, double b) {
    return b > 0 ? a / b : 0;
}

static const char *const kind_names[] = {
    "int",   "float",  "half",  "double", "special", "convert", "move",    "load",
    "store", "shared", "async", "tensor", "atomic",  "warp",    "control", "barrier"};

static uint64_t dram_bytes(const profile_kernel *k) {
    return 32 * (k->one.dram_read_sectors + k->one.dram_write_sectors);
}

/* Of the requests, those that touch more than twice the sectors that their bytes need. */
static double uncoalesced(const profile_kernel *k) {
    const emu_counters *c = &k->one;
    return ratio((double)c->uncoalesced_requests,
                 (double)(c->global_load_requests + c->global_store_requests));
}

/* Operations of a launch: two a multiply-add of tensor cores, one an f32 instruction's lane. */
static double operations(const profile_kernel *k) {
    return 2 * (double)k->one.mma_macs + 32 * (double)k->one.by_kind[EMU_KIND_FLOAT];
}

static double seconds_of(const profile_report *r, const profile_kernel *k) {
    if (!r->gpu)
        return k->seconds;
    return k->launches * k->predicted.seconds;
}

static const char *name_of(const profile_report *r, const profile_kernel *k) {
    const rt_tables *t = &r->model.artifact->tables;
    return rt_string(t, t->kernels[k->kernel].name);
}

/* --- JSON ----------------------------------------------------------------------------------------
 */

static void add_counters(cJSON *j, const profile_report *r, const profile_kernel *k) {
    const emu_counters *c = &k->one;
    cJSON_AddStringToObject(j, "function", r->code.strings + r->code.functions[k->function].name);
    const struct {
        const char *name;
        double value;
    } numbers[] = {
        {"functions", k->n_functions},
        {"blocks", (double)k->blocks},
        {"threads", k->threads},
        {"shared_bytes", k->shared_bytes},
        {"registers", k->registers},
        {"spill_bytes", k->spill_bytes},
        {"blocks_per_sm", k->resident},
        {"dram_bytes", (double)dram_bytes(k)},
        {"dram_read_sectors", (double)c->dram_read_sectors},
        {"dram_write_sectors", (double)c->dram_write_sectors},
        {"load_requests", (double)c->global_load_requests},
        {"load_bytes", (double)c->global_load_bytes},
        {"load_sectors", (double)c->global_load_sectors},
        {"store_requests", (double)c->global_store_requests},
        {"store_bytes", (double)c->global_store_bytes},
        {"store_sectors", (double)c->global_store_sectors},
        {"wide_loads", (double)c->wide_loads},
        {"uncoalesced_requests", (double)c->uncoalesced_requests},
        {"shared_requests", (double)c->shared_requests},
        {"shared_wavefronts", (double)c->shared_wavefronts},
        {"bank_conflicts", (double)c->bank_conflicts},
        {"async_copies", (double)c->async_copies},
        {"async_bytes", (double)c->async_bytes},
        {"barriers", (double)c->barriers},
        {"atomics", (double)c->atomics},
        {"tensor_operations", (double)c->mma_ops},
        {"tensor_macs", (double)c->mma_macs},
        {"operations", operations(k)},
        {"operations_per_dram_byte", ratio(operations(k), (double)dram_bytes(k))},
        {"warp_instructions", (double)c->warp_instructions},
        {"lane_instructions", (double)c->lane_instructions},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        cJSON_AddNumberToObject(j, numbers[i].name, numbers[i].value);
    cJSON_AddBoolToObject(j, "registers_known", k->registers_known);
    cJSON *kinds = cJSON_AddObjectToObject(j, "instructions");
    for (int i = 0; i < 16; i++)
        cJSON_AddNumberToObject(kinds, kind_names[i], (double)c->by_kind[i]);
}

static void add_prediction(cJSON *j, const profile_prediction *p) {
    cJSON *o = cJSON_AddObjectToObject(j, "predicted");
    cJSON_AddStringToObject(o, "bound", p->bound);
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"seconds_a_launch", p->seconds}, {"waves", p->waves},
                   {"dram_seconds", p->dram},        {"l2_seconds", p->l2},
                   {"shared_seconds", p->shared},    {"tensor_seconds", p->tensor},
                   {"f32_seconds", p->f32},          {"issue_seconds", p->issue},
                   {"in_flight_seconds", p->flight}, {"launch_seconds", p->launch}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        cJSON_AddNumberToObject(o, numbers[i].name, numbers[i].value);
}

static cJSON *kernel_json(const profile_report *r, const profile_kernel *k) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "kernel", name_of(r, k));
    cJSON_AddNumberToObject(j, "launches", k->launches);
    cJSON_AddNumberToObject(j, "seconds", seconds_of(r, k));
    cJSON_AddNumberToObject(j, "share", ratio(seconds_of(r, k), r->step_seconds));
    if (r->gpu) {
        add_counters(j, r, k);
        add_prediction(j, &k->predicted);
    }
    return j;
}

static int print_json(const profile_report *r, const profile_options *o) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "artifact", o->path);
    cJSON_AddStringToObject(j, "device", o->device);
    if (r->gpu) {
        cJSON_AddStringToObject(j, "gpu", r->gpu->title);
        char arch[16];
        snprintf(arch, sizeof arch, "sm_%d%d", r->gpu->major, r->gpu->minor);
        cJSON_AddStringToObject(j, "arch", arch);
    }
    cJSON_AddStringToObject(j, "time", r->gpu ? "predicted" : "measured");
    cJSON_AddStringToObject(j, "phase", o->prefill ? "prefill" : "decode");
    cJSON_AddNumberToObject(j, "sequences", r->sequences);
    cJSON_AddNumberToObject(j, "context", o->context);
    cJSON_AddNumberToObject(j, "num_speculative_tokens", o->drafts);
    cJSON_AddNumberToObject(j, "tokens", r->tokens);
    cJSON_AddNumberToObject(j, "launches", r->launches);
    cJSON_AddNumberToObject(j, "seconds_a_step", r->step_seconds);
    cJSON_AddNumberToObject(j, "tokens_per_second", ratio(r->tokens, r->step_seconds));
    if (r->gpu) {
        cJSON_AddNumberToObject(j, "dram_bytes", (double)r->dram_bytes);
        cJSON_AddNumberToObject(j, "weight_and_kv_bytes", (double)r->weight_kv_bytes);
    } else {
        cJSON_AddNumberToObject(j, "least_seconds_a_step", r->step_least);
        cJSON_AddNumberToObject(j, "steps_measured", o->repeat);
    }
    cJSON *kernels = cJSON_AddArrayToObject(j, "kernels");
    for (int i = 0; i < r->n_kernels; i++)
        cJSON_AddItemToArray(kernels, kernel_json(r, &r->kernels[i]));
    return output_json(j);
}

/* --- for people ----------------------------------------------------------------------------------
 */

static const profile_report *sorted; /* qsort has no user argument */

static int by_seconds(const void *a, const void *b) {
    double x = seconds_of(sorted, a), y = seconds_of(sorted, b);
    return (x < y) - (x > y);
}

static void print_counted(const profile_report *r, const profile_kernel *k) {
    const emu_counters *c = &k->one;
    printf("%-44.44s %4d %9.1f %4.0f%%  %-15s %9.3f %5.0f%% %8.3g %8.3g %8.3g %7.3g %4u%s %3u\n",
           name_of(r, k), k->launches, 1e6 * seconds_of(r, k),
           100 * ratio(seconds_of(r, k), r->step_seconds), k->blocks ? k->predicted.bound : "-",
           (double)dram_bytes(k) * k->launches / 1e6, 100 * uncoalesced(k),
           ratio((double)c->bank_conflicts, (double)c->shared_requests),
           (double)c->mma_macs * k->launches / 1e6,
           (double)c->warp_instructions * k->launches / 1e3,
           ratio(operations(k), (double)dram_bytes(k)), k->registers,
           k->registers_known ? " " : "?", k->resident);
}

static void print_counts(const profile_report *r, const profile_options *o) {
    printf("%s: %d sequences, context %d, %d tokens, on %s (sm_%d%d)\n",
           o->prefill ? "prefill" : "decode", r->sequences, o->context, r->tokens, r->gpu->title,
           r->gpu->major, r->gpu->minor);
    printf("times are PREDICTED from the data sheet; all else is counted on the emulator\n\n");
    printf("%-44s %4s %9s %5s  %-15s %9s %6s %8s %8s %8s %7s %4s  %3s\n", "kernel", "runs", "us",
           "", "bound by", "DRAM MB", "uncoal", "confl.", "MMAC", "k instr.", "op/B", "regs",
           "/SM");
    for (int i = 0; i < r->n_kernels; i++)
        print_counted(r, &r->kernels[i]);
    printf("\na step: %.1f us predicted, %.0f tokens/s; %d launches; %.3f MB of DRAM traffic, "
           "%.3f times weights and cache\n",
           1e6 * r->step_seconds, ratio(r->tokens, r->step_seconds), r->launches,
           (double)r->dram_bytes / 1e6, ratio((double)r->dram_bytes, (double)r->weight_kv_bytes));
    printf(
        "DRAM: different sectors of each launch. uncoal: requests for more than twice the sectors\n"
        "that their bytes need. confl.: shared-memory wavefronts too many, a request. regs: a\n"
        "thread's, ? where ptxas was not asked. /SM: blocks at a time.\n");
}

static void print_times(const profile_report *r, const profile_options *o) {
    printf("%s: %d sequences, context %d, %d tokens, on %s; measured, median of %d steps\n\n",
           o->prefill ? "prefill" : "decode", r->sequences, o->context, r->tokens, o->device,
           o->repeat);
    printf("%-48s %5s %11s %6s\n", "kernel", "runs", "us", "");
    for (int i = 0; i < r->n_kernels; i++) {
        const profile_kernel *k = &r->kernels[i];
        printf("%-48.48s %5d %11.1f %5.1f%%\n", name_of(r, k), k->launches, 1e6 * k->seconds,
               100 * ratio(k->seconds, r->step_seconds));
    }
    printf("\na step: %.1f us (least %.1f), %.1f tokens/s; %d launches\n", 1e6 * r->step_seconds,
           1e6 * r->step_least, ratio(r->tokens, r->step_seconds), r->launches);
}

static void print_messages(const ir_diag *diag) {
    for (int i = 0; i < diag->count; i++) {
        const ir_message *m = &diag->messages[i];
        if (m->severity != IR_NOTE)
            fprintf(stderr, "%s: %s%s%s\n", m->severity == IR_WARNING ? "warning" : "error",
                    m->where ? m->where : "", m->where ? ": " : "", m->text);
    }
}

static int profile(const profile_options *o, bool json) {
    profile_report r;
    ir_diag diag = {0};
    bool good = strcmp(o->device, "emulator") == 0 ? profile_count(o, &r, &diag)
                                                   : profile_measure(o, &r, &diag);
    int code = good ? EXIT_FINE : EXIT_FAILED;
    print_messages(&diag);
    ir_diag_clear(&diag);
    if (good) {
        sorted = &r;
        qsort(r.kernels, (size_t)r.n_kernels, sizeof *r.kernels, by_seconds);
        if (json)
            code = print_json(&r, o);
        else if (r.gpu)
            print_counts(&r, o);
        else
            print_times(&r, o);
    }
    profile_report_free(&r);
    return code;
}

/* --- options -------------------------------------------------------------------------------------
 */

/* Where the artifact can be profiled without a GPU. */
static const char *default_device(const char *path) {
    mcc_artifact_options open = {.struct_size = sizeof open, .flags = MCC_OPEN_INSPECT};
    mcc_artifact_info info = {.struct_size = sizeof info};
    mcc_artifact *a;
    bool cuda = mcc_artifact_open(path, &open, &a, NULL) == MCC_OK;
    if (cuda) {
        cuda = mcc_artifact_get_info(a, &info, NULL) == MCC_OK && info.n_cuda_images > 0;
        mcc_artifact_close(a);
    }
    return cuda ? "emulator" : "cpu";
}

int cmd_profile(int argc, char **argv) {
    enum {
        OPT_DEVICE = 256,
        OPT_GPU,
        OPT_PHASE,
        OPT_BATCH,
        OPT_CONTEXT,
        OPT_DRAFTS,
        OPT_REPEAT,
        OPT_JSON
    };
    static const struct option longs[] = {
        {"device", required_argument, NULL, OPT_DEVICE},
        {"gpu", required_argument, NULL, OPT_GPU},
        {"phase", required_argument, NULL, OPT_PHASE},
        {"batch", required_argument, NULL, OPT_BATCH},
        {"context", required_argument, NULL, OPT_CONTEXT},
        {"num-speculative-tokens", required_argument, NULL, OPT_DRAFTS},
        {"repeat", required_argument, NULL, OPT_REPEAT},
        {"threads", required_argument, NULL, 't'},
        {"json", no_argument, NULL, OPT_JSON},
        {"help", no_argument, NULL, 'h'},
        {0}};
    profile_options o = {.batch = 1, .context = 128, .repeat = 10, .cancelled = &command_cancelled};
    bool json = false;
    long long number;
    for (int option; (option = getopt_long(argc, argv, "t:h", longs, NULL)) != -1;) {
        switch (option) {
        case OPT_DEVICE:
            o.device = optarg;
            break;
        case OPT_GPU:
            o.gpu = optarg;
            break;
        case OPT_PHASE:
            o.prefill = strcmp(optarg, "prefill") == 0;
            if (!o.prefill && strcmp(optarg, "decode") != 0)
                return command_usage("profile", "--phase %s: expected decode or prefill", optarg);
            break;
        case OPT_BATCH:
            if (!command_number(optarg, 1, 1024, &number))
                return command_usage("profile", "--batch %s: expected 1 to 1024", optarg);
            o.batch = (int32_t)number;
            break;
        case OPT_CONTEXT:
            if (!command_number(optarg, 1, 1 << 20, &number))
                return command_usage("profile", "--context %s: expected 1 to 1048576", optarg);
            o.context = (int32_t)number;
            break;
        case OPT_DRAFTS:
            if (!command_number(optarg, 0, MCC_MAX_DRAFT, &number))
                return command_usage("profile", "--num-speculative-tokens %s: expected 0 to %d",
                                     optarg, MCC_MAX_DRAFT);
            o.drafts = (int32_t)number;
            break;
        case OPT_REPEAT:
            if (!command_number(optarg, 1, 100000, &number))
                return command_usage("profile", "--repeat %s: expected 1 to 100000", optarg);
            o.repeat = (int)number;
            break;
        case 't':
            if (!command_number(optarg, 1, 256, &number))
                return command_usage("profile", "--threads %s: expected 1 to 256", optarg);
            o.threads = (int)number;
            break;
        case OPT_JSON:
            json = true;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_FINE;
        default:
            return command_usage("profile", "%s: unknown option, or its value is missing",
                                 argv[optind - 1]);
        }
    }
    if (optind + 1 != argc)
        return command_usage("profile", "expected one MODEL.so");
    o.path = argv[optind];
    if (!o.device)
        o.device = default_device(o.path);
    if (o.prefill && o.drafts > 0)
        return command_usage("profile", "--num-speculative-tokens: drafts are checked while "
                                        "decoding; leave out --phase prefill");
    if (o.gpu && strcmp(o.device, "emulator") != 0)
        return command_usage("profile", "--gpu names the GPU to predict for: use it with --device "
                                        "emulator");
    ir_arena_on_oom(command_out_of_memory);
    return profile(&o, json);
}
