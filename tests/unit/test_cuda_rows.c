/* The row programs of test_cpu_rows.c on the emulated GPU: the same bits as the CPU's. */
#define MCC_ROWS_ON_CUDA
#include "test_cpu_rows.c"
