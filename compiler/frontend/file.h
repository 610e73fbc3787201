/* Read-only files: weights are used in place, so a model is mapped, never read into memory. */
#ifndef MCC_FRONTEND_FILE_H
#define MCC_FRONTEND_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ir/arena.h"
#include "ir/diag.h"

/* Bytes that belong to a file; not NUL-terminated. */
typedef struct fe_bytes {
    const uint8_t *data;
    size_t size;
} fe_bytes;

/* A mapped file. `path` is the caller's string and is used in messages; `data` stays valid until
 * fe_file_unmap. An empty file has data NULL and size 0. */
typedef struct fe_file {
    const char *path;
    const uint8_t *data;
    size_t size;
} fe_file;

/* Maps a regular file. Errors: the path, and what the system said. */
bool fe_file_map(fe_file *file, const char *path, ir_diag *diag);
void fe_file_unmap(fe_file *file);
/* Gives the memory of these bytes of the file back to the system; whoever reads them, now or later,
 * gets them from its cache or the disk again. */
void fe_file_release(const fe_file *file, size_t begin, size_t size);

/* True when `path` names something that exists. */
bool fe_path_exists(const char *path);
bool fe_path_is_directory(const char *path);

/* A copy of foreign bytes that is safe to print: valid UTF-8 in which '?' stands for what was not,
 * and for control characters; long text is cut. Owned by the arena. */
const char *fe_printable(ir_arena *arena, const void *data, size_t size);
const char *fe_printable_text(ir_arena *arena, const char *text); /* that ends with 0 */

/* True for 1 to `longest` printable ASCII characters without spaces: keys and tensors' names, which
 * stand in messages and in what we write. */
bool fe_name_is_clean(const void *data, size_t size, size_t longest);

#endif
