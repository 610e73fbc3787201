/* Files of tiles (codegen/cuda/tiles.h): JSON that a build takes with --tiles, writes with --emit
 * tiles, and that modelcc tune makes and merges. A file is an object
 *
 *     {"modelcc_tiles": 1,
 *      "tiles": [{"key": "sm_90a a8 q4_1 960x576",
 *                 "variants": [{"rows": 0, "form": "a8_decode", "tokens": 1, "warps": 8, …}, …],
 *                 "measured": {"device": "NVIDIA H100 80GB HBM3", "date": "2026-11-26",
 *                              "microseconds": 12.5}}, …]}
 *
 * with an entry a key, in the order of keys. "measured" is what a run on that device took, all
 * numbers of rows together; "predicted", in its place, what the emulator's counts and a data sheet
 * make of it; an entry has one of them or none. */
#ifndef MCC_COMPILER_TILES_H
#define MCC_COMPILER_TILES_H

#include "codegen/cuda/tiles.h"

#include <stddef.h>

typedef enum tile_origin { TILE_STATED, TILE_PREDICTED, TILE_MEASURED } tile_origin;

typedef struct tile_entry {
    cg_cuda_tiling tiling;
    tile_origin origin;
    const char *device, *date; /* unless TILE_STATED */
    double microseconds;
} tile_entry;

typedef struct tile_table {
    tile_entry *entries; /* by key, ascending */
    int n;
} tile_table;

/* Everything is in `arena`. False after reporting what is wrong in file `where`: not the format, an
 * unknown form or parameter, a missing or doubled one, a doubled key. Whether tiles are legal shows
 * when a kernel takes them. */
bool tile_table_parse(const char *text, size_t size, const char *where, ir_arena *arena,
                      ir_diag *diag, tile_table *out);
/* The file's text; malloc'ed, NULL when memory is short. The same table gives the same bytes. */
char *tile_table_print(const tile_table *table);

/* Adds an entry; of two with one key the better one stays: measured before predicted before stated,
 * then the later date, then the fewer microseconds, then the text that is first by bytes. So the
 * order in which tables are merged does not matter. */
void tile_table_add(tile_table *table, const tile_entry *entry, ir_arena *arena);

/* For cg_cuda_generate_for. */
cg_cuda_tiles tile_table_tiles(const tile_table *table, ir_arena *arena);

#endif
