/* The part of the CUDA driver API that modelcc uses: types, codes and signatures as they are in the
 * ABI of libcuda.so.1 since CUDA 12, so that neither the runtime nor the emulator needs the CUDA
 * Toolkit to be built. The runtime looks the functions up with dlsym; libcuda_emulator.so exports
 * the same ones.
 *
 * Names are the exported symbols', version suffix included. Where NVIDIA's cuda.h was included
 * before this header, its types are used and only the tables below are added: that is how the unit
 * tests compare the two. */
#ifndef MCC_RUNTIME_CUDA_API_H
#define MCC_RUNTIME_CUDA_API_H

#include <stddef.h>

/* X(name, code, what it means) */
/* clang-format off */
#define CUDA_API_ERRORS(X) \
    X(CUDA_SUCCESS, 0, "no error") \
    X(CUDA_ERROR_INVALID_VALUE, 1, "an argument is out of its range") \
    X(CUDA_ERROR_OUT_OF_MEMORY, 2, "not enough memory") \
    X(CUDA_ERROR_NOT_INITIALIZED, 3, "cuInit has not been called") \
    X(CUDA_ERROR_DEINITIALIZED, 4, "the driver is shutting down") \
    X(CUDA_ERROR_STUB_LIBRARY, 34, "the library is a link-time stand-in without a driver") \
    X(CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER, 36, "the call needs a newer driver") \
    X(CUDA_ERROR_DEVICE_UNAVAILABLE, 46, "the device is busy or unavailable") \
    X(CUDA_ERROR_NO_DEVICE, 100, "no CUDA device was found") \
    X(CUDA_ERROR_INVALID_DEVICE, 101, "no device has this number") \
    X(CUDA_ERROR_INVALID_IMAGE, 200, "the module image is damaged or of an unknown kind") \
    X(CUDA_ERROR_INVALID_CONTEXT, 201, "no valid context is current") \
    X(CUDA_ERROR_NO_BINARY_FOR_GPU, 209, "the module has no code for this GPU") \
    X(CUDA_ERROR_ECC_UNCORRECTABLE, 214, "an uncorrectable memory error was found") \
    X(CUDA_ERROR_INVALID_PTX, 218, "the PTX could not be compiled") \
    X(CUDA_ERROR_JIT_COMPILER_NOT_FOUND, 221, "the driver's PTX compiler was not found") \
    X(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, 222, "the PTX is of a newer version than the driver \
        knows") \
    X(CUDA_ERROR_JIT_COMPILATION_DISABLED, 223, "compilation of PTX is switched off") \
    X(CUDA_ERROR_INVALID_SOURCE, 300, "the kernel source is invalid") \
    X(CUDA_ERROR_FILE_NOT_FOUND, 301, "a file was not found") \
    X(CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND, 302, "a symbol of a shared object was not found") \
    X(CUDA_ERROR_SHARED_OBJECT_INIT_FAILED, 303, "a shared object could not be initialised") \
    X(CUDA_ERROR_OPERATING_SYSTEM, 304, "an operating system call failed") \
    X(CUDA_ERROR_INVALID_HANDLE, 400, "the handle is not valid") \
    X(CUDA_ERROR_ILLEGAL_STATE, 401, "the resource is not in a state that allows this") \
    X(CUDA_ERROR_NOT_FOUND, 500, "the named symbol was not found") \
    X(CUDA_ERROR_NOT_READY, 600, "work is still under way") \
    X(CUDA_ERROR_ILLEGAL_ADDRESS, 700, "a kernel accessed memory that is not its") \
    X(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701, "the launch needs more resources than a \
        multiprocessor has") \
    X(CUDA_ERROR_LAUNCH_TIMEOUT, 702, "a kernel ran too long") \
    X(CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE, 708, "the primary context is already in use") \
    X(CUDA_ERROR_CONTEXT_IS_DESTROYED, 709, "the current context has been destroyed") \
    X(CUDA_ERROR_ASSERT, 710, "an assertion failed in a kernel") \
    X(CUDA_ERROR_HARDWARE_STACK_ERROR, 714, "a kernel corrupted its call stack") \
    X(CUDA_ERROR_ILLEGAL_INSTRUCTION, 715, "a kernel met an illegal instruction") \
    X(CUDA_ERROR_MISALIGNED_ADDRESS, 716, "a kernel accessed a misaligned address") \
    X(CUDA_ERROR_INVALID_ADDRESS_SPACE, 717, "a kernel used an address in the wrong space") \
    X(CUDA_ERROR_INVALID_PC, 718, "a kernel jumped outside of its code") \
    X(CUDA_ERROR_LAUNCH_FAILED, 719, "a kernel failed while it ran") \
    X(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, 720, "the blocks of a cooperative launch do not \
        fit the device at once") \
    X(CUDA_ERROR_NOT_PERMITTED, 800, "the call is not permitted here") \
    X(CUDA_ERROR_NOT_SUPPORTED, 801, "not supported on this device or driver") \
    X(CUDA_ERROR_SYSTEM_NOT_READY, 802, "the system is not ready for CUDA work") \
    X(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, 803, "kernel driver and driver library differ in \
        version") \
    X(CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE, 804, "forward compatibility is not supported on \
        this device") \
    X(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 900, "the call is not allowed while a stream is \
        capturing") \
    X(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, 901, "the capture was invalidated by an earlier \
        error") \
    X(CUDA_ERROR_STREAM_CAPTURE_MERGE, 902, "two captures would be merged") \
    X(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, 903, "the capture was not begun in this stream") \
    X(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, 904, "the capture has a fork that was not joined") \
    X(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, 905, "a capture would depend on work outside of it") \
    X(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, 906, "the legacy stream would implicitly wait for a \
        capturing one") \
    X(CUDA_ERROR_CAPTURED_EVENT, 907, "the event was last recorded in a capturing stream") \
    X(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, 908, "the capture was begun by another thread") \
    X(CUDA_ERROR_TIMEOUT, 909, "waiting took too long") \
    X(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, 910, "the graph cannot be updated in this way") \
    X(CUDA_ERROR_INVALID_CLUSTER_SIZE, 912, "the cluster does not fit the device") \
    X(CUDA_ERROR_FUNCTION_NOT_LOADED, 913, "the function is not loaded") \
    X(CUDA_ERROR_UNKNOWN, 999, "an unknown internal error")

