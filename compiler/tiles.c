#include "compiler/tiles.h"

#include <cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 1, MOST_TEXT = 200, MOST_ROWS_NUMBER = 1 << 20 };

/* --- reading -------------------------------------------------------------------------------------
 */

typedef struct reader {
    const char *where;
    ir_arena *arena;
    ir_diag *diag;
    const char *key; /* of the entry at hand */
} reader;

#define BAD(r, ...) ir_error((r)->diag, (r)->where, __VA_ARGS__)

static bool whole(const cJSON *j, int least, int most, int *out) {
    if (!cJSON_IsNumber(j) || j->valuedouble < least || j->valuedouble > most ||
        j->valuedouble != floor(j->valuedouble))
        return false;
    *out = (int)j->valuedouble;
    return true;
}

/* A text that may stand in messages and names. */
static const char *short_text(const reader *r, const cJSON *j) {
    if (!cJSON_IsString(j) || !*j->valuestring || strlen(j->valuestring) > MOST_TEXT)
        return NULL;
    for (const char *p = j->valuestring; *p; p++)
        if ((unsigned char)*p < ' ')
            return NULL;
    return ir_arena_strdup(r->arena, j->valuestring);
}

static int find_form(const cJSON *j) {
    for (int i = 0; i < CG_N_FORMS; i++)
        if (cJSON_IsString(j) && strcmp(j->valuestring, cg_cuda_forms[i].name) == 0)
            return i;
    return -1;
}

static bool read_value(const reader *r, const cJSON *field, cg_cuda_tile *t, unsigned *seen) {
    const cg_cuda_form *form = &cg_cuda_forms[t->form];
    for (int i = 0; i < CG_TILE_VALUES && form->values[i]; i++)
        if (strcmp(field->string, form->values[i]) == 0) {
            if (*seen >> i & 1)
                return BAD(r, "%s: \"%s\" stands twice", r->key, field->string);
            *seen |= 1u << i;
            return whole(field, -MOST_ROWS_NUMBER, MOST_ROWS_NUMBER, &t->values[i]) ||
                   BAD(r, "%s: \"%s\" is not a whole number", r->key, field->string);
        }
    return strcmp(field->string, "rows") == 0 || strcmp(field->string, "form") == 0 ||
           BAD(r, "%s: %s has no \"%s\"", r->key, form->name, field->string);
}

static bool read_tile(const reader *r, const cJSON *j, cg_cuda_tile *t) {
    int rows, form = find_form(cJSON_GetObjectItemCaseSensitive(j, "form"));
    unsigned seen = 0;
    if (form < 0)
        return BAD(r, "%s: a variant without a \"form\" that is known", r->key);
    if (!whole(cJSON_GetObjectItemCaseSensitive(j, "rows"), 0, MOST_ROWS_NUMBER, &rows))
        return BAD(r, "%s: \"rows\" is not a number from 0 to %d", r->key, MOST_ROWS_NUMBER);
    *t = (cg_cuda_tile){.min_rows = (uint32_t)rows, .form = (cg_cuda_form_id)form};
    const cJSON *field;
    cJSON_ArrayForEach(field, j) {
        if (!read_value(r, field, t, &seen))
            return false;
    }
    for (int i = 0; i < CG_TILE_VALUES && cg_cuda_forms[form].values[i]; i++)
        if (!(seen >> i & 1))
            return BAD(r, "%s: %s lacks \"%s\"", r->key, cg_cuda_forms[form].name,
                       cg_cuda_forms[form].values[i]);
    return true;
}

static bool read_origin(const reader *r, const cJSON *j, tile_entry *e) {
    const cJSON *measured = cJSON_GetObjectItemCaseSensitive(j, "measured"),
                *predicted = cJSON_GetObjectItemCaseSensitive(j, "predicted"),
                *from = measured ? measured : predicted;
    if (measured && predicted)
        return BAD(r, "%s: both measured and predicted", r->key);
    if (!from)
        return true;
    const cJSON *time = cJSON_GetObjectItemCaseSensitive(from, "microseconds");
    e->origin = measured ? TILE_MEASURED : TILE_PREDICTED;
    e->device = short_text(r, cJSON_GetObjectItemCaseSensitive(from, "device"));
    e->date = short_text(r, cJSON_GetObjectItemCaseSensitive(from, "date"));
    if (!e->device || !e->date || !cJSON_IsNumber(time) || !isfinite(time->valuedouble) ||
        time->valuedouble < 0)
        return BAD(r, "%s: \"%s\" lacks device, date or microseconds", r->key,
                   measured ? "measured" : "predicted");
    e->microseconds = time->valuedouble;
    return true;
}

static bool read_entry(reader *r, const cJSON *j, tile_entry *e) {
    const cJSON *variants = cJSON_GetObjectItemCaseSensitive(j, "variants"), *variant;
    r->key = short_text(r, cJSON_GetObjectItemCaseSensitive(j, "key"));
    if (!r->key)
        return BAD(r, "an entry without a \"key\" of at most %d characters", MOST_TEXT);
    *e = (tile_entry){.tiling = {.key = r->key}};
    if (!cJSON_IsArray(variants) || cJSON_GetArraySize(variants) < 1 ||
        cJSON_GetArraySize(variants) > CG_MOST_TILES)
        return BAD(r, "%s: expected 1 to %d variants", r->key, CG_MOST_TILES);
    cJSON_ArrayForEach(variant, variants) {
        if (!read_tile(r, variant, &e->tiling.tiles[e->tiling.n++]))
            return false;
    }
    return read_origin(r, j, e);
}

