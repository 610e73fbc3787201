/* Packing weights into the layout of packed.h, and back. */
#include "codegen/cpu/cpu.h"
#include "codegen/packed.h"

#include <string.h>

enum { BLOCK = CG_BLOCK_K, ROWS = CG_TILE_ROWS };

/* What a file's block says about 32 consecutive k of one row. */
typedef struct row_block {
    uint8_t codes[BLOCK];       /* unsigned; integers of 8 bits + 128 */
    uint32_t scale;             /* one level: bits of f16 or f32 */
    uint16_t offset;            /* one level: f16 bits */
    uint8_t scales[2], mins[2]; /* two levels: per group of the block */
    uint16_t d, dmin;           /* two levels: of the super group, f16 bits */
} row_block;

static uint16_t u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

/* --- the file formats' blocks (ggml-common.h's block_* structures)
 * ---------------------------------- */

static void nibbles(const uint8_t *qs, uint8_t *codes) {
    for (int j = 0; j < 16; j++) {
        codes[j] = qs[j] & 15;
        codes[j + 16] = qs[j] >> 4;
    }
}

static void fifth_bits(const uint8_t *qh, uint8_t *codes) {
    for (int j = 0; j < BLOCK; j++)
        codes[j] |= (uint8_t)((qh[j / 8] >> (j % 8) & 1) << 4);
}

/* The 6-bit scale and minimum of sub-block s of a Q4_K or Q5_K super block. */
static void six_bit_scales(const uint8_t *packed, int s, row_block *out) {
    if (s < 4) {
        out->scales[0] = packed[s] & 63;
        out->mins[0] = packed[s + 4] & 63;
    } else {
        out->scales[0] = (uint8_t)((packed[s + 4] & 15) | (packed[s - 4] >> 6) << 4);
        out->mins[0] = (uint8_t)((packed[s + 4] >> 4) | (packed[s] >> 6) << 4);
    }
}

static void read_k4_k5(const uint8_t *super, int s, bool five, row_block *out) {
    out->d = u16(super);
    out->dmin = u16(super + 2);
    six_bit_scales(super + 4, s, out);
    const uint8_t *qh = super + 16, *qs = super + (five ? 48 : 16) + s / 2 * 32;
    for (int l = 0; l < BLOCK; l++) {
        out->codes[l] = qs[l] >> (s % 2 * 4) & 15;
        if (five)
            out->codes[l] |= (uint8_t)((qh[l] >> s & 1) << 4);
    }
}

static void read_k6(const uint8_t *super, int s, row_block *out) {
    const uint8_t *ql = super + s / 4 * 64 + s % 2 * 32, *qh = super + 128 + s / 4 * 32;
    const uint8_t *scales = super + 192 + 2 * s;
    int i = s % 4;
    for (int l = 0; l < BLOCK; l++)
        out->codes[l] = (uint8_t)((ql[l] >> (i / 2 * 4) & 15) | (qh[l] >> (2 * i) & 3) << 4);
    out->scales[0] = scales[0];
    out->scales[1] = scales[1];
    out->d = u16(super + 208);
}