/* X(name, value), all the tables that follow. */
#define CUDA_API_DEVICE_ATTRIBUTES(X) \
    X(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1) \
    X(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 2) \
    X(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, 3) \
    X(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 4) \
    X(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 5) \
    X(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 6) \
    X(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 7) \
    X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 8) \
    X(CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY, 9) \
    X(CU_DEVICE_ATTRIBUTE_WARP_SIZE, 10) \
    X(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, 12) \
    X(CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 13) \
    X(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16) \
    X(CU_DEVICE_ATTRIBUTE_INTEGRATED, 18) \
    X(CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 19) \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, 20) \
    X(CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 31) \
    X(CU_DEVICE_ATTRIBUTE_ECC_ENABLED, 32) \
    X(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 36) \
    X(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 37) \
    X(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 38) \
    X(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 39) \
    X(CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 40) \
    X(CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 41) \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 75) \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 76) \
    X(CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED, 78) \
    X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 81) \
    X(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 82) \
    X(CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 83) \
    X(CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, 88) \
    X(CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 91) \
    X(CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 95) \
    X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 97) \
    X(CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, 106) \
    X(CU_DEVICE_ATTRIBUTE_MAX_PERSISTING_L2_CACHE_SIZE, 108) \
    X(CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK, 111) \
    X(CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 115) \
    X(CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH, 120)

#define CUDA_API_FUNCTION_ATTRIBUTES(X) \
    X(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 0) \
    X(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, 1) \
    X(CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES, 2) \
    X(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, 3) \
    X(CU_FUNC_ATTRIBUTE_NUM_REGS, 4) \
    X(CU_FUNC_ATTRIBUTE_PTX_VERSION, 5) \
    X(CU_FUNC_ATTRIBUTE_BINARY_VERSION, 6) \
    X(CU_FUNC_ATTRIBUTE_CACHE_MODE_CA, 7) \
    X(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 8) \
    X(CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 9)

