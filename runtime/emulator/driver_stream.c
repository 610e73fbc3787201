/* Streams and events. A stream's work is done in its order, when something waits for it. */
#include "runtime/emulator/driver.h"

#include <stdlib.h>
#include <string.h>

/* --- work ----------------------------------------------------------------------------------------
 */

void drv_work_free(drv_work *work) {
    free(work->launch.params);
    free(work->copy.staged);
    if (work->kind == DRV_GRAPH_LAUNCH && work->exec)
        work->exec->pending--;
    if (work->kind == DRV_RECORD && work->event && --work->event->pending == 0 && work->event->dead)
        drv_delete(work->event);
}

static CUresult run_graph(CUcontext context, CUgraphExec exec) {
    for (size_t i = 0; i < exec->n; i++)
        DRV_TRY(drv_do(context, &exec->work[i]));
    return CUDA_SUCCESS;
}

CUresult drv_do(CUcontext context, drv_work *work) {
    switch (work->kind) {
    case DRV_KERNEL:
        return drv_kernel(context, &work->launch);
    case DRV_COPY:
        return drv_copy(context, work);
    case DRV_FILL:
        return drv_fill(context, work);
    case DRV_HOST:
        work->host(work->user);
        return CUDA_SUCCESS;
    case DRV_RECORD:
        work->event->time = drv_now();
        work->event->timed = true;
        return CUDA_SUCCESS;
    case DRV_WAIT:
        return work->stream ? drv_run(work->stream, work->after) : CUDA_SUCCESS;
    case DRV_GRAPH_LAUNCH:
        return run_graph(context, work->exec);
    }
    return CUDA_SUCCESS;
}

static void pop(CUstream stream) {
    drv_work *work = stream->head;
    stream->head = work->next;
    if (!stream->head)
        stream->tail = &stream->head;
    drv_work_free(work);
    free(work);
}

CUresult drv_run(CUstream stream, uint64_t upto) {
    CUcontext context = stream->object.context;
    while (stream->head && stream->done < upto) {
        CUresult result = drv_do(context, stream->head);
        if (result != CUDA_SUCCESS)
            return result; /* it has stuck, and the queues are empty */
        pop(stream);
        stream->done++;
    }
    return CUDA_SUCCESS;
}

CUresult drv_run_all(CUcontext context) {
    for (drv_object *o = context->objects.next; o != &context->objects; o = o->next)
        if (o->kind == DRV_STREAM)
            DRV_TRY(drv_run((CUstream)o, UINT64_MAX));
    return CUDA_SUCCESS;
}

void drv_drop(CUcontext context) {
    for (drv_object *o = context->objects.next; o != &context->objects; o = o->next)
        if (o->kind == DRV_STREAM) {
            CUstream stream = (CUstream)o;
            while (stream->head)
                pop(stream);
            stream->done = stream->submitted;
        }
}

CUresult drv_stick(CUcontext context, CUresult code, const char *text) {
    context->error = code;
    drv_fail(code, "%s", text);
    modelcc_emulator_last_error(context->text, sizeof context->text);
    drv_drop(context);
    return code;
}

static CUresult append(CUstream stream, const drv_work *work) {
    drv_work *made = malloc(sizeof *made);
    if (!made)
        return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
    *made = *work;
    made->next = NULL;
    *stream->tail = made;
    stream->tail = &made->next;
    stream->submitted++;
    return CUDA_SUCCESS;
}

static CUresult wait_for(CUstream stream, CUstream other) {
    if (!other->head)
        return CUDA_SUCCESS;
    return append(stream,
                  &(drv_work){.kind = DRV_WAIT, .stream = other, .after = other->submitted});
}

/* The default stream waits for all streams but those made not to, and they for it. */
static CUresult order(CUstream stream) {
    CUcontext context = stream->object.context;
    CUstream legacy = context->legacy;
    if (stream != legacy)
        return stream->flags & CU_STREAM_NON_BLOCKING ? CUDA_SUCCESS : wait_for(stream, legacy);
    for (drv_object *o = context->objects.next; o != &context->objects; o = o->next) {
        CUstream other = (CUstream)o;
        if (o->kind == DRV_STREAM && other != legacy && !(other->flags & CU_STREAM_NON_BLOCKING))
            DRV_TRY(wait_for(legacy, other));
    }
    return CUDA_SUCCESS;
}

/* Work in the default stream would wait for a stream that captures. */
static CUresult refuse_implicit(CUstream stream) {
    CUcontext context = stream->object.context;
    for (drv_object *o = context->objects.next; o != &context->objects; o = o->next) {
        CUstream other = (CUstream)o;
        if (o->kind == DRV_STREAM && other->capture && !(other->flags & CU_STREAM_NON_BLOCKING))
            return drv_capture_refuses(other, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
                                       "work in the default stream");
    }
    return CUDA_SUCCESS;
}