/* What a row's block `b` (of 32 k) says. */
static void read_block(const ir_encoding *e, const uint8_t *row, int64_t b, row_block *out) {
    const uint8_t *p = row + (e->super_group ? b / 8 : b) * e->block_bytes;
    int s = (int)(b % 8);
    switch (e->id) {
    case IR_ENC_Q4_0:
        out->scale = u16(p);
        nibbles(p + 2, out->codes);
        break;
    case IR_ENC_Q4_1:
        out->scale = u16(p);
        out->offset = u16(p + 2);
        nibbles(p + 4, out->codes);
        break;
    case IR_ENC_Q5_0:
        out->scale = u16(p);
        nibbles(p + 6, out->codes);
        fifth_bits(p + 2, out->codes);
        break;
    case IR_ENC_Q5_1:
        out->scale = u16(p);
        out->offset = u16(p + 2);
        nibbles(p + 8, out->codes);
        fifth_bits(p + 4, out->codes);
        break;
    case IR_ENC_Q8_0:
        out->scale = u16(p);
        for (int j = 0; j < BLOCK; j++)
            out->codes[j] = p[2 + j] ^ 0x80;
        break;
    case IR_ENC_FP8_E4M3:
        out->scale = u16(p) | (uint32_t)u16(p + 2) << 16;
        memcpy(out->codes, p + 4, BLOCK);
        break;
    case IR_ENC_Q4_K:
    case IR_ENC_Q5_K:
        read_k4_k5(p, s, e->id == IR_ENC_Q5_K, out);
        break;
    case IR_ENC_Q6_K:
        read_k6(p, s, out);
        break;
    case IR_ENC_A8:
    case IR_ENC_A8_E4M3:
    case IR_N_ENCODINGS:
        break; /* activations are not packed */
    }
}

/* --- blocks of a tile
 * --------------------------------------------------------------------------------- */

static void put_codes(int bits, const uint8_t *codes, int lane, uint8_t *block) {
    for (int k = 0; k < BLOCK; k++) {
        int s = k / 4, at = lane * 4 + k % 4;
        uint8_t c = codes[k];
        if (bits == 8) {
            block[s * 64 + at] = c;
            continue;
        }
        block[s % 4 * 64 + at] |= (uint8_t)((c & 15) << (s / 4 * 4));
        if (bits == 5)
            block[256 + at] |= (uint8_t)((c >> 4) << s);
        if (bits == 6)
            block[256 + s / 4 * 64 + at] |= (uint8_t)((c >> 4) << (s % 4 * 2));
    }
}

static int get_code(int bits, const uint8_t *block, int lane, int k) {
    int s = k / 4, at = lane * 4 + k % 4;
    if (bits == 8)
        return block[s * 64 + at];
    int c = block[s % 4 * 64 + at] >> (s / 4 * 4) & 15;
    if (bits == 5)
        c |= (block[256 + at] >> s & 1) << 4;
    if (bits == 6)
        c |= (block[256 + s / 4 * 64 + at] >> (s % 4 * 2) & 3) << 4;
    return c;
}

static void put_block(const ir_encoding *e, const cg_packed *p, const row_block *in, int lane,
                      uint8_t *block, uint8_t *super) {
    put_codes(e->bits, in->codes, lane, block);
    if (!e->super_group) {
        memcpy(block + p->code_bytes + p->scale_bytes * lane, &in->scale, (size_t)p->scale_bytes);
        if (p->offsets_at)
            memcpy(block + p->offsets_at + 2 * lane, &in->offset, 2);
        return;
    }
    for (int g = 0; g < p->groups; g++) {
        block[p->code_bytes + g * ROWS + lane] = in->scales[g];
        if (p->offsets_at)
            block[p->offsets_at + g * ROWS + lane] = in->mins[g];
    }
    memcpy(super + 2 * lane, &in->d, 2);
    if (p->offsets_at)
        memcpy(super + 2 * ROWS + 2 * lane, &in->dmin, 2);
}

static void pack_quantized_row(const ir_type *type, const uint8_t *row, int64_t k, int lane,
                               uint8_t *tile) {
    const ir_encoding *e = type->encoding;
    cg_packed p = cg_packed_of(e);
    int64_t blocks_per_run = p.run_k / BLOCK;
    for (int64_t b = 0; b < k / BLOCK; b++) {
        uint8_t *run = tile + b / blocks_per_run * p.run_bytes;
        uint8_t *block = run + p.super_bytes + b % blocks_per_run * p.block_bytes;
        row_block in = {0};
        read_block(e, row, b, &in);
        put_block(e, &p, &in, lane, block, run);
    }
}

/* --- tiles
 * ------------------------------------------------------------------------------------------- */

static int n_halves(const ir_type *type) {
    return type->layout && strcmp(type->layout, "n16x2") == 0 ? 2 : 1;
}

