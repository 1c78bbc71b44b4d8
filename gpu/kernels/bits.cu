// Bitmaps as Arrow has them, least significant bit first, read and written as words of 32 bits. Bits past the length are
// ignored where read and zero where written. A validity bitmap that is absent (null) means that all rows are valid.
//
// registers <= 24: mask_counts mask_indices bits_append
// registers <= 32: bits_sum
typedef unsigned int u32;
typedef unsigned long long u64;

#define THREADS 256

__device__ __forceinline__ u64 thread() { return (u64)blockIdx.x * THREADS + threadIdx.x; }
__device__ __forceinline__ u64 threads() { return (u64)gridDim.x * THREADS; }

// The bits of a word that are below `end`, a position in bits.
__device__ __forceinline__ u32 live(u64 word, u64 end) {
    u64 left = end - word * 32;
    return left >= 32 ? ~0u : (1u << left) - 1;
}

// *total += the number of ones among the first `bits`. The caller sets it to zero.
extern "C" __global__ void __launch_bounds__(THREADS) bits_sum(const u32 *__restrict__ words, u64 bits, u64 *total) {
    u64 count = (bits + 31) / 32, sum = 0;
#pragma unroll 1
    for (u64 word = thread(); word < count; word += threads()) sum += __popc(words[word] & live(word, bits));
#pragma unroll
    for (u32 distance = 16; distance > 0; distance >>= 1) sum += __shfl_down_sync(~0u, sum, distance);
    if ((threadIdx.x & 31) == 0) atomicAdd(total, sum);
}

// Rows that a mask keeps: those that are true. Null counts as false.
__device__ __forceinline__ u32 kept(const u32 *mask, const u32 *validity, u64 word, u64 rows) {
    u32 valid = validity ? validity[word] : ~0u;
    return mask[word] & valid & live(word, rows);
}

// counts[word] = kept rows among the 32 of the word.
extern "C" __global__ void __launch_bounds__(THREADS)
    mask_counts(const u32 *__restrict__ mask, const u32 *__restrict__ validity, u64 rows, u32 *__restrict__ counts) {
    u64 count = (rows + 31) / 32;
#pragma unroll 1
    for (u64 word = thread(); word < count; word += threads()) counts[word] = __popc(kept(mask, validity, word, rows));
}

// The numbers of the kept rows, in order; those of a word begin at starts[word]. A warp does a word.
extern "C" __global__ void __launch_bounds__(THREADS)
    mask_indices(const u32 *__restrict__ mask, const u32 *__restrict__ validity, u64 rows, const u32 *__restrict__ starts,
                 u32 *__restrict__ indices) {
    u32 lane = threadIdx.x & 31;
    u64 count = (rows + 31) / 32;
#pragma unroll 1
    for (u64 word = thread() / 32; word < count; word += threads() / 32) {
        u32 ones = kept(mask, validity, word, rows);
        if (ones >> lane & 1) indices[starts[word] + __popc(ones & ((1u << lane) - 1))] = (u32)(word * 32 + lane);
    }
}

// Writes the `bits` of input behind the first `at` bits of output; the word in which they begin keeps what it has below, so
// inputs are appended one launch after the other. Absent input: ones. One thread per word of output.
extern "C" __global__ void __launch_bounds__(THREADS) bits_append(const u32 *__restrict__ input, u64 bits, u64 at, u32 *output) {
    u64 first = at / 32, words = (bits + 31) / 32, touched = (at + bits + 31) / 32 - first;
    u32 shift = (u32)at & 31;
#pragma unroll 1
    for (u64 word = thread(); word < touched; word += threads()) {
        u32 low = 0, high = ~0u;
        if (word > 0) low = input ? input[word - 1] : ~0u;
        if (input) high = word < words ? input[word] : 0;
        u32 value = (high << shift) | (u32)((u64)low << shift >> 32);
        if (word == 0 && shift > 0) value |= output[first] & ((1u << shift) - 1);
        output[first + word] = value & live(first + word, at + bits);
    }
}