#define CUDA_API_JIT_OPTIONS(X) \
    X(CU_JIT_MAX_REGISTERS, 0) \
    X(CU_JIT_THREADS_PER_BLOCK, 1) \
    X(CU_JIT_WALL_TIME, 2) \
    X(CU_JIT_INFO_LOG_BUFFER, 3) \
    X(CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, 4) \
    X(CU_JIT_ERROR_LOG_BUFFER, 5) \
    X(CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, 6) \
    X(CU_JIT_OPTIMIZATION_LEVEL, 7) \
    X(CU_JIT_TARGET_FROM_CUCONTEXT, 8) \
    X(CU_JIT_TARGET, 9) \
    X(CU_JIT_FALLBACK_STRATEGY, 10) \
    X(CU_JIT_GENERATE_DEBUG_INFO, 11) \
    X(CU_JIT_LOG_VERBOSE, 12) \
    X(CU_JIT_GENERATE_LINE_INFO, 13) \
    X(CU_JIT_CACHE_MODE, 14)

#define CUDA_API_POINTER_ATTRIBUTES(X) \
    X(CU_POINTER_ATTRIBUTE_CONTEXT, 1) \
    X(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, 2) \
    X(CU_POINTER_ATTRIBUTE_DEVICE_POINTER, 3) \
    X(CU_POINTER_ATTRIBUTE_HOST_POINTER, 4) \
    X(CU_POINTER_ATTRIBUTE_IS_MANAGED, 8) \
    X(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, 9)

#define CUDA_API_CAPTURE_MODES(X) \
    X(CU_STREAM_CAPTURE_MODE_GLOBAL, 0) \
    X(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, 1) \
    X(CU_STREAM_CAPTURE_MODE_RELAXED, 2)

#define CUDA_API_CAPTURE_STATUSES(X) \
    X(CU_STREAM_CAPTURE_STATUS_NONE, 0) \
    X(CU_STREAM_CAPTURE_STATUS_ACTIVE, 1) \
    X(CU_STREAM_CAPTURE_STATUS_INVALIDATED, 2)

#define CUDA_API_NODE_TYPES(X) \
    X(CU_GRAPH_NODE_TYPE_KERNEL, 0) \
    X(CU_GRAPH_NODE_TYPE_MEMCPY, 1) \
    X(CU_GRAPH_NODE_TYPE_MEMSET, 2) \
    X(CU_GRAPH_NODE_TYPE_HOST, 3) \
    X(CU_GRAPH_NODE_TYPE_GRAPH, 4) \
    X(CU_GRAPH_NODE_TYPE_EMPTY, 5)

#define CUDA_API_LAUNCH_ATTRIBUTES(X) \
    X(CU_LAUNCH_ATTRIBUTE_IGNORE, 0) \
    X(CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW, 1) \
    X(CU_LAUNCH_ATTRIBUTE_COOPERATIVE, 2) \
    X(CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, 4) \
    X(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, 6) \
    X(CU_LAUNCH_ATTRIBUTE_PRIORITY, 8) \
    X(CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 14)

/* Flags and other single numbers. */
#define CUDA_API_FLAGS(X) \
    X(CU_MEMHOSTALLOC_PORTABLE, 1) \
    X(CU_MEMHOSTALLOC_DEVICEMAP, 2) \
    X(CU_MEMHOSTALLOC_WRITECOMBINED, 4) \
    X(CU_MEMORYTYPE_HOST, 1) \
    X(CU_MEMORYTYPE_DEVICE, 2) \
    X(CU_STREAM_DEFAULT, 0) \
    X(CU_STREAM_NON_BLOCKING, 1) \
    X(CU_EVENT_DEFAULT, 0) \
    X(CU_EVENT_BLOCKING_SYNC, 1) \
    X(CU_EVENT_DISABLE_TIMING, 2) \
    X(CU_EVENT_RECORD_DEFAULT, 0) \
    X(CU_EVENT_WAIT_DEFAULT, 0) \
    X(CU_COMPUTEMODE_DEFAULT, 0)

