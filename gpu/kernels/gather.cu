// Columns of rows picked by number. Indices are u32 (or i32, of which none is negative where it counts); an index that is null
// makes a null row and is not looked at; an index past the column is the caller's fault.
//
// registers <= 24: gather_1 gather_2 gather_4 gather_8 gather_bits gather_lengths_32 gather_lengths_64 offsets_32 offsets_64
// registers <= 32: gather_16
// registers <= 40: gather_bytes_32 gather_bytes_64
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define THREADS 256

__device__ __forceinline__ u64 thread() { return (u64)blockIdx.x * THREADS + threadIdx.x; }
__device__ __forceinline__ u64 threads() { return (u64)gridDim.x * THREADS; }
__device__ __forceinline__ bool is_set(const u32 *bits, u64 row) { return bits[row / 32] >> (row & 31) & 1; }
__device__ __forceinline__ bool is_valid(const u32 *validity, u64 row) { return !validity || is_set(validity, row); }

// Values of a fixed width. Null rows are zeros.
template <class T>
__device__ __forceinline__ void gather(const T *__restrict__ input, const u32 *__restrict__ indices,
                                       const u32 *__restrict__ validity, u64 rows, T *__restrict__ output) {
#pragma unroll 1
    for (u64 row = thread(); row < rows; row += threads()) {
        T value = {};
        if (is_valid(validity, row)) value = input[indices[row]];
        output[row] = value;
    }
}

#define GATHER(width, type)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                        \
        gather_##width(const type *__restrict__ input, const u32 *__restrict__ indices, const u32 *__restrict__ validity,        \
                       u64 rows, type *__restrict__ output) {                                                                    \
        gather(input, indices, validity, rows, output);                                                                          \
    }
GATHER(1, u8)
GATHER(2, u16)
GATHER(4, u32)
GATHER(8, u64)
GATHER(16, ulonglong2)

// Booleans, and the validity of any column: absent input means all ones. Null rows are zeros. A warp makes a word.
extern "C" __global__ void __launch_bounds__(THREADS)
    gather_bits(const u32 *__restrict__ input, const u32 *__restrict__ indices, const u32 *__restrict__ validity, u64 rows,
                u32 *__restrict__ output) {
    u32 lane = threadIdx.x & 31;
#pragma unroll 1
    for (u64 word = thread() / 32; word * 32 < rows; word += threads() / 32) {
        u64 row = word * 32 + lane;
        bool bit = row < rows && is_valid(validity, row);
        if (bit && input) bit = is_set(input, indices[row]);
        u32 bits = __ballot_sync(~0u, bit);
        if (lane == 0) output[word] = bits;
    }
}

// lengths[row] = bytes of the picked string. Null rows have none.
template <class T>
__device__ __forceinline__ void lengths_of(const T *__restrict__ offsets, const u32 *__restrict__ indices,
                                           const u32 *__restrict__ validity, u64 rows, u64 *__restrict__ lengths) {
#pragma unroll 1
    for (u64 row = thread(); row < rows; row += threads()) {
        u64 length = 0;
        if (is_valid(validity, row)) {
            u64 index = indices[row];
            length = offsets[index + 1] - offsets[index];
        }
        lengths[row] = length;
    }
}

// Copies the picked strings to where `starts` says (rows + 1 of the prefix sums of lengths, from where the first is to lie at 0). A warp
// does a row.
template <class T>
__device__ __forceinline__ void bytes_of(const T *__restrict__ offsets, const u8 *__restrict__ bytes,
                                         const u32 *__restrict__ indices, u64 rows, const u64 *__restrict__ starts,
                                         u8 *__restrict__ output) {
    u32 lane = threadIdx.x & 31;
    u64 first = starts[0];
#pragma unroll 1
    for (u64 row = thread() / 32; row < rows; row += threads() / 32) {
        u64 start = starts[row], length = starts[row + 1] - start;
        // Also true of null rows, whose index must not be followed.
        if (length == 0) continue;
        u64 from = offsets[indices[row]];
#pragma unroll 1
        for (u64 k = lane; k < length; k += 32) output[start - first + k] = bytes[from + k];
    }
}

// Where the picked strings lie: the same numbers from 0 on; the caller has seen that the last one fits.
template <class T>
__device__ __forceinline__ void offsets_of(const u64 *__restrict__ starts, u64 items, T *__restrict__ output) {
    u64 first = starts[0];
#pragma unroll 1
    for (u64 item = thread(); item < items; item += threads()) output[item] = (T)(starts[item] - first);
}

#define STRINGS(width, type)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                        \
        gather_lengths_##width(const type *__restrict__ offsets, const u32 *__restrict__ indices,                                \
                               const u32 *__restrict__ validity, u64 rows, u64 *__restrict__ lengths) {                          \
        lengths_of(offsets, indices, validity, rows, lengths);                                                                   \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                        \
        gather_bytes_##width(const type *__restrict__ offsets, const u8 *__restrict__ bytes, const u32 *__restrict__ indices,    \
                             u64 rows, const u64 *__restrict__ starts, u8 *__restrict__ output) {                                \
        bytes_of(offsets, bytes, indices, rows, starts, output);                                                                 \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                        \
        offsets_##width(const u64 *__restrict__ starts, u64 items, type *__restrict__ output) {                                  \
        offsets_of(starts, items, output);                                                                                       \
    }
STRINGS(32, u32)
STRINGS(64, u64)
