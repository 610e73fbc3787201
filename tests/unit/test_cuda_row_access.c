/* What row programs read and write besides plain numbers, as in test_cpu_row_access.c, on the
 * emulated GPU: the same bits as the CPU's. */
#define MCC_ROWS_ON_CUDA
#include "test_cpu_row_access.c"