int64_t cg_cpu_packed_tiles(const ir_type *type) {
    int64_t halves = n_halves(type), rows = type->dims[0].c / halves;
    return halves * ((rows + ROWS - 1) / ROWS);
}

int64_t cg_cpu_packed_bytes(const ir_type *type) {
    if (!type->layout)
        return ir_type_bytes(type).c;
    return cg_cpu_packed_tiles(type) * cg_packed_tile_bytes(type, type->dims[1].c);
}

/* Row `lane` of a tile as a row of the weight, or -1 where the tile is beyond the rows. */
static int64_t row_of(const ir_type *type, int64_t tile, int lane) {
    int64_t halves = n_halves(type), half_rows = type->dims[0].c / halves;
    int64_t n = tile / halves * ROWS + lane;
    return n < half_rows ? tile % halves * half_rows + n : -1;
}

static const uint8_t *source_row(int n_parts, const void *const *sources, const int64_t *rows,
                                 int64_t n, int64_t row_bytes) {
    for (int i = 0; i < n_parts; i++) {
        if (n < rows[i])
            return (const uint8_t *)sources[i] + n * row_bytes;
        n -= rows[i];
    }
    return NULL;
}

void cg_cpu_pack_tiles(const ir_type *type, int n_parts, const void *const *sources,
                       const int64_t *rows, int64_t tile_begin, int64_t tile_end, void *out) {
    int64_t k = type->dims[1].c, tile_bytes = cg_packed_tile_bytes(type, k);
    int64_t size = ir_dtype_bits(type->dtype) / 8;
    int64_t row_bytes = type->encoding ? ir_encoding_row_bytes(type->encoding, k) : k * size;
    memset(out, 0, (size_t)((tile_end - tile_begin) * tile_bytes));
    for (int64_t t = tile_begin; t < tile_end; t++) {
        uint8_t *tile = (uint8_t *)out + (t - tile_begin) * tile_bytes;
        for (int lane = 0; lane < ROWS; lane++) {
            int64_t n = row_of(type, t, lane);
            const uint8_t *row = n < 0 ? NULL : source_row(n_parts, sources, rows, n, row_bytes);
            if (!row)
                continue;
            if (type->encoding)
                pack_quantized_row(type, row, k, lane, tile);
            else
                for (int64_t i = 0; i < k; i++)
                    memcpy(tile + (i * ROWS + lane) * size, row + i * size, (size_t)size);
        }
    }
}

/* --- the inverse
 * --------------------------------------------------------------------------------------- */

static float f16_at(const uint8_t *p) {
    return ir_f16_to_f32(u16(p));
}

/* A one-level scale. */
static float scale_at(const uint8_t *p, int bytes) {
    float f;
    if (bytes == 2)
        return f16_at(p);
    memcpy(&f, p, sizeof f);
    return f;
}

static float code_value(const ir_encoding *e, int code) {
    if (e->code == IR_CODE_E4M3)
        return ir_f8_to_f32((uint8_t)code, IR_F8E4M3);
    return (float)(code - (e->bits == 8 ? 128 : e->zero_point));
}

static void unpack_quantized_row(const ir_encoding *e, const uint8_t *tile, int64_t k, int lane,
                                 float *out) {
    cg_packed p = cg_packed_of(e);
    int64_t blocks_per_run = p.run_k / BLOCK;
    for (int64_t b = 0; b < k / BLOCK; b++) {
        const uint8_t *run = tile + b / blocks_per_run * p.run_bytes;
        const uint8_t *block = run + p.super_bytes + b % blocks_per_run * p.block_bytes;
        for (int i = 0; i < BLOCK; i++) {
            int g = i * p.groups / BLOCK;
            float scale, offset = 0;
            if (e->super_group) {
                uint8_t raw = block[p.code_bytes + g * ROWS + lane];
                scale = f16_at(run + 2 * lane) * (float)(e->scale == IR_I8 ? (int8_t)raw : raw);
                if (p.offsets_at)
                    offset = -f16_at(run + 2 * ROWS + 2 * lane) *
                             (float)block[p.offsets_at + g * ROWS + lane];
            } else {
                scale = scale_at(block + p.code_bytes + p.scale_bytes * lane, p.scale_bytes);
                if (p.offsets_at)
                    offset = f16_at(block + p.offsets_at + 2 * lane);
            }
            out[b * BLOCK + i] = scale * code_value(e, get_code(e->bits, block, lane, i)) + offset;
        }
    }
}

