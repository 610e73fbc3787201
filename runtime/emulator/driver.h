/* The emulated driver's objects and what its files share.
 *
 * One lock is held through every call. Work submitted to a stream waits in the stream's queue and
 * is done only when something waits for it: so a copy that is read too early has not happened, and
 * one whose source is changed too early copies the change. */
#ifndef MCC_RUNTIME_EMULATOR_DRIVER_H
#define MCC_RUNTIME_EMULATOR_DRIVER_H

#include "runtime/cuda_api.h"
#include "runtime/emulator/emulator.h"

#include <pthread.h>

#define EXPORT __attribute__((visibility("default")))
#define API EXPORT CUresult

#define DRV_DECLARE(name, params) EXPORT CUresult name params;
CUDA_API_FUNCTIONS(DRV_DECLARE)
#undef DRV_DECLARE
EXPORT CUresult cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes, CUmodule module,
                                     const char *name);
EXPORT CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device);
EXPORT CUresult cuCtxDestroy_v2(CUcontext context);

enum { DRV_MAX_GPUS = 8, DRV_VERSION = 13000 };

/* --- objects: driver_object.c --------------------------------------------------------------------
 */

typedef enum drv_kind {
    DRV_CONTEXT = 1,
    DRV_MODULE,
    DRV_FUNCTION,
    DRV_STREAM,
    DRV_EVENT,
    DRV_GRAPH,
    DRV_NODE,
    DRV_EXEC
} drv_kind;

/* Begins every object. */
typedef struct drv_object {
    drv_kind kind;
    CUcontext context;
    struct drv_object *next, *prev; /* of the context's */
} drv_object;

/* A zeroed object of `bytes`, in the context's list unless context is NULL; NULL without memory. */
void *drv_new(drv_kind kind, size_t bytes, CUcontext context);
void drv_delete(void *object);
/* Whether a handle is of an object that is alive; whatever it points to is not touched. */
bool drv_is(const void *handle, drv_kind kind);

/* --- errors --- */

