/* The table of tiles: for an architecture and a kind, encoding and shape of kernel, the functions
 * that it becomes, each with its tile, and the number of rows from which on it is taken. What the
 * table does not say, the cost model decides (cost.h). Tiles say how work is cut, never in which
 * order sums are added up, so results have the same bits with every table. */
#ifndef MCC_CODEGEN_CUDA_TILES_H
#define MCC_CODEGEN_CUDA_TILES_H

#include "codegen/kernel.h"
#include "ir/diag.h"

#include <stdint.h>

struct cg_cuda_target;

enum { CG_TILE_VALUES = 6, CG_MOST_TILES = 16 };

typedef enum cg_cuda_form_id {
#define FORM(id, ...) CG_FORM_##id,
#include "codegen/cuda/tile_forms.def"
#undef FORM
    CG_N_FORMS
} cg_cuda_form_id;

typedef struct cg_cuda_form {
    const char *name;
    const char *values[CG_TILE_VALUES]; /* their names; NULL behind the last one */
    int least[CG_TILE_VALUES], most[CG_TILE_VALUES];
} cg_cuda_form;

extern const cg_cuda_form cg_cuda_forms[CG_N_FORMS];

/* One function (or two, of a kernel with a prologue). */
typedef struct cg_cuda_tile {
    uint32_t min_rows; /* taken for so many rows and more; the first tile's is 0, they ascend */
    cg_cuda_form_id form;
    int values[CG_TILE_VALUES]; /* in the form's order */
} cg_cuda_tile;

/* All functions of a kernel. */
typedef struct cg_cuda_tiling {
    const char *key; /* "sm_90a a8 q4_1 960x576" */
    int n;
    cg_cuda_tile tiles[CG_MOST_TILES];
} cg_cuda_tiling;

typedef struct cg_cuda_tiles {
    const cg_cuda_tiling *all; /* keys differ */
    int n;
} cg_cuda_tiles;

/* What a kernel is found by: the architecture ("any" where target is NULL), then what determines
 * which tiles it can have: of matmuls the activations, the weight's type, outputs x inputs, and
 * whether two halves go in lockstep and a prologue is computed; of attention the pages' type,
 * heads, the size of a head and the window. In `arena`; NULL for a kernel without tiles. */
const char *cg_cuda_tile_key(const cg_kernel *kernel, const struct cg_cuda_target *target,
                             ir_arena *arena);
/* NULL where the table has none; tiles may be NULL. */
const cg_cuda_tiling *cg_cuda_tiles_find(const cg_cuda_tiles *tiles, const char *key);

/* Tiles worth measuring of a kernel on an architecture, all with min_rows 0 and legal; returns how
 * many, at most `capacity`. */
int cg_cuda_tile_candidates(const cg_kernel *kernel, const struct cg_cuda_target *target,
                            ir_arena *arena, cg_cuda_tile *out, int capacity);

/* Of attention whose blocks share what a tile sees: the number of rows from which on tiles with
 * splits are not legal. 0: a kernel without splits. */
uint32_t cg_cuda_split_rows(const cg_kernel *kernel);

#endif
