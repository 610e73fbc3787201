/* An open artifact: its checked tables, its mapped sections and its loaded code. */
#ifndef MCC_RUNTIME_LOADER_H
#define MCC_RUNTIME_LOADER_H

#include "runtime/artifact_cuda.h"
#include "runtime/modelcc.h"

typedef struct rt_tokenizer rt_tokenizer;
typedef struct rt_template rt_template;

/* A section in memory, read-only; bytes == 0 when the artifact does not have it. */
typedef struct rt_part {
    const void *data;
    uint64_t bytes;
    uint64_t mapped_bytes; /* 0: not mapped */
} rt_part;

enum { RT_PARTS = MCC_SECTION_WEIGHTS + 1 };

struct mcc_artifact {
    int fd;
    char *path;
    mcc_footer footer;
    void *tables_data; /* a private copy: it cannot change after it has been checked */
    rt_tables tables;
    void *cuda_data; /* section CUDA, a private copy as well; NULL without */
    rt_cuda_code cuda;
    rt_part parts[RT_PARTS];        /* by section kind; not code, tables and CUDA */
    bool inspect;                   /* opened with MCC_OPEN_INSPECT */
    int target;                     /* index, -1: none chosen */
    void *handle;                   /* of dlopen; NULL when opened for inspection */
    mcc_cpu_kernel *const *kernels; /* the target's; NULL when none was loaded */
    rt_tokenizer *tokenizer;        /* NULL without section TOKENIZER, or for inspection */
    rt_template *chat_template;
    char chat_template_error[RT_ERROR_TEXT]; /* why chat_template is NULL, or "" */
};

/* Loads the code and finds the chosen target's kernels (loader_code.c). */
bool rt_load_code(mcc_artifact *artifact, rt_error *error);

/* Reads exactly `size` bytes at `offset` of the artifact's file. */
bool rt_read_at(const mcc_artifact *artifact, uint64_t offset, void *data, uint64_t size,
                rt_error *error);

/* Opens tokenizer and chat template from their sections (text.c). A template that this runtime
 * cannot render is no error until it is used. */
bool rt_open_text(mcc_artifact *artifact, rt_error *error);
void rt_close_text(mcc_artifact *artifact);

/* Copies an rt_error to the caller's and returns its code. */
mcc_status rt_report(const rt_error *from, mcc_error *to);

/* Fills *error and returns `status`: for argument checks of the public functions. */
mcc_status rt_refuse(mcc_error *error, mcc_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Copies a caller's struct of options into `local`, whose fields beyond the caller's are set to 0;
 * and a result into a caller's struct, which may be older and shorter. Both structs begin with
 * struct_size. False when the caller did not set it. */
bool rt_take_struct(void *local, uint32_t local_size, const void *from);
bool rt_give_struct(const void *local, uint32_t local_size, void *to);

#endif