/* Notes why the call fails, and returns `code`. format NULL: nothing to say. */
CUresult drv_fail(CUresult code, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define DRV_FAIL(code) drv_fail(code, NULL)

/* --- calls --- */

extern bool drv_initialised;

/* Takes the lock; NOT_PERMITTED within a host function, NOT_INITIALIZED before cuInit. */
CUresult drv_enter(bool *locked);
void drv_leave(bool *locked);
/* The current context; INVALID_CONTEXT, or the error that has stuck to it. */
CUresult drv_current(CUcontext *context);

/* A call begins with one of these. */
#define DRV_ENTER()                                                                                \
    bool drv_locked __attribute__((cleanup(drv_leave)));                                           \
    do {                                                                                           \
        CUresult drv_result = drv_enter(&drv_locked);                                              \
        if (drv_result != CUDA_SUCCESS)                                                            \
            return drv_result;                                                                     \
    } while (0)
#define DRV_TRY(call)                                                                              \
    do {                                                                                           \
        CUresult drv_result = (call);                                                              \
        if (drv_result != CUDA_SUCCESS)                                                            \
            return drv_result;                                                                     \
    } while (0)
#define DRV_ENTER_CONTEXT(context)                                                                 \
    DRV_ENTER();                                                                                   \
    CUcontext context;                                                                             \
    DRV_TRY(drv_current(&context))

/* --- settings: driver_options.c ------------------------------------------------------------------
 */

extern modelcc_emulator_options drv_options;

/* Reads the environment. False after drv_fail. */
bool drv_read_environment(void);
/* The gpus that `names` lists; their number, or -1 after drv_fail. */
int drv_parse_gpus(const char *names, const modelcc_emulator_gpu *rows[DRV_MAX_GPUS]);

/* --- devices and contexts: driver_device.c -------------------------------------------------------
 */

typedef struct drv_gpu {
    const modelcc_emulator_gpu *row;
    emu_memory *memory; /* while there is a context */
    CUcontext primary;
    int retained, contexts;
} drv_gpu;

extern drv_gpu drv_gpus[DRV_MAX_GPUS];
extern int drv_n_gpus;

struct CUctx_st {
    drv_object object;
    drv_gpu *gpu;
    drv_object objects;  /* head of a ring */
    CUresult error;      /* what has stuck */
    char text[512];      /* … and why */
    CUstream legacy;     /* the default stream */
    uint64_t *addresses; /* of allocations */
    size_t n_addresses, addresses_room;
};

bool drv_set_gpus(const char *names);

/* --- streams: driver_stream.c --------------------------------------------------------------------
 */

typedef struct drv_launch {
    CUfunction function;
    uint32_t grid[3], block[3];
    uint32_t shared_bytes; /* dynamic */
    uint8_t *params;       /* the parameter block; owned */
} drv_launch;

typedef enum drv_work_kind {
    DRV_KERNEL,
    DRV_COPY,
    DRV_FILL,
    DRV_HOST,
    DRV_RECORD,
    DRV_WAIT,
    DRV_GRAPH_LAUNCH
} drv_work_kind;

typedef struct drv_work {
    struct drv_work *next;
    drv_work_kind kind;
    drv_launch launch; /* KERNEL */
    struct {
        uint64_t to, from; /* addresses of the device, or of the host */
        uint64_t bytes;
        void *staged; /* what was read from pageable memory at once; owned, or NULL */
    } copy;
    struct {
        uint64_t to, count;
        uint32_t value, size; /* size of an element: 1, 2, 4 */
    } fill;
    CUhostFn host;
    void *user;
    CUevent event; /* RECORD */
    CUstream stream;
    uint64_t after; /* WAIT: for so much work of the stream */
    CUgraphExec exec;
} drv_work;

struct CUstream_st {
    drv_object object;
    unsigned flags;
    int priority;
    bool per_thread; /* a thread's default stream */
    pthread_t thread;
    drv_work *head, **tail;
    uint64_t submitted, done;
    struct drv_capture *capture; /* or NULL */
    CUgraphNode *after;          /* capturing: what the next node depends on */
    size_t n_after, after_room;
};

struct CUevent_st {
    drv_object object;
    unsigned flags;
    bool recorded, dead; /* dead: destroyed, but still to be recorded */
    int pending;         /* records in queues */
    CUstream stream;     /* of the last record; NULL: it has happened */
    uint64_t after;
    double time; /* of the last one that has happened, s */
    bool timed;
    struct drv_capture
        *capture; /* recorded in a capturing stream: its nodes are what it stands for */
    CUgraphNode *nodes;
    size_t n_nodes;
};

/* The stream of a handle, NULL and the special ones included. */
CUresult drv_stream_find(CUcontext context, CUstream handle, CUstream *stream);
/* Appends a copy of `work`, after what the default stream's rules demand; or a node where the
 * stream captures. What `work` owns is taken over, also on failure. */
CUresult drv_submit(CUstream stream, const drv_work *work);
/* Does a stream's work, up to so much of it. */
CUresult drv_run(CUstream stream, uint64_t upto);
/* All work of all streams of the context. */
CUresult drv_run_all(CUcontext context);
void drv_work_free(drv_work *work);
/* Does one piece of work now. */
CUresult drv_do(CUcontext context, drv_work *work);
/* The error sticks to the context: everything in queues is dropped. */
CUresult drv_stick(CUcontext context, CUresult code, const char *text);
/* Drops all queues. */
void drv_drop(CUcontext context);

/* --- memory: driver_memory.c --- */
CUresult drv_copy(CUcontext context, const drv_work *work);
CUresult drv_fill(CUcontext context, const drv_work *work);
void drv_free_all(CUcontext context);

/* --- modules: driver_module.c --- */
struct CUmod_st {
    drv_object object;
    ptx_module *ptx;
    CUfunction functions; /* found so far */
};

struct CUfunc_st {
    drv_object object;
    CUmodule module;
    const ptx_function *ptx;
    ptx_function_info info;
    uint32_t dynamic_shared; /* allowed */
    int carveout;
    CUfunction next;
};

/* --- launches: driver_launch.c --- */
CUresult drv_kernel(CUcontext context, const drv_launch *launch);
/* Checks a launch against the device's limits and copies the parameters; launch->params is then to
 * be freed. */
CUresult drv_launch_make(CUcontext context, CUfunction function, const unsigned grid[3],
                         const unsigned block[3], unsigned shared_bytes, void **params,
                         void **extra, drv_launch *launch);

/* --- graphs: driver_graph.c ----------------------------------------------------------------------
 */

struct CUgraphNode_st {
    drv_object object;
    CUgraph graph;
    drv_work work;
    CUgraphNode *after;
    size_t n_after;
    bool has_dependents;
    void **params; /* what cuGraphKernelNodeGetParams gave out last */
    CUgraphNode next;
};

struct CUgraph_st {
    drv_object object;
    CUgraphNode nodes, *tail; /* each after those it depends on */
    size_t n_nodes;
};

struct CUgraphExec_st {
    drv_object object;
    drv_work *work;            /* [n] */
    CUgraphNode *source; /* [n]: the nodes that they were made from; perhaps gone */
    size_t n;
    int pending; /* launches in queues */
};

typedef struct drv_capture {
    CUstream origin;
    CUgraph graph;
    CUstreamCaptureMode mode;
    pthread_t thread;
    bool invalid;
    int n_streams; /* that are in it */
} drv_capture;

/* A node with a copy of `work` in the graph that the stream captures into. */
CUresult drv_capture_work(CUstream stream, const drv_work *work);
CUresult drv_capture_record(CUstream stream, CUevent event);
CUresult drv_capture_wait(CUstream stream, CUevent event);
/* Calls that may wait for the device are not permitted while some captures go on, and end them. */
CUresult drv_refuse_capture(CUcontext context, const char *call);
/* The same of a call that concerns one stream that captures. */
CUresult drv_capture_refuses(CUstream stream, CUresult code, const char *call);
/* A context ends: its captures with it. */
void drv_capture_drop(CUstream stream);
void drv_graph_free(CUgraph graph);
void drv_exec_free(CUgraphExec exec);

/* --- counters: driver_counters.c --- */
void drv_count(const drv_launch *launch, const emu_counters *counters, double seconds);
double drv_now(void); /* s */

#endif