/* X(symbol, (parameters)); all return CUresult. */
#define CUDA_API_FUNCTIONS(X) \
    X(cuInit, (unsigned flags)) \
    X(cuDriverGetVersion, (int *driver_version)) \
    X(cuGetErrorName, (CUresult error, const char **text)) \
    X(cuGetErrorString, (CUresult error, const char **text)) \
    X(cuDeviceGet, (CUdevice *device, int ordinal)) \
    X(cuDeviceGetCount, (int *count)) \
    X(cuDeviceGetName, (char *name, int bytes, CUdevice device)) \
    X(cuDeviceGetUuid_v2, (CUuuid *uuid, CUdevice device)) \
    X(cuDeviceTotalMem_v2, (size_t *bytes, CUdevice device)) \
    X(cuDeviceGetAttribute, (int *value, CUdevice_attribute attribute, CUdevice device)) \
    X(cuDevicePrimaryCtxRetain, (CUcontext *context, CUdevice device)) \
    X(cuDevicePrimaryCtxRelease_v2, (CUdevice device)) \
    X(cuDevicePrimaryCtxReset_v2, (CUdevice device)) \
    X(cuDevicePrimaryCtxGetState, (CUdevice device, unsigned *flags, int *active)) \
    X(cuCtxSetCurrent, (CUcontext context)) \
    X(cuCtxGetCurrent, (CUcontext *context)) \
    X(cuCtxPushCurrent_v2, (CUcontext context)) \
    X(cuCtxPopCurrent_v2, (CUcontext *context)) \
    X(cuCtxGetDevice, (CUdevice *device)) \
    X(cuCtxSynchronize, (void)) \
    X(cuCtxGetStreamPriorityRange, (int *least, int *greatest)) \
    X(cuModuleLoadData, (CUmodule *module, const void *image)) \
    X(cuModuleLoadDataEx, (CUmodule *module, const void *image, unsigned n_options, CUjit_option \
        *options, void **values)) \
    X(cuModuleUnload, (CUmodule module)) \
    X(cuModuleGetFunction, (CUfunction *function, CUmodule module, const char *name)) \
    X(cuFuncGetAttribute, (int *value, CUfunction_attribute attribute, CUfunction function)) \
    X(cuFuncSetAttribute, (CUfunction function, CUfunction_attribute attribute, int value)) \
    X(cuFuncGetModule, (CUmodule *module, CUfunction function)) \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor, (int *blocks, CUfunction function, int \
        block_size, size_t dynamic_shared_bytes)) \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, (int *blocks, CUfunction function, \
        int block_size, size_t dynamic_shared_bytes, unsigned flags)) \
    X(cuLaunchKernel, (CUfunction function, unsigned grid_dim_x, unsigned grid_dim_y, unsigned \
        grid_dim_z, unsigned block_dim_x, unsigned block_dim_y, unsigned block_dim_z, unsigned \
        shared_bytes, CUstream stream, void **params, void **extra)) \
    X(cuLaunchKernelEx, (const CUlaunchConfig *config, CUfunction function, void **params, void \
        **extra)) \
    X(cuLaunchHostFunc, (CUstream stream, CUhostFn function, void *user)) \
    X(cuMemAlloc_v2, (CUdeviceptr *address, size_t bytes)) \
    X(cuMemFree_v2, (CUdeviceptr address)) \
    X(cuMemGetInfo_v2, (size_t *free, size_t *total)) \
    X(cuMemHostAlloc, (void **pointer, size_t bytes, unsigned flags)) \
    X(cuMemAllocHost_v2, (void **pointer, size_t bytes)) \
    X(cuMemFreeHost, (void *pointer)) \
    X(cuMemHostGetDevicePointer_v2, (CUdeviceptr *address, void *pointer, unsigned flags)) \
    X(cuMemGetAddressRange_v2, (CUdeviceptr *base, size_t *size, CUdeviceptr address)) \
    X(cuPointerGetAttribute, (void *data, CUpointer_attribute attribute, CUdeviceptr address)) \
    X(cuMemcpy, (CUdeviceptr destination, CUdeviceptr source, size_t bytes)) \
    X(cuMemcpyAsync, (CUdeviceptr destination, CUdeviceptr source, size_t bytes, CUstream stream)) \
    X(cuMemcpyHtoD_v2, (CUdeviceptr destination, const void *source, size_t bytes)) \
    X(cuMemcpyDtoH_v2, (void *destination, CUdeviceptr source, size_t bytes)) \
    X(cuMemcpyDtoD_v2, (CUdeviceptr destination, CUdeviceptr source, size_t bytes)) \
    X(cuMemcpyHtoDAsync_v2, (CUdeviceptr destination, const void *source, size_t bytes, CUstream \
        stream)) \
    X(cuMemcpyDtoHAsync_v2, (void *destination, CUdeviceptr source, size_t bytes, CUstream \
        stream)) \
    X(cuMemcpyDtoDAsync_v2, (CUdeviceptr destination, CUdeviceptr source, size_t bytes, CUstream \
        stream)) \
    X(cuMemsetD8_v2, (CUdeviceptr destination, unsigned char byte, size_t count)) \
    X(cuMemsetD16_v2, (CUdeviceptr destination, unsigned short value, size_t count)) \
    X(cuMemsetD32_v2, (CUdeviceptr destination, unsigned value, size_t count)) \
    X(cuMemsetD8Async, (CUdeviceptr destination, unsigned char byte, size_t count, CUstream \
        stream)) \
    X(cuMemsetD16Async, (CUdeviceptr destination, unsigned short value, size_t count, CUstream \
        stream)) \
    X(cuMemsetD32Async, (CUdeviceptr destination, unsigned value, size_t count, CUstream stream)) \
    X(cuStreamCreate, (CUstream *stream, unsigned flags)) \
    X(cuStreamCreateWithPriority, (CUstream *stream, unsigned flags, int priority)) \
    X(cuStreamDestroy_v2, (CUstream stream)) \
    X(cuStreamSynchronize, (CUstream stream)) \
    X(cuStreamQuery, (CUstream stream)) \
    X(cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags)) \
    X(cuStreamGetFlags, (CUstream stream, unsigned *flags)) \
    X(cuStreamGetPriority, (CUstream stream, int *priority)) \
    X(cuStreamBeginCapture_v2, (CUstream stream, CUstreamCaptureMode mode)) \
    X(cuStreamEndCapture, (CUstream stream, CUgraph *graph)) \
    X(cuStreamIsCapturing, (CUstream stream, CUstreamCaptureStatus *status)) \
    X(cuThreadExchangeStreamCaptureMode, (CUstreamCaptureMode *mode)) \
    X(cuEventCreate, (CUevent *event, unsigned flags)) \
    X(cuEventDestroy_v2, (CUevent event)) \
    X(cuEventRecord, (CUevent event, CUstream stream)) \
    X(cuEventRecordWithFlags, (CUevent event, CUstream stream, unsigned flags)) \
    X(cuEventQuery, (CUevent event)) \
    X(cuEventSynchronize, (CUevent event)) \
    X(cuEventElapsedTime, (float *milliseconds, CUevent start, CUevent end)) \
    X(cuGraphInstantiateWithFlags, (CUgraphExec *exec, CUgraph graph, unsigned long long flags)) \
    X(cuGraphLaunch, (CUgraphExec exec, CUstream stream)) \
    X(cuGraphUpload, (CUgraphExec exec, CUstream stream)) \
    X(cuGraphExecDestroy, (CUgraphExec exec)) \
    X(cuGraphDestroy, (CUgraph graph)) \
    X(cuGraphGetNodes, (CUgraph graph, CUgraphNode *nodes, size_t *count)) \
    X(cuGraphNodeGetType, (CUgraphNode node, CUgraphNodeType *type)) \
    X(cuGraphKernelNodeGetParams_v2, (CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *params)) \
    X(cuGraphKernelNodeSetParams_v2, (CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *params)) \
    X(cuGraphExecKernelNodeSetParams_v2, (CUgraphExec exec, CUgraphNode node, const \
        CUDA_KERNEL_NODE_PARAMS *params))
