/* Names of atomic operations, shared by the decoder and the handler. */
#ifndef MCC_RUNTIME_EMULATOR_ATOMIC_H
#define MCC_RUNTIME_EMULATOR_ATOMIC_H

typedef enum emu_atomic {
    EMU_ATOMIC_ADD,
    EMU_ATOMIC_MIN,
    EMU_ATOMIC_MAX,
    EMU_ATOMIC_AND,
    EMU_ATOMIC_OR,
    EMU_ATOMIC_XOR,
    EMU_ATOMIC_EXCH,
    EMU_ATOMIC_CAS,
    EMU_ATOMIC_INC,
    EMU_ATOMIC_DEC
} emu_atomic;

/* What is worked on: op->flags. */
typedef enum emu_atomic_type {
    EMU_ATOMIC_UNSIGNED,
    EMU_ATOMIC_SIGNED,
    EMU_ATOMIC_F32,
    EMU_ATOMIC_F64,
    EMU_ATOMIC_F16X2, /* and f16 where op->size is 2 */
    EMU_ATOMIC_BF16X2
} emu_atomic_type;

#endif
