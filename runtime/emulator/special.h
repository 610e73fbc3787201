/* Special registers. */
#ifndef MCC_RUNTIME_EMULATOR_SPECIAL_H
#define MCC_RUNTIME_EMULATOR_SPECIAL_H

typedef enum emu_special {
    EMU_TID, /* these four: .x, .y, .z in op->n */
    EMU_NTID,
    EMU_CTAID,
    EMU_NCTAID,
    EMU_LANEID,
    EMU_WARPID,
    EMU_NWARPID,
    EMU_SMID,
    EMU_NSMID,
    EMU_GRIDID,
    EMU_LANEMASK_EQ,
    EMU_LANEMASK_LT,
    EMU_LANEMASK_LE,
    EMU_LANEMASK_GT,
    EMU_LANEMASK_GE,
    EMU_CLOCK,
    EMU_CLOCK_HI,
    EMU_DYNAMIC_SHARED,
    EMU_TOTAL_SHARED,
    EMU_ZERO,
    EMU_ONE
} emu_special;

#endif
