/* Capture of streams into graphs, and graphs that are launched. Nodes are kept in an order in which
 * each comes after those it depends on, and run in it. */
#include "runtime/emulator/driver.h"

#include <stdlib.h>
#include <string.h>

/* --- sets of nodes -------------------------------------------------------------------------------
 */

static bool has(CUgraphNode const *nodes, size_t n, CUgraphNode node) {
    for (size_t i = 0; i < n; i++)
        if (nodes[i] == node)
            return true;
    return false;
}

static bool add_after(CUstream stream, CUgraphNode node) {
    if (has(stream->after, stream->n_after, node))
        return true;
    if (stream->n_after == stream->after_room) {
        size_t room = stream->after_room ? 2 * stream->after_room : 4;
        CUgraphNode *grown = realloc(stream->after, room * sizeof *grown);
        if (!grown)
            return false;
        stream->after = grown;
        stream->after_room = room;
    }
    stream->after[stream->n_after++] = node;
    return true;
}

static CUgraphNode *copy_nodes(CUgraphNode const *nodes, size_t n) {
    CUgraphNode *made = malloc((n + 1) * sizeof *made);
    if (made && n)
        memcpy(made, nodes, n * sizeof *made);
    return made;
}

/* --- captures ------------------------------------------------------------------------------------
 */

CUresult drv_capture_refuses(CUstream stream, CUresult code, const char *call) {
    stream->capture->invalid = true;
    return drv_fail(code, "%s while a stream captures", call);
}

static _Thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

CUresult drv_refuse_capture(CUcontext context, const char *call) {
    if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_SUCCESS;
    for (drv_object *o = context->objects.next; o != &context->objects; o = o->next) {
        CUstream stream = (CUstream)o;
        if (o->kind != DRV_STREAM || !stream->capture)
            continue;
        const drv_capture *c = stream->capture;
        bool ours = pthread_equal(c->thread, pthread_self());
        if (c->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
            (ours || (c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
                      thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL)))
            return drv_capture_refuses(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, call);
    }
    return CUDA_SUCCESS;
}

static CUresult check_valid(CUstream stream) {
    if (stream->capture->invalid)
        return drv_fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                        "the capture was invalidated by an earlier call");
    return CUDA_SUCCESS;
}

CUresult drv_capture_work(CUstream stream, const drv_work *work) {
    DRV_TRY(check_valid(stream));
    if (work->kind == DRV_GRAPH_LAUNCH)
        return drv_capture_refuses(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "cuGraphLaunch");
    CUgraph graph = stream->capture->graph;
    size_t n_after = stream->n_after;
    CUgraphNode node = drv_new(DRV_NODE, sizeof *node, stream->object.context);
    CUgraphNode *after = copy_nodes(stream->after, n_after);
    if (!node || !after || !add_after(stream, node)) {
        drv_delete(node);
        free(after);
        return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
    }
    node->graph = graph;
    node->work = *work;
    node->after = after;
    node->n_after = n_after;
    for (size_t i = 0; i < n_after; i++)
        after[i]->has_dependents = true;
    stream->after[0] = node; /* what comes next depends on it alone */
    stream->n_after = 1;
    *graph->tail = node;
    graph->tail = &node->next;
    graph->n_nodes++;
    return CUDA_SUCCESS;
}

CUresult drv_capture_record(CUstream stream, CUevent event) {
    DRV_TRY(check_valid(stream));
    CUgraphNode *nodes = copy_nodes(stream->after, stream->n_after);
    if (!nodes)
        return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
    free(event->nodes);
    event->nodes = nodes;
    event->n_nodes = stream->n_after;
    event->capture = stream->capture;
    event->stream = NULL;
    event->recorded = true;
    return CUDA_SUCCESS;
}