/* clang-format on */

#ifndef CUDA_VERSION

#define CUDA_API_ENUMERATOR(name, value, ...) name = value,

typedef enum CUresult { CUDA_API_ERRORS(CUDA_API_ENUMERATOR) } CUresult;
typedef enum CUdevice_attribute {
    CUDA_API_DEVICE_ATTRIBUTES(CUDA_API_ENUMERATOR)
} CUdevice_attribute;
typedef enum CUfunction_attribute {
    CUDA_API_FUNCTION_ATTRIBUTES(CUDA_API_ENUMERATOR)
} CUfunction_attribute;
typedef enum CUjit_option { CUDA_API_JIT_OPTIONS(CUDA_API_ENUMERATOR) } CUjit_option;
typedef enum CUpointer_attribute {
    CUDA_API_POINTER_ATTRIBUTES(CUDA_API_ENUMERATOR)
} CUpointer_attribute;
typedef enum CUstreamCaptureMode {
    CUDA_API_CAPTURE_MODES(CUDA_API_ENUMERATOR)
} CUstreamCaptureMode;
typedef enum CUstreamCaptureStatus {
    CUDA_API_CAPTURE_STATUSES(CUDA_API_ENUMERATOR)
} CUstreamCaptureStatus;
typedef enum CUgraphNodeType { CUDA_API_NODE_TYPES(CUDA_API_ENUMERATOR) } CUgraphNodeType;
typedef enum CUlaunchAttributeID {
    CUDA_API_LAUNCH_ATTRIBUTES(CUDA_API_ENUMERATOR)
} CUlaunchAttributeID;
enum { CUDA_API_FLAGS(CUDA_API_ENUMERATOR) };
#undef CUDA_API_ENUMERATOR

