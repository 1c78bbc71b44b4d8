// Exclusive prefix sums of any length, in tiles of 1024 items: first the sum of each tile, then (by the caller, with these same
// kernels) the prefix sums of those sums, then each tile from where it begins. No block waits for another, so they may run in any
// order. Sums wrap around.
//
// registers <= 32: scan_sums_u32 scan_sums_u64
// registers <= 40: scan_tiles_u32 scan_tiles_u64
typedef unsigned int u32;
typedef unsigned long long u64;

#define THREADS 256
#define WARPS (THREADS / 32)
#define EACH 4

// The sum of what the threads before this one hold; the sum of all in `total`. One call per block: `warps` is written once.
template <class T> __device__ __forceinline__ T before_mine(T mine, T *warps, T &total) {
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    T sum = mine;
#pragma unroll
    for (u32 distance = 1; distance < 32; distance <<= 1) {
        T left = __shfl_up_sync(~0u, sum, distance);
        sum += lane >= distance ? left : 0;
    }
    if (lane == 31) warps[warp] = sum;
    __syncthreads();
    T before = sum - mine;
    total = 0;
#pragma unroll
    for (u32 other = 0; other < WARPS; other++) {
        before += other < warp ? warps[other] : 0;
        total += warps[other];
    }
    return before;
}

// This thread's items, zeros past the end; and their sum.
template <class T> __device__ __forceinline__ T load(const T *input, u64 items, u64 first, T *mine) {
    T sum = 0;
#pragma unroll
    for (u32 k = 0; k < EACH; k++) {
        mine[k] = first + k < items ? input[first + k] : 0;
        sum += mine[k];
    }
    return sum;
}

// sums[tile] = the sum of the tile's items. One block per tile.
template <class T> __device__ __forceinline__ void sums_of_tiles(const T *input, u64 items, T *sums) {
    __shared__ T warps[WARPS];
    T mine[EACH], total;
    u64 first = ((u64)blockIdx.x * THREADS + threadIdx.x) * EACH;
    before_mine(load(input, items, first, mine), warps, total);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

// output[i] = carries[tile] + the items before i in its tile; output[items] = the sum of all. Output may be input. No carries
// (null): all are zero, as in the only tile. One block per tile, and one when there are no items.
template <class T> __device__ __forceinline__ void scan_of_tiles(const T *input, u64 items, const T *carries, T *output) {
    __shared__ T warps[WARPS];
    T mine[EACH], total;
    u64 first = ((u64)blockIdx.x * THREADS + threadIdx.x) * EACH;
    T before = before_mine(load(input, items, first, mine), warps, total);
    T carry = carries ? carries[blockIdx.x] : 0;
    before += carry;
#pragma unroll
    for (u32 k = 0; k < EACH; k++) {
        if (first + k < items) output[first + k] = before;
        before += mine[k];
    }
    if (blockIdx.x == gridDim.x - 1 && threadIdx.x == 0) output[items] = carry + total;
}

extern "C" __global__ void __launch_bounds__(THREADS) scan_sums_u32(const u32 *input, u64 items, u32 *sums) {
    sums_of_tiles(input, items, sums);
}
extern "C" __global__ void __launch_bounds__(THREADS) scan_sums_u64(const u64 *input, u64 items, u64 *sums) {
    sums_of_tiles(input, items, sums);
}
extern "C" __global__ void __launch_bounds__(THREADS)
    scan_tiles_u32(const u32 *input, u64 items, const u32 *carries, u32 *output) {
    scan_of_tiles(input, items, carries, output);
}
extern "C" __global__ void __launch_bounds__(THREADS)
    scan_tiles_u64(const u64 *input, u64 items, const u64 *carries, u64 *output) {
    scan_of_tiles(input, items, carries, output);
}
