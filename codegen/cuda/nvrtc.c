#include "codegen/cuda/nvrtc.h"

#include "codegen/cuda/internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* The part of nvrtc.h that is used; the functions are the same since CUDA 11.1. */
typedef struct nvrtc_program *nvrtc_program;
typedef int nvrtc_result; /* 0: success */

static struct {
    nvrtc_result (*version)(int *major, int *minor);
    const char *(*error_string)(nvrtc_result);
    nvrtc_result (*create)(nvrtc_program *, const char *source, const char *name, int n_headers,
                           const char *const *headers, const char *const *names);
    nvrtc_result (*destroy)(nvrtc_program *);
    nvrtc_result (*compile)(nvrtc_program, int n_options, const char *const *options);
    nvrtc_result (*ptx_size)(nvrtc_program, size_t *);
    nvrtc_result (*ptx)(nvrtc_program, char *);
    nvrtc_result (*cubin_size)(nvrtc_program, size_t *);
    nvrtc_result (*cubin)(nvrtc_program, char *);
    nvrtc_result (*log_size)(nvrtc_program, size_t *);
    nvrtc_result (*log)(nvrtc_program, char *);
} api;

static const struct {
    const char *name;
    void *function; /* address of the field above */
} symbols[] = {
    {"nvrtcVersion", &api.version},
    {"nvrtcGetErrorString", &api.error_string},
    {"nvrtcCreateProgram", &api.create},
    {"nvrtcDestroyProgram", &api.destroy},
    {"nvrtcCompileProgram", &api.compile},
    {"nvrtcGetPTXSize", &api.ptx_size},
    {"nvrtcGetPTX", &api.ptx},
    {"nvrtcGetCUBINSize", &api.cubin_size},
    {"nvrtcGetCUBIN", &api.cubin},
    {"nvrtcGetProgramLogSize", &api.log_size},
    {"nvrtcGetProgramLog", &api.log},
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *library;
static char library_path[512], library_version[32], problem[1024];

/* Where CUDA Toolkits put it; MODELCC_NVRTC names the file itself (PyPI's nvidia-cuda-nvrtc has it
 * in site-packages/nvidia/…/lib). */
static void *open_library(void) {
    static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
    static const char *const homes[] = {"CUDA_HOME", "CUDA_PATH"};
    const char *wanted = getenv("MODELCC_NVRTC");
    if (wanted && *wanted) {
        void *found = dlopen(wanted, RTLD_NOW | RTLD_LOCAL);
        snprintf(library_path, sizeof library_path, "%s", wanted);
        if (!found)
            snprintf(problem, sizeof problem, "MODELCC_NVRTC: %s", dlerror());
        return found;
    }
    for (size_t h = 0; h < 4; h++) {
        const char *home = h < 2 ? getenv(homes[h]) : h == 2 ? "/usr/local/cuda" : "";
        if (!home)
            continue;
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            snprintf(library_path, sizeof library_path, "%s%s%s", home, *home ? "/lib64/" : "",
                     names[i]);
            void *found = dlopen(library_path, RTLD_NOW | RTLD_LOCAL);
            if (found)
                return found;
        }
    }
    snprintf(problem, sizeof problem,
             "NVRTC was not found: no libnvrtc.so.13, libnvrtc.so.12 or libnvrtc.so in "
             "$CUDA_HOME/lib64, /usr/local/cuda/lib64 or where the system looks for libraries; "
             "install the CUDA Toolkit (cuda-nvrtc is enough) or PyPI's nvidia-cuda-nvrtc, or name "
             "the file in MODELCC_NVRTC");
    return NULL;
}

static void load(void) {
    void *found = open_library();
    if (!found)
        return;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(found, symbols[i].name);
        if (!symbol) {
            snprintf(problem, sizeof problem, "%s has no %s: it is not NVRTC of CUDA 12 or later",
                     library_path, symbols[i].name);
            dlclose(found);
            return;
        }
        memcpy(symbols[i].function, &symbol, sizeof symbol);
    }
    int major = 0, minor = 0;
    api.version(&major, &minor);
    snprintf(library_version, sizeof library_version, "%d.%d", major, minor);
    library = found;
}

bool cg_cuda_nvrtc_load(ir_diag *diag) {
    pthread_once(&once, load);
    return library || ir_error(diag, "cuda", "%s", problem);
}

const char *cg_cuda_nvrtc_version(void) {
    return library_version;
}

bool cg_cuda_nvrtc_find(char *text, size_t capacity) {
    pthread_once(&once, load);
    if (library)
        snprintf(text, capacity, "%s, %s", library_version, library_path);
    else
        snprintf(text, capacity, "%s", problem);
    return library != NULL;
}