CUresult drv_submit(CUstream stream, const drv_work *work) {
    CUresult result;
    if (stream->capture) {
        result = drv_capture_work(stream, work);
    } else {
        result = stream == stream->object.context->legacy ? refuse_implicit(stream) : CUDA_SUCCESS;
        if (result == CUDA_SUCCESS)
            result = order(stream);
        if (result == CUDA_SUCCESS)
            result = append(stream, work);
    }
    if (result != CUDA_SUCCESS) {
        drv_work mine = *work;
        drv_work_free(&mine);
    }
    return result;
}

/* --- streams -------------------------------------------------------------------------------------
 */

static CUresult make_stream(CUcontext context, unsigned flags, int priority, CUstream *stream) {
    CUstream s = drv_new(DRV_STREAM, sizeof *s, context);
    if (!s)
        return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
    s->flags = flags;
    s->priority = priority;
    s->tail = &s->head;
    *stream = s;
    return CUDA_SUCCESS;
}

static CUresult per_thread(CUcontext context, CUstream *stream) {
    for (drv_object *o = context->objects.next; o != &context->objects; o = o->next) {
        CUstream s = (CUstream)o;
        if (o->kind == DRV_STREAM && s->per_thread && pthread_equal(s->thread, pthread_self())) {
            *stream = s;
            return CUDA_SUCCESS;
        }
    }
    DRV_TRY(make_stream(context, CU_STREAM_DEFAULT, 0, stream));
    (*stream)->per_thread = true;
    (*stream)->thread = pthread_self();
    return CUDA_SUCCESS;
}

CUresult drv_stream_find(CUcontext context, CUstream handle, CUstream *stream) {
    if (!handle || handle == CU_STREAM_LEGACY) {
        *stream = context->legacy;
        return CUDA_SUCCESS;
    }
    if (handle == CU_STREAM_PER_THREAD)
        return per_thread(context, stream);
    if (!drv_is(handle, DRV_STREAM) || handle->object.context != context)
        return drv_fail(CUDA_ERROR_INVALID_HANDLE, "not a stream of the current context");
    *stream = handle;
    return CUDA_SUCCESS;
}

#define ENTER_STREAM(context, handle, stream)                                                      \
    DRV_ENTER_CONTEXT(context);                                                                    \
    CUstream stream;                                                                               \
    DRV_TRY(drv_stream_find(context, handle, &stream))

API cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority) {
    DRV_ENTER_CONTEXT(context);
    if (!stream || flags & ~(unsigned)CU_STREAM_NON_BLOCKING)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    return make_stream(context, flags, priority > 0 ? 0 : priority < -5 ? -5 : priority, stream);
}

API cuStreamCreate(CUstream *stream, unsigned flags) {
    return cuStreamCreateWithPriority(stream, flags, 0);
}

/* A driver lets the work go on, and the stream goes when it has ended; here it ends at once. */
API cuStreamDestroy_v2(CUstream handle) {
    ENTER_STREAM(context, handle, stream);
    if (stream == context->legacy || stream->per_thread)
        return drv_fail(CUDA_ERROR_INVALID_HANDLE, "a default stream cannot be destroyed");
    drv_capture_drop(stream);
    CUresult result = drv_run(stream, UINT64_MAX);
    for (drv_object *o = context->objects.next; o != &context->objects; o = o->next) {
        if (o->kind == DRV_STREAM)
            for (drv_work *w = ((CUstream)o)->head; w; w = w->next)
                if (w->kind == DRV_WAIT && w->stream == stream)
                    w->stream = NULL;
        if (o->kind == DRV_EVENT && ((CUevent)o)->stream == stream)
            ((CUevent)o)->stream = NULL;
    }
    free(stream->after);
    drv_delete(stream);
    return result;
}

API cuStreamSynchronize(CUstream handle) {
    ENTER_STREAM(context, handle, stream);
    if (stream->capture)
        return drv_capture_refuses(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                                   "cuStreamSynchronize");
    if (stream == context->legacy) {
        DRV_TRY(refuse_implicit(stream));
        DRV_TRY(order(stream));
    }
    return drv_run(stream, UINT64_MAX);
}

/* Each query lets one piece of work happen, so that a program that polls comes to an end. */
API cuStreamQuery(CUstream handle) {
    ENTER_STREAM(context, handle, stream);
    if (stream->capture)
        return drv_capture_refuses(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "cuStreamQuery");
    if (!stream->head)
        return CUDA_SUCCESS;
    DRV_TRY(drv_run(stream, stream->done + 1));
    return DRV_FAIL(CUDA_ERROR_NOT_READY);
}

API cuStreamGetFlags(CUstream handle, unsigned *flags) {
    ENTER_STREAM(context, handle, stream);
    if (!flags)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    *flags = stream->flags;
    return CUDA_SUCCESS;
}