CUresult drv_capture_wait(CUstream stream, CUevent event) {
    if (stream->capture)
        DRV_TRY(check_valid(stream));
    if (!event->capture)
        return drv_capture_refuses(stream, CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
                                   "waiting for an event outside of the capture");
    if (!stream->capture) { /* it joins */
        stream->capture = event->capture;
        stream->capture->n_streams++;
        stream->n_after = 0;
    } else if (stream->capture != event->capture) {
        stream->capture->invalid = event->capture->invalid = true;
        return DRV_FAIL(CUDA_ERROR_STREAM_CAPTURE_MERGE);
    }
    for (size_t i = 0; i < event->n_nodes; i++)
        if (!add_after(stream, event->nodes[i]))
            return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
    return CUDA_SUCCESS;
}

/* Takes all streams and events out of a capture, and frees it but for its graph. */
static void end(drv_capture *capture, CUcontext context) {
    for (drv_object *o = context->objects.next; o != &context->objects; o = o->next) {
        CUstream stream = (CUstream)o;
        CUevent event = (CUevent)o;
        if (o->kind == DRV_STREAM && stream->capture == capture) {
            stream->capture = NULL;
            stream->n_after = 0;
        } else if (o->kind == DRV_EVENT && event->capture == capture) {
            event->capture = NULL;
            event->recorded = false;
            free(event->nodes);
            event->nodes = NULL;
            event->n_nodes = 0;
        }
    }
    free(capture);
}

void drv_capture_drop(CUstream stream) {
    if (!stream->capture)
        return;
    CUgraph graph = stream->capture->graph;
    end(stream->capture, stream->object.context);
    drv_graph_free(graph);
}

#define ENTER_STREAM(context, handle, stream)                                                      \
    DRV_ENTER_CONTEXT(context);                                                                    \
    CUstream stream;                                                                               \
    DRV_TRY(drv_stream_find(context, handle, &stream))

API cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
    ENTER_STREAM(context, handle, stream);
    if (mode != CU_STREAM_CAPTURE_MODE_GLOBAL && mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL &&
        mode != CU_STREAM_CAPTURE_MODE_RELAXED)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    if (stream == context->legacy)
        return drv_fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                        "the legacy default stream cannot be captured");
    if (stream->capture)
        return drv_fail(CUDA_ERROR_ILLEGAL_STATE, "the stream captures already");
    drv_capture *capture = calloc(1, sizeof *capture);
    CUgraph graph = drv_new(DRV_GRAPH, sizeof *graph, context);
    if (!capture || !graph) {
        free(capture);
        drv_delete(graph);
        return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
    }
    graph->tail = &graph->nodes;
    *capture = (drv_capture){
        .origin = stream, .graph = graph, .mode = mode, .thread = pthread_self(), .n_streams = 1};
    stream->capture = capture;
    stream->n_after = 0;
    return CUDA_SUCCESS;
}

static bool is_joined(CUstream stream) {
    for (CUgraphNode n = stream->capture->graph->nodes; n; n = n->next)
        if (!n->has_dependents && !has(stream->after, stream->n_after, n))
            return false;
    return true;
}

