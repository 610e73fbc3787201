/* The emulated driver's streams, events, capture and graphs: work is done late, in order, and only
 * what was waited for. */
#include "check_main.h"
#include "fixture/driver_case.h"

enum { N = 64 };

static CUstream stream, other; /* neither waits for the default stream */
static CUdeviceptr a, b;
static uint32_t *pinned, *back; /* [N], pinned */

static void setup(void) {
    driver_begin();
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    OK(cuMemAlloc_v2(&a, 4 * N));
    OK(cuMemAlloc_v2(&b, 4 * N));
    OK(cuMemHostAlloc((void **)&pinned, 4 * N, 0));
    OK(cuMemHostAlloc((void **)&back, 4 * N, 0));
    for (uint32_t i = 0; i < N; i++) {
        pinned[i] = i;
        back[i] = 9999;
    }
}

static CUresult add(CUstream in, CUdeviceptr to, CUdeviceptr from, uint32_t k) {
    uint32_t n = N;
    void *params[] = {&to, &from, &n, &k};
    return cuLaunchKernel(driver_function("addk"), 2, 1, 1, 32, 1, 1, 0, in, params, NULL);
}

static void expect(uint32_t first) {
    for (uint32_t i = 0; i < N; i++)
        if (back[i] != first + i)
            ck_abort_msg("element %u is %u, expected %u", i, back[i], first + i);
}

/* --- work is late --------------------------------------------------------------------------------
 */

START_TEST(copies_wait_to_be_waited_for) {
    OK(cuMemcpyHtoDAsync_v2(a, pinned, 4 * N, stream));
    OK(add(stream, b, a, 100));
    OK(cuMemcpyDtoHAsync_v2(back, b, 4 * N, stream));
    ck_assert_uint_eq(back[0], 9999); /* whoever reads now reads too early */
    for (uint32_t i = 0; i < N; i++)
        pinned[i] += 1000; /* … and this is too early as well */
    OK(cuStreamSynchronize(stream));
    expect(1100);
    driver_end();
}
END_TEST

START_TEST(pageable_memory_is_read_at_once) {
    uint32_t local[N], result[N];
    for (uint32_t i = 0; i < N; i++)
        local[i] = i;
    OK(cuMemcpyHtoDAsync_v2(a, local, 4 * N, stream));
    memset(local, 0xff, sizeof local);
    OK(add(stream, b, a, 5));
    OK(cuMemcpyDtoHAsync_v2(result, b, 4 * N, stream)); /* pageable: it has ended */
    for (uint32_t i = 0; i < N; i++)
        ck_assert_uint_eq(result[i], i + 5);
    driver_end();
}
END_TEST

