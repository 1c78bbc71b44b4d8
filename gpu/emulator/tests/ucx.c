// One end of a transfer of device memory by UCX: `ucx send|receive COUNT BYTES legacy|pool`, with the other end's output on standard input.
//
// Run twice by tests/ucx.rs, which joins the two with pipes. Prints "right" when all bytes have arrived as they were sent.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ucp/api/ucp.h>

int cuInit(unsigned flags);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuMemAlloc_v2(uint64_t *address, size_t bytes);
int cuMemAllocAsync(uint64_t *address, size_t bytes, void *stream);
int cuCtxSynchronize(void);
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes);
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes);

static void check(int failed, const char *what) {
    if (failed) {
        fprintf(stderr, "%s failed with %d\n", what, failed);
        exit(1);
    }
}

static void move(ssize_t (*with)(int, void *, size_t), int file, void *bytes, size_t count) {
    for (char *at = bytes; count > 0;) {
        ssize_t moved = with(file, at, count);
        check(moved <= 0, "the pipe to the other end");
        at += moved;
        count -= moved;
    }
}

static ssize_t put(int file, void *bytes, size_t count) { return write(file, bytes, count); }

static void wait_for(ucp_worker_h worker, void *request) {
    if (request == NULL) return;
    check(UCS_PTR_IS_ERR(request), "the request");
    ucs_status_t status;
    while ((status = ucp_request_check_status(request)) == UCS_INPROGRESS) ucp_worker_progress(worker);
    check(status, "the transfer");
    ucp_request_free(request);
}

static ucp_ep_h connect_to_other(ucp_context_h context, ucp_worker_h *worker) {
    ucp_worker_params_t single = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE, .thread_mode = UCS_THREAD_MODE_SINGLE};
    check(ucp_worker_create(context, &single, worker), "ucp_worker_create");
    ucp_address_t *own;
    size_t length, other_length;
    check(ucp_worker_get_address(*worker, &own, &length), "ucp_worker_get_address");
    move(put, STDOUT_FILENO, &length, sizeof length);
    move(put, STDOUT_FILENO, own, length);
    move(read, STDIN_FILENO, &other_length, sizeof other_length);
    void *other = malloc(other_length);
    move(read, STDIN_FILENO, other, other_length);
    ucp_ep_params_t there = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS, .address = other};
    ucp_ep_h end;
    check(ucp_ep_create(*worker, &there, &end), "ucp_ep_create");
    return end;
}

int main(int count_of_arguments, char **arguments) {
    check(count_of_arguments != 5, "reading the arguments");
    int sends = strcmp(arguments[1], "send") == 0;
    long count = atol(arguments[2]);
    size_t bytes = strtoull(arguments[3], NULL, 10);

    void *cuda;
    uint64_t device;
    check(cuInit(0), "cuInit");
    check(cuDevicePrimaryCtxRetain(&cuda, 0), "cuDevicePrimaryCtxRetain");
    check(cuCtxSetCurrent(cuda), "cuCtxSetCurrent");
    int is_pool = strcmp(arguments[4], "pool") == 0;
    check(is_pool ? cuMemAllocAsync(&device, bytes, NULL) : cuMemAlloc_v2(&device, bytes), "the allocation");
    check(cuCtxSynchronize(), "cuCtxSynchronize");
    unsigned char *host = calloc(bytes, 1);
    for (size_t index = 0; sends && index < bytes; index++) host[index] = (unsigned char)(index * 31 + 7);
    check(cuMemcpyHtoD_v2(device, host, bytes), "cuMemcpyHtoD");

    ucp_context_h context;
    ucp_worker_h worker;
    ucp_params_t features = {.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_TAG};
    check(ucp_init(&features, NULL, &context), "ucp_init");
    ucp_ep_h end = connect_to_other(context, &worker);
    // UCX finds out by itself what kind of memory it is given.
    ucp_request_param_t on_device = {0};
    for (long index = 0; index < count; index++)
        wait_for(worker, sends ? ucp_tag_send_nbx(end, (void *)device, bytes, 1, &on_device)
                               : ucp_tag_recv_nbx(worker, (void *)device, bytes, 1, -1, &on_device));

    // The receiver's word that it is done, while the sender goes on serving it.
    char done = 1;
    ucp_request_param_t plain = {0};
    wait_for(worker, sends ? ucp_tag_recv_nbx(worker, &done, 1, 2, -1, &plain) : ucp_tag_send_nbx(end, &done, 1, 2, &plain));
    wait_for(worker, ucp_ep_flush_nbx(end, &plain));
    memset(host, 0, bytes);
    check(cuMemcpyDtoH_v2(host, device, bytes), "cuMemcpyDtoH");
    for (size_t index = 0; index < bytes; index++) check(host[index] != (unsigned char)(index * 31 + 7), "comparing the bytes");
    fprintf(stderr, "right\n");
    // What the other end needs to end is its own: neither waits for the other's teardown.
    _exit(0);
}
