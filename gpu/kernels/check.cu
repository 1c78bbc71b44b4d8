// What nobody vouches for, before other kernels follow it.
//
// registers <= 24: check_offsets_32 check_offsets_64
typedef unsigned int u32;
typedef unsigned long long u64;

#define THREADS 256

// *wrong becomes other than zero where the offsets of `rows` strings do not begin with 0, rise, and end with `bytes`. The caller sets it
// to zero.
template <class T> __device__ __forceinline__ void check(const T *__restrict__ offsets, u64 rows, u64 bytes, u32 *wrong) {
    bool is_wrong = false;
#pragma unroll 1
    for (u64 row = (u64)blockIdx.x * THREADS + threadIdx.x; row <= rows; row += (u64)gridDim.x * THREADS) {
        u64 here = offsets[row], before = row > 0 ? offsets[row - 1] : 0;
        is_wrong |= (here < before) | ((row == 0) & (here != 0)) | ((row == rows) & (here != bytes));
    }
    if (is_wrong) atomicOr(wrong, 1);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    check_offsets_32(const u32 *__restrict__ offsets, u64 rows, u64 bytes, u32 *wrong) {
    check(offsets, rows, bytes, wrong);
}
extern "C" __global__ void __launch_bounds__(THREADS)
    check_offsets_64(const u64 *__restrict__ offsets, u64 rows, u64 bytes, u32 *wrong) {
    check(offsets, rows, bytes, wrong);
}