/* The tile that holds row n, and which of its rows that is. */
static const uint8_t *tile_of(const ir_type *type, const void *packed, int64_t n, int *lane) {
    int64_t halves = n_halves(type), half_rows = type->dims[0].c / halves;
    int64_t in_half = n % half_rows, tile = in_half / ROWS * halves + n / half_rows;
    *lane = (int)(in_half % ROWS);
    return (const uint8_t *)packed + tile * cg_packed_tile_bytes(type, type->dims[1].c);
}

void cg_cpu_unpack_row(const ir_type *type, const void *packed, int64_t n, float *out) {
    int64_t k = type->dims[1].c;
    int lane;
    const uint8_t *p = tile_of(type, packed, n, &lane);
    if (type->encoding) {
        unpack_quantized_row(type->encoding, p, k, lane, out);
        return;
    }
    for (int64_t i = 0; i < k; i++) {
        int64_t at = i * ROWS + lane;
        uint16_t half;
        if (type->dtype == IR_F32) {
            memcpy(&out[i], p + 4 * at, 4);
            continue;
        }
        memcpy(&half, p + 2 * at, 2);
        out[i] = type->dtype == IR_F16 ? ir_f16_to_f32(half) : ir_bf16_to_f32(half);
    }
}

/* --- back to the file's blocks
 * --------------------------------------------------------------------------------- */

static void get_block(const ir_encoding *e, const cg_packed *p, const uint8_t *block,
                      const uint8_t *super, int lane, row_block *out) {
    for (int k = 0; k < BLOCK; k++)
        out->codes[k] = (uint8_t)get_code(e->bits, block, lane, k);
    if (!e->super_group) {
        memcpy(&out->scale, block + p->code_bytes + p->scale_bytes * lane, (size_t)p->scale_bytes);
        out->offset = p->offsets_at ? u16(block + p->offsets_at + 2 * lane) : 0;
        return;
    }
    for (int g = 0; g < p->groups; g++) {
        out->scales[g] = block[p->code_bytes + g * ROWS + lane];
        out->mins[g] = p->offsets_at ? block[p->offsets_at + g * ROWS + lane] : 0;
    }
    out->d = u16(super + 2 * lane);
    out->dmin = p->offsets_at ? u16(super + 2 * ROWS + 2 * lane) : 0;
}

static void put_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put_nibbles(uint8_t *qs, const uint8_t *codes) {
    for (int j = 0; j < 16; j++)
        qs[j] = (uint8_t)((codes[j] & 15) | (codes[j + 16] & 15) << 4);
}

static void put_fifth_bits(uint8_t *qh, const uint8_t *codes) {
    for (int j = 0; j < BLOCK; j++)
        qh[j / 8] |= (uint8_t)((codes[j] >> 4) << (j % 8));
}

static void put_six_bit_scales(uint8_t *packed, int s, const row_block *in) {
    uint8_t scale = in->scales[0], min = in->mins[0];
    if (s < 4) {
        packed[s] |= scale & 63;
        packed[s + 4] |= min & 63;
    } else {
        packed[s + 4] |= (uint8_t)((scale & 15) | (min & 15) << 4);
        packed[s - 4] |= (uint8_t)(scale >> 4 << 6);
        packed[s] |= (uint8_t)(min >> 4 << 6);
    }
}