API cuStreamEndCapture(CUstream handle, CUgraph *graph) {
    ENTER_STREAM(context, handle, stream);
    if (!graph)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    *graph = NULL;
    drv_capture *capture = stream->capture;
    if (!capture)
        return drv_fail(CUDA_ERROR_ILLEGAL_STATE, "the stream does not capture");
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
        !pthread_equal(capture->thread, pthread_self()))
        return DRV_FAIL(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    if (capture->origin != stream) {
        capture->invalid = true;
        return DRV_FAIL(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    }
    CUresult result = check_valid(stream);
    if (result == CUDA_SUCCESS && !is_joined(stream))
        result = drv_fail(CUDA_ERROR_STREAM_CAPTURE_UNJOINED,
                          "work of another stream was not waited for by the stream that began the "
                          "capture");
    CUgraph made = capture->graph;
    end(capture, context);
    if (result == CUDA_SUCCESS)
        *graph = made;
    else
        drv_graph_free(made);
    return result;
}

API cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
    ENTER_STREAM(context, handle, stream);
    if (!status)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    *status = !stream->capture           ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                         : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

API cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
    if (!mode || (unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    CUstreamCaptureMode before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

/* --- graphs --------------------------------------------------------------------------------------
 */

static CUresult check_graph(CUcontext context, CUgraph graph) {
    if (!drv_is(graph, DRV_GRAPH) || graph->object.context != context)
        return drv_fail(CUDA_ERROR_INVALID_HANDLE, "not a graph of the current context");
    return CUDA_SUCCESS;
}

static CUresult check_exec(CUcontext context, CUgraphExec exec) {
    if (!drv_is(exec, DRV_EXEC) || exec->object.context != context)
        return drv_fail(CUDA_ERROR_INVALID_HANDLE, "not an executable graph of this context");
    return CUDA_SUCCESS;
}

void drv_graph_free(CUgraph graph) {
    while (graph->nodes) {
        CUgraphNode node = graph->nodes;
        graph->nodes = node->next;
        drv_work_free(&node->work);
        free(node->after);
        free(node->params);
        drv_delete(node);
    }
    drv_delete(graph);
}

void drv_exec_free(CUgraphExec exec) {
    for (size_t i = 0; i < exec->n; i++)
        drv_work_free(&exec->work[i]);
    free(exec->work);
    free(exec->source);
    drv_delete(exec);
}

/* A copy that owns what it points to. */
static bool copy_work(const drv_work *from, drv_work *to) {
    *to = *from;
    if (from->kind == DRV_KERNEL) {
        size_t n = (size_t)from->launch.function->info.param_bytes + 1;
        to->launch.params = malloc(n);
        if (!to->launch.params)
            return false;
        memcpy(to->launch.params, from->launch.params, n);
    }
    return true;
}

API cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    DRV_ENTER_CONTEXT(context);
    if (!exec)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(check_graph(context, graph));
    if (flags != 0)
        return drv_fail(CUDA_ERROR_NOT_SUPPORTED, "the emulator has no flags of graphs");
    CUgraphExec made = drv_new(DRV_EXEC, sizeof *made, context);
    if (!made)
        return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
    made->work = calloc(graph->n_nodes + 1, sizeof *made->work);
    made->source = calloc(graph->n_nodes + 1, sizeof *made->source);
    bool good = made->work && made->source;
    for (CUgraphNode n = graph->nodes; n && good; n = n->next) {
        made->source[made->n] = n;
        good = copy_work(&n->work, &made->work[made->n]);
        made->n += good;
    }
    if (!good) {
        drv_exec_free(made);
        return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
    }
    *exec = made;
    return CUDA_SUCCESS;
}

API cuGraphLaunch(CUgraphExec exec, CUstream handle) {
    ENTER_STREAM(context, handle, stream);
    DRV_TRY(check_exec(context, exec));
    exec->pending++; /* drv_submit takes it over */
    return drv_submit(stream, &(drv_work){.kind = DRV_GRAPH_LAUNCH, .exec = exec});
}

API cuGraphUpload(CUgraphExec exec, CUstream handle) {
    ENTER_STREAM(context, handle, stream);
    (void)stream;
    return check_exec(context, exec);
}

/* Launches that have been submitted run as they were. */
static CUresult finish(CUcontext context, CUgraphExec exec) {
    return exec->pending > 0 ? drv_run_all(context) : CUDA_SUCCESS;
}

API cuGraphExecDestroy(CUgraphExec exec) {
    DRV_ENTER_CONTEXT(context);
    DRV_TRY(check_exec(context, exec));
    CUresult result = finish(context, exec);
    drv_exec_free(exec);
    return result;
}

API cuGraphDestroy(CUgraph graph) {
    DRV_ENTER_CONTEXT(context);
    DRV_TRY(check_graph(context, graph));
    for (drv_object *o = context->objects.next; o != &context->objects; o = o->next)
        if (o->kind == DRV_STREAM && ((CUstream)o)->capture &&
            ((CUstream)o)->capture->graph == graph)
            return drv_fail(CUDA_ERROR_INVALID_VALUE, "the graph is being captured");
    drv_graph_free(graph);
    return CUDA_SUCCESS;
}

/* --- nodes ---------------------------------------------------------------------------------------
 */

API cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count) {
    DRV_ENTER_CONTEXT(context);
    if (!count)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(check_graph(context, graph));
    size_t room = *count, i = 0;
    if (nodes) {
        for (CUgraphNode n = graph->nodes; n && i < room; n = n->next)
            nodes[i++] = n;
        *count = i;
        for (; i < room; i++)
            nodes[i] = NULL;
    } else {
        *count = graph->n_nodes;
    }
    return CUDA_SUCCESS;
}

static CUresult check_node(CUcontext context, CUgraphNode node, bool kernel) {
    if (!drv_is(node, DRV_NODE) || node->object.context != context ||
        (kernel && node->work.kind != DRV_KERNEL))
        return drv_fail(CUDA_ERROR_INVALID_HANDLE, "not a %snode of a graph of this context",
                        kernel ? "kernel " : "");
    return CUDA_SUCCESS;
}

API cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType *type) {
    DRV_ENTER_CONTEXT(context);
    if (!type)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(check_node(context, node, false));
    drv_work_kind kind = node->work.kind;
    *type = kind == DRV_KERNEL ? CU_GRAPH_NODE_TYPE_KERNEL
            : kind == DRV_COPY ? CU_GRAPH_NODE_TYPE_MEMCPY
            : kind == DRV_FILL ? CU_GRAPH_NODE_TYPE_MEMSET
                               : CU_GRAPH_NODE_TYPE_HOST;
    return CUDA_SUCCESS;
}

