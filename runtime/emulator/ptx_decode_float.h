/* The floating-point forms of instructions whose roots integers share: the type is taken. */
#ifndef MCC_RUNTIME_EMULATOR_PTX_DECODE_FLOAT_H
#define MCC_RUNTIME_EMULATOR_PTX_DECODE_FLOAT_H

#include "runtime/emulator/ptx_decode.h"

void ptx_decode_float2(ptx_decoder *d, const char *root, ptx_type type); /* add sub mul min max */
void ptx_decode_fma(ptx_decoder *d, ptx_type type);
void ptx_decode_div(ptx_decoder *d, ptx_type type);
void ptx_decode_sign(ptx_decoder *d, const char *root, ptx_type type); /* neg abs */

#endif