START_TEST(polling_ends) {
    CUevent event;
    int n = 0;
    OK(cuEventCreate(&event, CU_EVENT_DEFAULT));
    OK(cuEventQuery(event)); /* never recorded */
    OK(cuMemcpyHtoDAsync_v2(a, pinned, 4 * N, stream));
    OK(add(stream, a, a, 1));
    OK(cuEventRecord(event, stream));
    OK(cuMemcpyDtoHAsync_v2(back, a, 4 * N, stream));
    while (cuEventQuery(event) == CUDA_ERROR_NOT_READY)
        n++;
    ck_assert_int_eq(n, 3);
    ck_assert_uint_eq(back[0], 9999);
    ck_assert_int_eq(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    OK(cuStreamQuery(stream));
    expect(1);
    driver_end();
}
END_TEST

START_TEST(frees_wait) {
    OK(cuMemcpyHtoDAsync_v2(a, pinned, 4 * N, stream));
    OK(cuMemcpyDtoHAsync_v2(back, a, 4 * N, stream));
    OK(cuMemFree_v2(a));
    expect(0);
    driver_end();
}
END_TEST

/* --- order ---------------------------------------------------------------------------------------
 */

START_TEST(streams_know_nothing_of_each_other) {
    CUevent event;
    OK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    OK(cuMemcpyHtoDAsync_v2(a, pinned, 4 * N, stream));
    OK(cuEventRecord(event, stream));
    OK(cuMemcpyHtoDAsync_v2(b, pinned, 4 * N, stream)); /* after the event */
    if (_i == 0) { /* nobody waits for the copy: the kernel finds nothing there */
        OK(add(other, a, a, 1));
        ck_assert_int_eq(cuStreamSynchronize(other), CUDA_ERROR_LAUNCH_FAILED);
        says("read of uninitialised memory");
    } else if (_i == 1) {
        OK(cuStreamWaitEvent(other, event, 0));
        OK(add(other, a, a, 1));
        OK(cuMemcpyDtoHAsync_v2(back, a, 4 * N, other));
        OK(cuStreamSynchronize(other));
        expect(1);
    } else { /* the event does not cover this copy */
        OK(cuStreamWaitEvent(other, event, 0));
        OK(add(other, b, b, 1));
        ck_assert_int_eq(cuStreamSynchronize(other), CUDA_ERROR_LAUNCH_FAILED);
    }
    driver_end();
}
END_TEST

START_TEST(the_default_stream_orders_others) {
    CUstream blocking;
    unsigned flags;
    OK(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
    OK(cuStreamGetFlags(blocking, &flags));
    ck_assert_uint_eq(flags, CU_STREAM_DEFAULT);
    OK(cuMemcpyHtoDAsync_v2(a, pinned, 4 * N, blocking));
    OK(add(NULL, a, a, 1));
    OK(add(blocking, a, a, 10));
    OK(add(CU_STREAM_PER_THREAD, b, a, 0)); /* waits for the default stream, not for `blocking` */
    OK(cuMemcpyDtoHAsync_v2(back, a, 4 * N, blocking));
    OK(cuStreamSynchronize(blocking));
    expect(11);
    driver_end();
}
END_TEST

START_TEST(waits_for_streams_that_have_gone) {
    CUevent event;
    OK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    OK(cuMemcpyHtoDAsync_v2(a, pinned, 4 * N, stream));
    OK(cuEventRecord(event, stream));
    OK(cuStreamWaitEvent(other, event, 0));
    OK(cuMemcpyDtoHAsync_v2(back, a, 4 * N, other));
    OK(cuStreamDestroy_v2(stream));
    ck_assert_int_eq(cuStreamSynchronize(stream), CUDA_ERROR_INVALID_HANDLE);
    OK(cuEventSynchronize(event));
    OK(cuEventDestroy_v2(event));
    ck_assert_int_eq(cuEventDestroy_v2(event), CUDA_ERROR_INVALID_HANDLE);
    OK(cuStreamSynchronize(other));
    expect(0);
    driver_end();
}
END_TEST

START_TEST(events_have_times) {
    CUevent begin, end;
    float ms;
    OK(cuEventCreate(&begin, CU_EVENT_DEFAULT));
    OK(cuEventCreate(&end, CU_EVENT_DEFAULT));
    ck_assert_int_eq(cuEventElapsedTime(&ms, begin, end), CUDA_ERROR_INVALID_HANDLE);
    OK(cuEventRecord(begin, stream));
    OK(cuEventRecord(end, stream));
    ck_assert_int_eq(cuEventElapsedTime(&ms, begin, end), CUDA_ERROR_NOT_READY);
    OK(cuEventSynchronize(end));
    OK(cuEventElapsedTime(&ms, begin, end));
    ck_assert(ms >= 0 && ms < 10000);
    /* Destroyed before it has happened. */
    OK(cuEventRecord(end, stream));
    OK(cuEventDestroy_v2(end));
    ck_assert_int_eq(cuEventQuery(end), CUDA_ERROR_INVALID_HANDLE);
    OK(cuStreamSynchronize(stream));
    driver_end();
}
END_TEST

static int calls;

static void count_call(void *result) {
    CUdevice device;
    calls++;
    *(CUresult *)result = cuDeviceGet(&device, 0);
}

START_TEST(host_functions) {
    CUresult result = CUDA_SUCCESS;
    calls = 0;
    OK(cuLaunchHostFunc(stream, count_call, &result));
    ck_assert_int_eq(calls, 0);
    OK(cuStreamSynchronize(stream));
    ck_assert_int_eq(calls, 1);
    ck_assert_int_eq(result, CUDA_ERROR_NOT_PERMITTED);
    ck_assert_int_eq(cuLaunchHostFunc(stream, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    driver_end();
}
END_TEST

/* --- capture -------------------------------------------------------------------------------------
 */

START_TEST(captured_work_runs_when_launched) {
    CUgraph graph;
    CUgraphExec exec;
    CUstreamCaptureStatus status;
    OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuMemcpyHtoDAsync_v2(a, pinned, 4 * N, stream));
    OK(add(stream, a, a, 1));
    OK(cuMemsetD8Async(b, 0, 4, stream));
    OK(cuMemcpyDtoHAsync_v2(back, a, 4 * N, stream));
    OK(cuStreamIsCapturing(stream, &status));
    ck_assert_int_eq(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuStreamIsCapturing(stream, &status));
    ck_assert_int_eq(status, CU_STREAM_CAPTURE_STATUS_NONE);
    OK(cuStreamSynchronize(stream));
    ck_assert_uint_eq(back[0], 9999);
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    OK(cuGraphDestroy(graph));
    ck_assert_int_eq(cuGraphDestroy(graph), CUDA_ERROR_INVALID_HANDLE);
    OK(cuGraphUpload(exec, stream));
    OK(cuGraphLaunch(exec, stream));
    ck_assert_uint_eq(back[0], 9999);
    OK(cuStreamSynchronize(stream));
    expect(1);
    for (uint32_t i = 0; i < N; i++)
        pinned[i] += 50;
    OK(cuGraphLaunch(exec, stream));
    OK(cuGraphLaunch(exec, stream));
    OK(cuGraphExecDestroy(exec)); /* what was launched is done before */
    expect(51);
    ck_assert_int_eq(cuGraphLaunch(exec, stream), CUDA_ERROR_INVALID_HANDLE);
    driver_end();
}
END_TEST

/* Captures a kernel in `stream`, and does something else meanwhile; the result of the end. */
static CUresult capture_with(int what, CUgraph *graph) {
    CUevent fork, outside;
    CUdeviceptr unused;
    OK(cuEventCreate(&fork, 0));
    OK(cuEventCreate(&outside, 0));
    OK(cuEventRecord(outside, other));
    OK(cuStreamBeginCapture_v2(stream, what == 4 ? CU_STREAM_CAPTURE_MODE_RELAXED
                                                 : CU_STREAM_CAPTURE_MODE_GLOBAL));
    OK(cuMemcpyHtoDAsync_v2(a, pinned, 4 * N, stream));
    OK(cuEventRecord(fork, stream));
    OK(add(stream, a, a, 1));
    switch (what) {
    case 2: /* a call that waits */
        ck_assert_int_eq(cuStreamSynchronize(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        ck_assert_int_eq(add(stream, a, a, 1), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        break;
    case 3: /* memory */
        ck_assert_int_eq(cuMemAlloc_v2(&unused, 4), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        break;
    case 4: /* … which is allowed here */
        OK(cuMemAlloc_v2(&unused, 4));
        break;
    case 5:
        ck_assert_int_eq(cuStreamWaitEvent(stream, outside, 0),
                         CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
        break;
    case 6:
        ck_assert_int_eq(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL),
                         CUDA_ERROR_ILLEGAL_STATE);
        break;
    case 7: /* the other stream's capture is another one */
        OK(cuStreamBeginCapture_v2(other, CU_STREAM_CAPTURE_MODE_GLOBAL));
        ck_assert_int_eq(cuStreamWaitEvent(other, fork, 0), CUDA_ERROR_STREAM_CAPTURE_MERGE);
        break;
    }
    return cuStreamEndCapture(stream, graph);
}

START_TEST(captures_that_go_wrong) {
    static const CUresult expected[] = {[2] = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                                        [3] = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                                        [5] = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                                        [7] = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED};
    CUgraph graph;
    ck_assert_int_eq(capture_with(_i, &graph), expected[_i]);
    if (expected[_i] != CUDA_SUCCESS)
        ck_assert_ptr_null(graph);
    /* The stream is as good as before. */
    OK(cuMemcpyHtoDAsync_v2(a, pinned, 4 * N, stream));
    OK(cuMemcpyDtoHAsync_v2(back, a, 4 * N, stream));
    OK(cuStreamSynchronize(stream));
    expect(0);
    driver_end();
}
END_TEST

START_TEST(captures_fork_and_join) {
    CUevent fork, join;
    CUgraph graph;
    CUgraphExec exec;
    OK(cuEventCreate(&fork, 0));
    OK(cuEventCreate(&join, 0));
    OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuMemcpyHtoDAsync_v2(a, pinned, 4 * N, stream));
    OK(cuEventRecord(fork, stream));
    OK(cuStreamWaitEvent(other, fork, 0));
    OK(add(other, b, a, 7));
    OK(cuEventRecord(join, other));
    ck_assert_int_eq(cuStreamEndCapture(other, &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    ck_assert_int_eq(cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

    OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuMemcpyHtoDAsync_v2(a, pinned, 4 * N, stream));
    OK(cuEventRecord(fork, stream));
    OK(cuStreamWaitEvent(other, fork, 0));
    OK(add(other, b, a, 7));
    OK(cuEventRecord(join, other));
    if (_i == 0) {
        ck_assert_int_eq(cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
        driver_end();
        return;
    }
    OK(add(stream, a, a, 0));
    OK(cuStreamWaitEvent(stream, join, 0));
    OK(cuMemcpyDtoHAsync_v2(back, b, 4 * N, stream));
    OK(cuStreamEndCapture(stream, &graph));
    /* The event belongs to the graph now, and was never recorded. */
    OK(cuEventSynchronize(join));
    CUgraphNode nodes[8];
    size_t n = 0;
    OK(cuGraphGetNodes(graph, NULL, &n));
    ck_assert_uint_eq(n, 4);
    n = 8;
    OK(cuGraphGetNodes(graph, nodes, &n));
    ck_assert_uint_eq(n, 4);
    static const CUgraphNodeType types[] = {CU_GRAPH_NODE_TYPE_MEMCPY, CU_GRAPH_NODE_TYPE_KERNEL,
                                            CU_GRAPH_NODE_TYPE_KERNEL, CU_GRAPH_NODE_TYPE_MEMCPY};
    for (int i = 0; i < 4; i++) {
        CUgraphNodeType type;
        OK(cuGraphNodeGetType(nodes[i], &type));
        ck_assert_int_eq(type, types[i]);
    }
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    OK(cuGraphLaunch(exec, stream));
    OK(cuStreamSynchronize(stream));
    expect(7);
    driver_end(); /* with graphs alive */
}
END_TEST

START_TEST(captures_are_the_thread_s) {
    CUstream blocking;
    CUgraph graph;
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    CUdeviceptr unused;
    ck_assert_int_eq(cuStreamBeginCapture_v2(NULL, CU_STREAM_CAPTURE_MODE_GLOBAL),
                     CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    ck_assert_int_eq(cuStreamBeginCapture_v2(stream, (CUstreamCaptureMode)7),
                     CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cuStreamEndCapture(stream, &graph), CUDA_ERROR_ILLEGAL_STATE);
    /* The default stream would have to wait for it. */
    OK(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
    OK(cuStreamBeginCapture_v2(blocking, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    ck_assert_int_eq(cuMemsetD8Async(a, 0, 4, NULL), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    ck_assert_int_eq(cuStreamEndCapture(blocking, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    /* A thread may say that it knows what it does. */
    OK(cuStreamBeginCapture_v2(blocking, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuThreadExchangeStreamCaptureMode(&mode));
    ck_assert_int_eq(mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
    OK(cuMemAlloc_v2(&unused, 4));
    OK(cuThreadExchangeStreamCaptureMode(&mode));
    OK(cuStreamEndCapture(blocking, &graph));
    /* Capturing when the context ends. */
    OK(cuStreamBeginCapture_v2(blocking, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(add(blocking, a, a, 1));
    driver_end();
}
END_TEST

/* --- graphs --------------------------------------------------------------------------------------
 */

START_TEST(parameters_of_nodes) {
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode node;
    size_t n = 1;
    OK(cuMemcpyHtoDAsync_v2(a, pinned, 4 * N, stream));
    OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    OK(add(stream, a, a, 1));
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphGetNodes(graph, &node, &n));
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    CUDA_KERNEL_NODE_PARAMS p;
    OK(cuGraphKernelNodeGetParams_v2(node, &p));
    ck_assert_ptr_eq(p.func, driver_function("addk"));
    ck_assert_uint_eq(p.gridDimX, 2);
    ck_assert_uint_eq(*(uint32_t *)p.kernelParams[3], 1);
    uint32_t k = 30;
    void *params[] = {p.kernelParams[0], p.kernelParams[1], p.kernelParams[2], &k};
    p.kernelParams = params;
    OK(cuGraphLaunch(exec, stream)); /* adds 1 */
    OK(cuGraphExecKernelNodeSetParams_v2(exec, node, &p));
    OK(cuGraphLaunch(exec, stream)); /* adds 30 */
    OK(cuMemcpyDtoHAsync_v2(back, a, 4 * N, stream));
    OK(cuStreamSynchronize(stream));
    expect(31);
    CUgraphExec second;
    OK(cuGraphInstantiateWithFlags(&second, graph, 0)); /* the graph still adds 1 */
    OK(cuGraphLaunch(second, stream));
    OK(cuGraphKernelNodeSetParams_v2(node, &p));
    OK(cuMemcpyDtoHAsync_v2(back, a, 4 * N, stream));
    OK(cuStreamSynchronize(stream));
    expect(32);
    p.gridDimX = 0;
    ck_assert_int_eq(cuGraphExecKernelNodeSetParams_v2(exec, node, &p), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(cuGraphInstantiateWithFlags(&second, graph, 1), CUDA_ERROR_NOT_SUPPORTED);
    driver_end();
}
END_TEST

START_TEST(failures_within_graphs) {
    CUgraph graph;
    CUgraphExec exec;
    uint64_t distance = 4096;
    void *params[] = {&a, &distance};
    OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    OK(cuLaunchKernel(driver_function("stray"), 1, 1, 1, 32, 1, 1, 0, stream, params, NULL));
    OK(cuMemcpyDtoHAsync_v2(back, a, 4 * N, stream));
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    OK(cuGraphLaunch(exec, stream));
    OK(cuGraphLaunch(exec, other));
    ck_assert_int_eq(cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
    ck_assert_uint_eq(back[0], 9999);
    ck_assert_int_eq(cuGraphExecDestroy(exec), CUDA_ERROR_ILLEGAL_ADDRESS);
    driver_end();
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("emulator streams");
    TCase *t = tcase_create("emulator streams");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, copies_wait_to_be_waited_for);
    tcase_add_test(t, pageable_memory_is_read_at_once);
    tcase_add_test(t, polling_ends);
    tcase_add_test(t, frees_wait);
    tcase_add_loop_test(t, streams_know_nothing_of_each_other, 0, 3);
    tcase_add_test(t, the_default_stream_orders_others);
    tcase_add_test(t, waits_for_streams_that_have_gone);
    tcase_add_test(t, events_have_times);
    tcase_add_test(t, host_functions);
    tcase_add_test(t, captured_work_runs_when_launched);
    tcase_add_loop_test(t, captures_that_go_wrong, 2, 8);
    tcase_add_loop_test(t, captures_fork_and_join, 0, 2);
    tcase_add_test(t, captures_are_the_thread_s);
    tcase_add_test(t, parameters_of_nodes);
    tcase_add_test(t, failures_within_graphs);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