static int find(const tile_table *table, const char *key, bool *found) {
    int at = 0;
    while (at < table->n && strcmp(table->entries[at].tiling.key, key) < 0)
        at++;
    *found = at < table->n && strcmp(table->entries[at].tiling.key, key) == 0;
    return at;
}

static bool read_all(reader *r, const cJSON *root, tile_table *out) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "tiles"), *j;
    int format;
    bool found;
    if (!whole(cJSON_GetObjectItemCaseSensitive(root, "modelcc_tiles"), FORMAT, FORMAT, &format) ||
        !cJSON_IsArray(list))
        return BAD(r,
                   "it is not a file of tiles: expected {\"modelcc_tiles\": %d, \"tiles\": [...]}",
                   FORMAT);
    cJSON_ArrayForEach(j, list) {
        tile_entry e;
        if (!read_entry(r, j, &e))
            return false;
        find(out, e.tiling.key, &found);
        if (found)
            return BAD(r, "%s stands twice", e.tiling.key);
        tile_table_add(out, &e, r->arena);
    }
    return true;
}

bool tile_table_parse(const char *text, size_t size, const char *where, ir_arena *arena,
                      ir_diag *diag, tile_table *out) {
    reader r = {where, arena, diag, NULL};
    *out = (tile_table){0};
    cJSON *root = cJSON_ParseWithLength(text, size);
    bool ok = root ? read_all(&r, root, out) : BAD(&r, "it is not JSON");
    cJSON_Delete(root);
    return ok;
}

/* --- writing -------------------------------------------------------------------------------------
 */

static cJSON *tile_json(const cg_cuda_tile *t) {
    const cg_cuda_form *form = &cg_cuda_forms[t->form];
    cJSON *j = cJSON_CreateObject();
    cJSON_AddNumberToObject(j, "rows", t->min_rows);
    cJSON_AddStringToObject(j, "form", form->name);
    for (int i = 0; i < CG_TILE_VALUES && form->values[i]; i++)
        cJSON_AddNumberToObject(j, form->values[i], t->values[i]);
    return j;
}

/* A variant a line: cJSON would take a line a number. */
static char *entry_text(const tile_entry *e) {
    char *bytes = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&bytes, &size);
    if (!f)
        return NULL;
    cJSON *key = cJSON_CreateString(e->tiling.key);
    char *printed = cJSON_PrintUnformatted(key);
    fprintf(f, "  {\"key\": %s,\n   \"variants\": [", printed ? printed : "\"\"");
    free(printed);
    cJSON_Delete(key);
    for (int i = 0; i < e->tiling.n; i++) {
        cJSON *j = tile_json(&e->tiling.tiles[i]);
        printed = cJSON_PrintUnformatted(j);
        fprintf(f, "%s%s", i ? ",\n                " : "", printed ? printed : "{}");
        free(printed);
        cJSON_Delete(j);
    }
    fputs("]", f);
    if (e->origin != TILE_STATED) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddStringToObject(j, "device", e->device);
        cJSON_AddStringToObject(j, "date", e->date);
        cJSON_AddNumberToObject(j, "microseconds", e->microseconds);
        printed = cJSON_PrintUnformatted(j);
        fprintf(f, ",\n   \"%s\": %s", e->origin == TILE_MEASURED ? "measured" : "predicted",
                printed ? printed : "{}");
        free(printed);
        cJSON_Delete(j);
    }
    fputs("}", f);
    if (fclose(f)) {
        free(bytes);
        return NULL;
    }
    return bytes;
}

char *tile_table_print(const tile_table *table) {
    char *bytes = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&bytes, &size);
    if (!f)
        return NULL;
    bool ok = fprintf(f, "{\"modelcc_tiles\": %d,\n \"tiles\": [", FORMAT) > 0;
    for (int i = 0; ok && i < table->n; i++) {
        char *text = entry_text(&table->entries[i]);
        ok = text && fprintf(f, "%s\n%s", i ? "," : "", text) > 0;
        free(text);
    }
    fputs("\n ]}\n", f);
    ok = fclose(f) == 0 && ok;
    if (!ok) {
        free(bytes);
        return NULL;
    }
    return bytes;
}

/* --- merging -------------------------------------------------------------------------------------
 */

static bool better(const tile_entry *a, const tile_entry *b) {
    if (a->origin != b->origin)
        return a->origin > b->origin;
    int later = a->origin == TILE_STATED ? 0 : strcmp(a->date, b->date);
    if (later)
        return later > 0;
    if (a->microseconds != b->microseconds)
        return a->microseconds < b->microseconds;
    char *text_a = entry_text(a), *text_b = entry_text(b);
    bool first = text_a && text_b && strcmp(text_a, text_b) < 0;
    free(text_a);
    free(text_b);
    return first;
}

void tile_table_add(tile_table *table, const tile_entry *entry, ir_arena *arena) {
    bool found;
    int at = find(table, entry->tiling.key, &found);
    if (found) {
        if (better(entry, &table->entries[at]))
            table->entries[at] = *entry;
        return;
    }
    tile_entry *grown = ir_arena_array(arena, (size_t)table->n + 1, sizeof *grown);
    for (int i = 0; i < table->n; i++)
        grown[i + (i >= at)] = table->entries[i];
    grown[at] = *entry;
    table->entries = grown;
    table->n++;
}

cg_cuda_tiles tile_table_tiles(const tile_table *table, ir_arena *arena) {
    cg_cuda_tiling *all = ir_arena_array(arena, (size_t)table->n + 1, sizeof *all);
    for (int i = 0; i < table->n; i++)
        all[i] = table->entries[i].tiling;
    return (cg_cuda_tiles){all, table->n};
}
