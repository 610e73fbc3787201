/* modelcc doctor: what this machine and installation can build and run, and what is missing. */
#include "codegen/artifact/link.h"
#include "codegen/cpu/cpu.h"
#include "codegen/cuda/cuda.h"
#include "compiler/output.h"
#include "runtime/cpu.h"
#include "runtime/cuda_driver.h"
#include "runtime/modelcc.h"

#include <inttypes.h>
#include <llvm-c/Core.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char help[] =
    "usage: modelcc doctor [--json]\n\n"
    "Says what this machine and this installation can build and run, and which Debian package has\n"
    "what is missing. Exit code 1 when something that modelcc needs is missing.\n\n"
    "examples:\n"
    "  modelcc doctor\n"
    "  modelcc doctor --json | jq .ok\n";

enum { MAX_CHECKS = 16 };

/* FINE; SLOW: works, but not as well as it could; ABSENT: not there, and needed only for some uses;
 * MISSING: needed. */
typedef enum verdict { FINE, SLOW, ABSENT, MISSING } verdict;

typedef struct check {
    const char *name;
    verdict verdict;
    char found[512];
    char advice[256]; /* "" when there is none */
} check;

typedef struct report {
    check checks[MAX_CHECKS];
    int n;
} report;

static check *add(report *r, const char *name) {
    check *c = &r->checks[r->n < MAX_CHECKS ? r->n++ : MAX_CHECKS - 1];
    *c = (check){.name = name};
    return c;
}

/* The rest of the line of a small text file that begins with `key`; "" when there is none. */
static void file_value(const char *path, const char *key, char *out, size_t capacity) {
    char line[512];
    out[0] = '\0';
    FILE *f = fopen(path, "re");
    if (!f)
        return;
    while (!out[0] && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        const char *value = line + strlen(key);
        value += strspn(value, " \t:");
        snprintf(out, capacity, "%.*s", (int)strcspn(value, "\n"), value);
    }
    fclose(f);
}

static void check_processor(report *r) {
    check *c = add(r, "processor");
    char model[128], features[128];
    file_value("/proc/cpuinfo", "model name", model, sizeof model);
    mcc_cpu_features(features, sizeof features);
    snprintf(c->found, sizeof c->found, "%s%s%s; %d threads for this process", model,
             *model ? ": " : "", *features ? features : "none of the levels that artifacts need",
             rt_cpu_usable_threads());
    const cg_cpu_target *best = cg_cpu_target_find("cpu");
    if (!best) {
        c->verdict = MISSING;
        snprintf(c->advice, sizeof c->advice,
                 "artifacts can be built here, for other machines, but not run: that needs "
                 "x86-64-v3 (AVX2)");
        return;
    }
    c = add(r, "target");
    snprintf(c->found, sizeof c->found, "--target cpu means %s", best->name);
}

static void check_llvm(report *r) {
    check *c = add(r, "LLVM");
    unsigned major, minor, patch;
    LLVMGetVersion(&major, &minor, &patch);
    snprintf(c->found, sizeof c->found, "%u.%u.%u, built with " MCC_LLVM_VERSION, major, minor,
             patch);
    char built[32];
    snprintf(built, sizeof built, "%u.", major);
    if (strncmp(MCC_LLVM_VERSION, built, strlen(built)) != 0) {
        c->verdict = MISSING;
        snprintf(c->advice, sizeof c->advice,
                 "another major version than it was built with: rebuild modelcc, or install the "
                 "package libllvm19");
    }
}

static void check_linker(report *r) {
    check *c = add(r, "linker");
    if (cg_linker_find(c->found, sizeof c->found))
        return;
    c->verdict = MISSING;
    snprintf(c->found, sizeof c->found, "neither ld.lld-19 nor ld.lld on PATH");
    snprintf(c->advice, sizeof c->advice, "modelcc build needs it: install the package lld-19");
}

static void check_memory_files(report *r) {
    check *c = add(r, "memfd");
    int fd = memfd_create("modelcc-doctor", MFD_CLOEXEC);
    if (fd >= 0) {
        snprintf(c->found, sizeof c->found, "files in memory work");
        close(fd);
    } else {
        c->verdict = MISSING;
        snprintf(c->found, sizeof c->found, "memfd_create fails");
        snprintf(c->advice, sizeof c->advice,
                 "modelcc build links in memory: it needs Linux 3.17, and a sandbox that allows "
                 "memfd_create");
    }
    c = add(r, "/proc");
    bool there = access("/proc/self/fd", X_OK) == 0;
    snprintf(c->found, sizeof c->found, there ? "mounted" : "not mounted");
    if (!there) {
        c->verdict = MISSING;
        snprintf(c->advice, sizeof c->advice, "modelcc build hands objects to the linker there");
    }
}

static void check_pcre2(report *r) {
    check *c = add(r, "PCRE2");
    char version[64] = "unknown version";
    uint32_t jit = 0;
    if (pcre2_config(PCRE2_CONFIG_VERSION, NULL) <= (int)sizeof version)
        pcre2_config(PCRE2_CONFIG_VERSION, version);
    pcre2_config(PCRE2_CONFIG_JIT, &jit);
    snprintf(c->found, sizeof c->found, "%s, %s", version, jit ? "with JIT" : "without JIT");
    if (!jit) {
        c->verdict = SLOW;
        snprintf(c->advice, sizeof c->advice,
                 "tokenizing long texts is slower; Debian's libpcre2-8-0 has the JIT");
    }
}

