/* Linking object files into the ELF part of an artifact, with LLVM's linker in a process of its
 * own. Inputs and output live in memory files, so that nothing is left behind whatever happens. */
#ifndef MCC_CODEGEN_ARTIFACT_LINK_H
#define MCC_CODEGEN_ARTIFACT_LINK_H

#include "ir/diag.h"

#include <stddef.h>

typedef struct cg_link_input {
    const void *bytes;
    size_t size;
} cg_link_input;

/* The linker's path in `path`: ld.lld-19 or ld.lld. False (and "") when there is none. */
bool cg_linker_find(char *path, size_t capacity);

/* Returns a descriptor of a memory file that holds the shared object, at offset 0; the caller
 * closes it. -1 after an error. Same inputs, same bytes. */
int cg_link(const cg_link_input *inputs, int n_inputs, ir_diag *diag);

#endif
