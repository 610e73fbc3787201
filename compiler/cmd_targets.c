/* modelcc targets: what code can be generated for. */
#include "codegen/cpu/cpu.h"
#include "compiler/output.h"
#include "runtime/cpu.h"

#include <stdio.h>

static const char help[] =
    "usage: modelcc targets [--json]\n\n"
    "Lists the targets that modelcc build --target takes, what each needs of a processor, and "
    "which\n"
    "this machine can run. \"cpu\" means the one marked with *.\n\n"
    "examples:\n"
    "  modelcc targets\n"
    "  modelcc build model.gguf --target cpu:x86-64-v3,cpu:x86-64-v4 -o model.so\n";

static bool runs_here(const cg_cpu_target *target) {
    return (target->cpu_features & ~rt_cpu_features()) == 0;
}

static void print_table(const cg_cpu_target *targets, int n, const cg_cpu_target *best) {
    printf("  %-16s %-9s %s\n", "target", "runs here", "code for");
    for (int i = 0; i < n; i++)
        printf("%c %-16s %-9s %s%s%s\n", &targets[i] == best ? '*' : ' ', targets[i].name,
               runs_here(&targets[i]) ? "yes" : "no", targets[i].llvm_cpu,
               *targets[i].features ? " " : "", targets[i].features);
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
