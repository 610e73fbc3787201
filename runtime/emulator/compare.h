/* Names of comparisons, shared by the decoder and its handlers. */
#ifndef MCC_RUNTIME_EMULATOR_COMPARE_H
#define MCC_RUNTIME_EMULATOR_COMPARE_H

/* The unordered ones come last, in the order of the ordered. */
typedef enum emu_compare {
    EMU_EQ,
    EMU_NE,
    EMU_LT,
    EMU_LE,
    EMU_GT,
    EMU_GE,
    EMU_EQU,
    EMU_NEU,
    EMU_LTU,
    EMU_LEU,
    EMU_GTU,
    EMU_GEU,
    EMU_NUM,
    EMU_NANS /* setp.nan: either is NaN */
} emu_compare;

/* What is compared: op->size. */
typedef enum emu_compared {
    EMU_COMPARED_S16,
    EMU_COMPARED_U16,
    EMU_COMPARED_S32,
    EMU_COMPARED_U32,
    EMU_COMPARED_S64,
    EMU_COMPARED_U64,
    EMU_COMPARED_F32,
    EMU_COMPARED_F64,
    EMU_COMPARED_F16,
    EMU_COMPARED_BF16
} emu_compared;

#endif
