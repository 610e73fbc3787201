/* modelcc targets: what code can be generated for. */
#include "codegen/cpu/cpu.h"
#include "codegen/cuda/cuda.h"
#include "compiler/output.h"
#include "runtime/cpu.h"

#include <stdio.h>

static const char help[] =
    "usage: modelcc targets [--json]\n\n"
    "Lists the targets that modelcc build --target takes, what each needs of a processor, and "
    "which\n"
    "this machine can run. \"cpu\" means the one marked with *. Code for GPUs needs NVRTC to be\n"
    "built, and a GPU or the emulator to run.\n\n"
    "examples:\n"
    "  modelcc targets\n"
    "  modelcc build model.gguf --target cpu:x86-64-v3,cpu:x86-64-v4 -o model.so\n"
    "  modelcc build model.gguf --target cuda:sm_80,cuda:sm_90a -o model.so\n";

static bool runs_here(const cg_cpu_target *target) {
    return (target->cpu_features & ~rt_cpu_features()) == 0;
}

static void print_table(const cg_cpu_target *targets, int n, const cg_cpu_target *best) {
    printf("  %-16s %-9s %s\n", "target", "runs here", "code for");
    for (int i = 0; i < n; i++)
        printf("%c %-16s %-9s %s%s%s\n", &targets[i] == best ? '*' : ' ', targets[i].name,
               runs_here(&targets[i]) ? "yes" : "no", targets[i].llvm_cpu,
               *targets[i].features ? " " : "", targets[i].features);
    int n_cuda;
    const cg_cuda_target *cuda = cg_cuda_targets(&n_cuda);
    for (int i = 0; i < n_cuda; i++)
        printf("  %-16s %-9s %s%s\n", cuda[i].name, "on a GPU", cuda[i].arch_name,
               cuda[i].specific ? ", this very architecture" : " and, as PTX, newer ones");
    char text[1024];
    bool found = cg_cuda_nvrtc_find(text, sizeof text);
    printf("%s%s\n", found ? "  NVRTC " : "  no cuda target can be built here: ", text);
}

static int print_json(const cg_cpu_target *targets, int n, const cg_cpu_target *best) {
    cJSON *j = cJSON_CreateObject();
    if (best)
        cJSON_AddStringToObject(j, "cpu", best->name);
    else
        cJSON_AddNullToObject(j, "cpu");
    cJSON *list = cJSON_AddArrayToObject(j, "targets");
    for (int i = 0; i < n; i++) {
        cJSON *t = cJSON_CreateObject();
        cJSON_AddStringToObject(t, "name", targets[i].name);
        cJSON_AddBoolToObject(t, "runs_here", runs_here(&targets[i]));
        cJSON_AddStringToObject(t, "llvm_cpu", targets[i].llvm_cpu);
        cJSON_AddStringToObject(t, "llvm_features", targets[i].features);
        cJSON_AddItemToArray(list, t);
    }
    int n_cuda;
    const cg_cuda_target *cuda = cg_cuda_targets(&n_cuda);
    list = cJSON_AddArrayToObject(j, "cuda_targets");
    for (int i = 0; i < n_cuda; i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(cuda[i].name));
    char text[1024];
    if (cg_cuda_nvrtc_find(text, sizeof text))
        cJSON_AddStringToObject(j, "nvrtc", cg_cuda_nvrtc_version());
    else
        cJSON_AddNullToObject(j, "nvrtc");
    return output_json(j);
}

int cmd_targets(int argc, char **argv) {
    bool json;
    int parsed = command_json_option(argc, argv, help, &json);
    if (parsed != EXIT_FINE)
        return parsed < 0 ? EXIT_FINE : parsed;
    int n;
    const cg_cpu_target *targets = cg_cpu_targets(&n), *best = cg_cpu_target_find("cpu");
    if (json)
        return print_json(targets, n, best);
    print_table(targets, n, best);
    return EXIT_FINE;
}