static void check_memory(report *r) {
    check *c = add(r, "memory");
    char text[64], total[24], available[24], limited[24];
    file_value("/proc/meminfo", "MemTotal", text, sizeof text);
    uint64_t bytes = strtoull(text, NULL, 10) * 1024, limit = rt_cpu_usable_memory(RT_CGROUP);
    file_value("/proc/meminfo", "MemAvailable", text, sizeof text);
    uint64_t unused = strtoull(text, NULL, 10) * 1024;
    snprintf(c->found, sizeof c->found, "%s, %s available", output_bytes(bytes, total),
             output_bytes(unused, available));
    if (limit && limit < bytes) {
        size_t used = strlen(c->found);
        snprintf(c->found + used, sizeof c->found - used, "; the cgroup allows %s",
                 output_bytes(limit, limited));
    }
    if (unused < 512u << 20) {
        c->verdict = SLOW;
        snprintf(c->advice, sizeof c->advice,
                 "building and running need about the size of the weights in memory");
    }
}

static void check_huge_pages(report *r) {
    check *c = add(r, "huge pages");
    char text[96];
    file_value("/sys/kernel/mm/transparent_hugepage/enabled", "", text, sizeof text);
    if (strstr(text, "[always]") || strstr(text, "[madvise]")) {
        snprintf(c->found, sizeof c->found, "can be had (%s)", text);
        return;
    }
    c->verdict = SLOW;
    snprintf(c->found, sizeof c->found, "%s", *text ? text : "not offered by this kernel");
    snprintf(c->advice, sizeof c->advice,
             "decoding can be a few percent slower; echo madvise > "
             "/sys/kernel/mm/transparent_hugepage/enabled");
}

static void check_nvrtc(report *r) {
    check *c = add(r, "NVRTC");
    ir_diag diag = {0};
    if (cg_cuda_nvrtc_load(&diag)) {
        snprintf(c->found, sizeof c->found, "%s", cg_cuda_nvrtc_version());
    } else {
        c->verdict = ABSENT;
        snprintf(c->found, sizeof c->found, "libnvrtc was not found");
        snprintf(c->advice, sizeof c->advice,
                 "modelcc build --target cuda:... needs it: the CUDA Toolkit or PyPI's "
                 "nvidia-cuda-nvrtc has it; no GPU is needed");
    }
    ir_diag_clear(&diag);
}

static void check_gpu(report *r, const char *name, bool emulator, const char *advice) {
    check *c = add(r, name);
    if (rt_cuda_describe(emulator, c->found, sizeof c->found))
        return;
    c->verdict = ABSENT;
    snprintf(c->advice, sizeof c->advice, "%s", advice);
}

static const char *verdict_name(verdict v) {
    static const char *const names[] = {"fine", "slow", "absent", "missing"};
    return names[v];
}

static bool works(const report *r) {
    for (int i = 0; i < r->n; i++)
        if (r->checks[i].verdict == MISSING)
            return false;
    return true;
}

static int print_json(const report *r) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddBoolToObject(j, "ok", works(r));
    cJSON_AddStringToObject(j, "modelcc", mcc_version());
    cJSON *list = cJSON_AddArrayToObject(j, "checks");
    for (int i = 0; i < r->n; i++) {
        cJSON *c = cJSON_CreateObject();
        cJSON_AddStringToObject(c, "name", r->checks[i].name);
        cJSON_AddStringToObject(c, "verdict", verdict_name(r->checks[i].verdict));
        cJSON_AddStringToObject(c, "found", r->checks[i].found);
        if (r->checks[i].advice[0])
            cJSON_AddStringToObject(c, "advice", r->checks[i].advice);
        cJSON_AddItemToArray(list, c);
    }
    return output_json(j);
}

static void print_table(const report *r) {
    printf("modelcc %s\n", mcc_version());
    for (int i = 0; i < r->n; i++) {
        const check *c = &r->checks[i];
        printf("  %-8s %-11s %s\n", verdict_name(c->verdict), c->name, c->found);
        if (c->advice[0])
            printf("  %-8s %-11s -> %s\n", "", "", c->advice);
    }
    puts(works(r) ? "this machine can build and run" : "something that modelcc needs is missing");
}

int cmd_doctor(int argc, char **argv) {
    bool json;
    int parsed = command_json_option(argc, argv, help, &json);
    if (parsed != EXIT_FINE)
        return parsed < 0 ? EXIT_FINE : parsed;
    report r = {.n = 0};
    check_processor(&r);
    check_llvm(&r);
    check_linker(&r);
    check_memory_files(&r);
    check_pcre2(&r);
    check_memory(&r);
    check_huge_pages(&r);
    check_nvrtc(&r);
    check_gpu(&r, "GPU", false, "needed only to run on GPUs: --device cuda");
    check_gpu(&r, "emulator", true, "needed only to run and verify GPU code without a GPU");
    int code = EXIT_FINE;
    if (json)
        code = print_json(&r);
    else
        print_table(&r);
    return works(&r) ? code : EXIT_FAILED;
}