typedef int CUdevice;
typedef unsigned long long CUdeviceptr; /* an address of the device, 64 bits */
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUkern_st *CUkernel;
typedef struct CUstream_st *CUstream; /* NULL: the legacy default stream */
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct CUgraphExec_st *CUgraphExec;
typedef void (*CUhostFn)(void *user);

typedef struct CUuuid {
    char bytes[16];
} CUuuid;

/* Two stream handles that need no creation: the legacy default stream, and the calling thread's
 * own. */
#define CU_STREAM_LEGACY ((CUstream)0x1)
#define CU_STREAM_PER_THREAD ((CUstream)0x2)

/* The `extra` array of a launch: these keys, each followed by a pointer, until the end. */
#define CU_LAUNCH_PARAM_END ((void *)0x00)
#define CU_LAUNCH_PARAM_BUFFER_POINTER ((void *)0x01)
#define CU_LAUNCH_PARAM_BUFFER_SIZE ((void *)0x02)

typedef union CUlaunchAttributeValue {
    char pad[64];
    int cooperative;
    struct {
        unsigned x, y, z;
    } clusterDim;
    int programmaticStreamSerializationAllowed;
    int priority;
} CUlaunchAttributeValue;

typedef struct CUlaunchAttribute {
    CUlaunchAttributeID id;
    char pad[4];
    CUlaunchAttributeValue value;
} CUlaunchAttribute;

typedef struct CUlaunchConfig {
    unsigned gridDimX, gridDimY, gridDimZ;
    unsigned blockDimX, blockDimY, blockDimZ;
    unsigned sharedMemBytes; /* dynamic */
    CUstream hStream;
    CUlaunchAttribute *attrs;
    unsigned numAttrs;
} CUlaunchConfig;

/* Version 2 of it. */
typedef struct CUDA_KERNEL_NODE_PARAMS {
    CUfunction func;
    unsigned gridDimX, gridDimY, gridDimZ;
    unsigned blockDimX, blockDimY, blockDimZ;
    unsigned sharedMemBytes;
    void **kernelParams, **extra;
    CUkernel kern; /* used where func is NULL */
    CUcontext ctx;
} CUDA_KERNEL_NODE_PARAMS;

#endif /* CUDA_VERSION */

#endif