static void write_k4_k5(uint8_t *super, int s, bool five, const row_block *in) {
    put_u16(super, in->d);
    put_u16(super + 2, in->dmin);
    put_six_bit_scales(super + 4, s, in);
    uint8_t *qh = super + 16, *qs = super + (five ? 48 : 16) + s / 2 * 32;
    for (int l = 0; l < BLOCK; l++) {
        qs[l] |= (uint8_t)((in->codes[l] & 15) << (s % 2 * 4));
        if (five)
            qh[l] |= (uint8_t)((in->codes[l] >> 4) << s);
    }
}

static void write_k6(uint8_t *super, int s, const row_block *in) {
    uint8_t *ql = super + s / 4 * 64 + s % 2 * 32, *qh = super + 128 + s / 4 * 32;
    int i = s % 4;
    for (int l = 0; l < BLOCK; l++) {
        ql[l] |= (uint8_t)((in->codes[l] & 15) << (i / 2 * 4));
        qh[l] |= (uint8_t)((in->codes[l] >> 4) << (2 * i));
    }
    super[192 + 2 * s] = in->scales[0];
    super[193 + 2 * s] = in->scales[1];
    put_u16(super + 208, in->d);
}

/* Block `b` of a row of zeros. */
static void write_block(const ir_encoding *e, uint8_t *row, int64_t b, const row_block *in) {
    uint8_t *p = row + (e->super_group ? b / 8 : b) * e->block_bytes;
    int s = (int)(b % 8);
    if (!e->super_group)
        put_u16(p, (uint16_t)in->scale);
    if (!e->super_group && e->offset != IR_OFFSET_NONE)
        put_u16(p + 2, in->offset);
    switch (e->id) {
    case IR_ENC_Q4_0:
        put_nibbles(p + 2, in->codes);
        break;
    case IR_ENC_Q4_1:
        put_nibbles(p + 4, in->codes);
        break;
    case IR_ENC_Q5_0:
        put_nibbles(p + 6, in->codes);
        put_fifth_bits(p + 2, in->codes);
        break;
    case IR_ENC_Q5_1:
        put_nibbles(p + 8, in->codes);
        put_fifth_bits(p + 4, in->codes);
        break;
    case IR_ENC_Q8_0:
        for (int j = 0; j < BLOCK; j++)
            p[2 + j] = in->codes[j] ^ 0x80;
        break;
    case IR_ENC_FP8_E4M3:
        put_u16(p + 2, (uint16_t)(in->scale >> 16));
        memcpy(p + 4, in->codes, BLOCK);
        break;
    case IR_ENC_Q4_K:
    case IR_ENC_Q5_K:
        write_k4_k5(p, s, e->id == IR_ENC_Q5_K, in);
        break;
    case IR_ENC_Q6_K:
        write_k6(p, s, in);
        break;
    case IR_ENC_A8:
    case IR_ENC_A8_E4M3:
    case IR_N_ENCODINGS:
        break;
    }
}

void cg_cpu_restore_row(const ir_type *type, const void *packed, int64_t n, void *out) {
    int64_t k = type->dims[1].c;
    int lane;
    const uint8_t *tile = tile_of(type, packed, n, &lane);
    if (!type->encoding) {
        int64_t size = ir_dtype_bits(type->dtype) / 8;
        for (int64_t i = 0; i < k; i++)
            memcpy((uint8_t *)out + i * size, tile + (i * ROWS + lane) * size, (size_t)size);
        return;
    }
    cg_packed p = cg_packed_of(type->encoding);
    int64_t blocks_per_run = p.run_k / BLOCK;
    memset(out, 0, (size_t)ir_encoding_row_bytes(type->encoding, k));
    for (int64_t b = 0; b < k / BLOCK; b++) {
        const uint8_t *run = tile + b / blocks_per_run * p.run_bytes;
        row_block block = {0};
        get_block(type->encoding, &p, run + p.super_bytes + b % blocks_per_run * p.block_bytes, run,
                  lane, &block);
        write_block(type->encoding, out, b, &block);
    }
}