API cuStreamGetPriority(CUstream handle, int *priority) {
    ENTER_STREAM(context, handle, stream);
    if (!priority)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    *priority = stream->priority;
    return CUDA_SUCCESS;
}

API cuLaunchHostFunc(CUstream handle, CUhostFn function, void *user) {
    ENTER_STREAM(context, handle, stream);
    if (!function)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    return drv_submit(stream, &(drv_work){.kind = DRV_HOST, .host = function, .user = user});
}

/* --- events --------------------------------------------------------------------------------------
 */

static CUresult check_event(CUcontext context, CUevent event) {
    if (!drv_is(event, DRV_EVENT) || event->dead || event->object.context != context)
        return drv_fail(CUDA_ERROR_INVALID_HANDLE, "not an event of the current context");
    return CUDA_SUCCESS;
}

API cuEventCreate(CUevent *event, unsigned flags) {
    DRV_ENTER_CONTEXT(context);
    if (!event || flags & ~(unsigned)(CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING))
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    CUevent made = drv_new(DRV_EVENT, sizeof *made, context);
    if (!made)
        return DRV_FAIL(CUDA_ERROR_OUT_OF_MEMORY);
    made->flags = flags;
    *event = made;
    return CUDA_SUCCESS;
}

API cuEventDestroy_v2(CUevent event) {
    DRV_ENTER_CONTEXT(context);
    DRV_TRY(check_event(context, event));
    free(event->nodes);
    event->nodes = NULL;
    event->n_nodes = 0;
    if (event->pending > 0)
        event->dead = true;
    else
        drv_delete(event);
    return CUDA_SUCCESS;
}

API cuEventRecord(CUevent event, CUstream handle) {
    ENTER_STREAM(context, handle, stream);
    DRV_TRY(check_event(context, event));
    if (stream->capture)
        return drv_capture_record(stream, event);
    event->pending++; /* drv_submit takes it over */
    DRV_TRY(drv_submit(stream, &(drv_work){.kind = DRV_RECORD, .event = event}));
    free(event->nodes);
    event->nodes = NULL;
    event->n_nodes = 0;
    event->capture = NULL;
    event->recorded = true;
    event->stream = stream;
    event->after = stream->submitted;
    return CUDA_SUCCESS;
}

API cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags) {
    if (flags != CU_EVENT_RECORD_DEFAULT)
        return DRV_FAIL(CUDA_ERROR_NOT_SUPPORTED);
    return cuEventRecord(event, stream);
}

API cuStreamWaitEvent(CUstream handle, CUevent event, unsigned flags) {
    ENTER_STREAM(context, handle, stream);
    if (flags != CU_EVENT_WAIT_DEFAULT)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(check_event(context, event));
    if (stream->capture || event->capture)
        return drv_capture_wait(stream, event);
    if (!event->stream || event->stream == stream || event->stream->done >= event->after)
        return CUDA_SUCCESS;
    return drv_submit(
        stream, &(drv_work){.kind = DRV_WAIT, .stream = event->stream, .after = event->after});
}

static CUresult check_waitable(CUcontext context, CUevent event, const char *call) {
    DRV_TRY(check_event(context, event));
    DRV_TRY(drv_refuse_capture(context, call));
    if (event->capture)
        return drv_fail(CUDA_ERROR_CAPTURED_EVENT, "%s: the event was recorded in a capture", call);
    return CUDA_SUCCESS;
}

API cuEventSynchronize(CUevent event) {
    DRV_ENTER_CONTEXT(context);
    DRV_TRY(check_waitable(context, event, "cuEventSynchronize"));
    return event->stream ? drv_run(event->stream, event->after) : CUDA_SUCCESS;
}

API cuEventQuery(CUevent event) {
    DRV_ENTER_CONTEXT(context);
    DRV_TRY(check_waitable(context, event, "cuEventQuery"));
    if (!event->stream || event->stream->done >= event->after)
        return CUDA_SUCCESS;
    DRV_TRY(drv_run(event->stream, event->stream->done + 1));
    return DRV_FAIL(CUDA_ERROR_NOT_READY);
}

/* Time as it passed for the emulator. */
API cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
    DRV_ENTER_CONTEXT(context);
    if (!milliseconds)
        return DRV_FAIL(CUDA_ERROR_INVALID_VALUE);
    DRV_TRY(check_event(context, start));
    DRV_TRY(check_event(context, end));
    CUevent both[2] = {start, end};
    for (int i = 0; i < 2; i++) {
        if (!both[i]->recorded || both[i]->flags & CU_EVENT_DISABLE_TIMING)
            return drv_fail(CUDA_ERROR_INVALID_HANDLE, "an event without a time");
        if (both[i]->stream && both[i]->stream->done < both[i]->after)
            return DRV_FAIL(CUDA_ERROR_NOT_READY);
    }
    *milliseconds = (float)((end->time - start->time) * 1000);
    return CUDA_SUCCESS;
}
