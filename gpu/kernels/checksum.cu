// A sum over memory in which every word counts by its value and its place, the same as in gpu/src/kernels/checksum.rs: files that devices
// write themselves are known by it.
//
// registers <= 24: checksum
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define THREADS 256
#define STEP 0x9e3779b97f4a7c15ull

// For each place another number for each word: no change of one word can go unseen.
__device__ __forceinline__ u64 counted(u64 word, u64 place) {
    u64 x = word + (place + 1) * STEP;
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ull;
    return x ^ x >> 33;
}

// *total += the sum over the words of `bytes` bytes; the last word may be a part of one, and is filled up with zeros. The caller sets it to
// zero.
extern "C" __global__ void __launch_bounds__(THREADS) checksum(const u64 *__restrict__ words, u64 bytes, u64 *total) {
    u64 whole = bytes / 8, sum = 0;
#pragma unroll 1
    for (u64 at = (u64)blockIdx.x * THREADS + threadIdx.x; at < whole; at += (u64)gridDim.x * THREADS) sum += counted(words[at], at);
    if (blockIdx.x == 0 && threadIdx.x == 0 && whole * 8 < bytes) {
        u64 word = 0;
#pragma unroll 1
        for (u64 at = bytes; at > whole * 8; at--) word = word << 8 | ((const u8 *)words)[at - 1];
        sum += counted(word, whole);
    }
#pragma unroll
    for (u32 distance = 16; distance > 0; distance >>= 1) sum += __shfl_down_sync(~0u, sum, distance);
    if ((threadIdx.x & 31) == 0) atomicAdd(total, sum);
}