/* The parameters are those that the emulator keeps, valid until they are changed. */
API cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *params) {
    DRV_ENTER_CONTEXT(context);
    if (!params)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(check_node(context, node, true));
    const drv_launch *l = &node->work.launch;
    const ptx_function_info *info = &l->function->info;
    free(node->params);
    node->params = calloc((size_t)info->n_params + 1, sizeof *node->params);
    if (!node->params)
        return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
    for (int i = 0; i < info->n_params; i++)
        node->params[i] = l->params + info->param_offsets[i];
    *params = (CUDA_KERNEL_NODE_PARAMS){.func = l->function,
                                        .gridDimX = l->grid[0],
                                        .gridDimY = l->grid[1],
                                        .gridDimZ = l->grid[2],
                                        .blockDimX = l->block[0],
                                        .blockDimY = l->block[1],
                                        .blockDimZ = l->block[2],
                                        .sharedMemBytes = l->shared_bytes,
                                        .kernelParams = node->params,
                                        .ctx = context};
    return CUDA_SUCCESS;
}

static CUresult set_params(CUcontext context, const CUDA_KERNEL_NODE_PARAMS *p, drv_work *work) {
    drv_launch made;
    if (!p)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(drv_launch_make(context, p->func, (unsigned[3]){p->gridDimX, p->gridDimY, p->gridDimZ},
                            (unsigned[3]){p->blockDimX, p->blockDimY, p->blockDimZ},
                            p->sharedMemBytes, p->kernelParams, p->extra, &made));
    free(work->launch.params);
    work->launch = made;
    return CUDA_SUCCESS;
}

API cuGraphKernelNodeSetParams_v2(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *params) {
    DRV_ENTER_CONTEXT(context);
    DRV_TRY(check_node(context, node, true));
    return set_params(context, params, &node->work);
}

API cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node,
                                      const CUDA_KERNEL_NODE_PARAMS *params) {
    DRV_ENTER_CONTEXT(context);
    DRV_TRY(check_exec(context, exec));
    size_t i = 0;
    while (i < exec->n && exec->source[i] != node)
        i++;
    if (i == exec->n || exec->work[i].kind != DRV_KERNEL)
        return drv_fail(CUDA_ERROR_INVALID_VALUE, "not a kernel node of the executable graph");
    DRV_TRY(finish(context, exec));
    return set_params(context, params, &exec->work[i]);
}
