/* Writing the artifact file: code, weights packed and streamed, the other sections, the footer. */
#ifndef MCC_CODEGEN_ARTIFACT_WRITER_H
#define MCC_CODEGEN_ARTIFACT_WRITER_H

#include "codegen/artifact/program.h"

#include <stdatomic.h>

typedef struct cg_section_bytes {
    mcc_section_kind kind;
    const void *bytes;
    size_t size;
} cg_section_bytes;

typedef struct cg_artifact_spec {
    const char *path;
    int code; /* descriptor of the linked code, from cg_link */
    cg_program_list *program;
    const cg_backend *backend;
    const cg_model_facts *facts;
    const cg_target_fact *targets;
    int n_targets;
    /* MANIFEST, GRAPH, PLAN, FUSED, TOKENIZER, TEMPLATE; parts of size 0 are left out. TABLES and
     * WEIGHTS are the writer's. */
    const cg_section_bytes *sections;
    int n_sections;
    int jobs;              /* threads that pack and hash weights */
    atomic_int *cancelled; /* set (by a signal handler) to stop; or NULL */
    /* Called from any of the threads, one at a time, with the bytes of weights done so far. */
    void (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
} cg_artifact_spec;

/* Writes a file without a name beside `path`, syncs it, and only then gives it the name: whatever
 * fails, `path` is as it was before. A process killed while it replaces a file, or at any time
 * where the file system has no files without names, leaves one beside it that the next call with
 * this path removes. *file_bytes becomes its size. Memory: a few MB a thread. */
bool cg_artifact_write(const cg_artifact_spec *spec, uint64_t *file_bytes, ir_diag *diag);

#endif