/* --- compilation ---------------------------------------------------------------------------------
 */

static const char *const options[] = {"--std=c++17",        "--fmad=false",
                                      "-lineinfo",          "-default-device",
                                      "--ptxas-options=-v", "-diag-suppress=1046"};
enum { N_OPTIONS = sizeof options / sizeof options[0], MAX_HEADERS = 64 };

const char *cg_nvrtc_options(void) {
    return "--std=c++17 --fmad=false -lineinfo -default-device --ptxas-options=-v "
           "-diag-suppress=1046";
}

/* The number before `what` in the log, summed over its occurrences; ptxas -v writes
 * "0 bytes spill stores, 0 bytes spill loads" and "Used 40 registers, 32 bytes smem". */
static uint32_t number_before(const char *log, const char *what) {
    uint32_t sum = 0;
    for (const char *p = log; (p = strstr(p, what)); p += strlen(what)) {
        const char *digits = p;
        while (digits > log && digits[-1] >= '0' && digits[-1] <= '9')
            digits--;
        sum += (uint32_t)strtoul(digits, NULL, 10);
    }
    return sum;
}

static char *read_log(nvrtc_program program) {
    size_t size = 0;
    if (api.log_size(program, &size) || size == 0)
        return NULL;
    char *log = calloc(size + 1, 1);
    if (log)
        api.log(program, log);
    return log;
}

static bool report(nvrtc_program program, nvrtc_result result, const cg_cuda_function *function,
                   const cg_cuda_target *target, ir_diag *diag) {
    char *log = program ? read_log(program) : NULL;
    if (log && strstr(log, "invalid value for --gpu-architecture"))
        ir_error(diag, target->name, "NVRTC %s (%s) does not know this architecture",
                 library_version, library_path);
    else
        ir_internal_error(diag, function->name, "NVRTC for %s: %s: %.1800s", target->arch_name,
                          api.error_string(result), log ? log : "");
    free(log);
    return false;
}

/* PTX names the compiler's inputs; they are the in-memory names, so no directory comes in. */
static nvrtc_result take(nvrtc_program program, bool ptx_only, cg_cuda_image *out) {
    nvrtc_result result = api.ptx_size(program, &out->ptx_bytes);
    if (!result && (out->ptx = calloc(out->ptx_bytes + 1, 1)))
        result = api.ptx(program, out->ptx);
    if (result || ptx_only)
        return result;
    result = api.cubin_size(program, &out->cubin_bytes);
    if (!result && (out->cubin = calloc(out->cubin_bytes + 1, 1)))
        result = api.cubin(program, out->cubin);
    return result;
}

bool cg_nvrtc_compile(const cg_cuda_function *function, const cg_cuda_target *target, bool ptx_only,
                      ir_diag *diag, cg_cuda_image *out) {
    const char *names[MAX_HEADERS], *texts[MAX_HEADERS], *all[N_OPTIONS + 1];
    char arch[64], file[320];
    int n = 0;
    for (; cg_cuda_headers[n].name && n < MAX_HEADERS; n++) {
        names[n] = cg_cuda_headers[n].name;
        texts[n] = cg_cuda_headers[n].text;
    }
    snprintf(arch, sizeof arch, "--gpu-architecture=%s_%s", ptx_only ? "compute" : "sm",
             target->arch_name + sizeof "sm_" - 1);
    snprintf(file, sizeof file, "/%.300s.cu", function->name);
    memcpy(all, options, sizeof options);
    all[N_OPTIONS] = arch;
    nvrtc_program program = NULL;
    nvrtc_result result = api.create(&program, function->source, file, n, texts, names);
    if (!result)
        result = api.compile(program, N_OPTIONS + 1, all);
    if (!result)
        result = take(program, ptx_only, out);
    bool ok = !result;
    if (result)
        report(program, result, function, target, diag);
    else if (!out->ptx || (!ptx_only && !out->cubin))
        ok = ir_error(diag, function->name, "out of memory for its code");
    char *log = ok && !ptx_only ? read_log(program) : NULL;
    if (log) {
        const char *used = strstr(log, "Used ");
        out->registers = used ? (uint32_t)strtoul(used + 5, NULL, 10) : 0;
        out->spill_bytes =
            number_before(log, " bytes spill stores") + number_before(log, " bytes spill loads");
        out->static_shared_bytes = number_before(log, " bytes smem");
    }
    free(log);
    if (program)
        api.destroy(&program);
    return ok;
}
