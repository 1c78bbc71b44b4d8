// Hashes of rows over their key columns, the same as in gpu/src/kernels/hash.rs. Each kernel adds one column:
// hashes[row] = combined(hashes[row], hash of the value), where hashes begin as zeros and combined(0, v) is v. So what the
// kernels make of a dictionary's values alone are the hashes of its entries.
//
// registers <= 24: hash_bits hash_1 hash_2 hash_4 hash_8 hash_f16 hash_f32 hash_f64
// registers <= 32: hash_16 hash_entries_1 hash_entries_2 hash_entries_4 hash_entries_8
// registers <= 40: hash_bytes_32 hash_bytes_64
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define THREADS 256
#define SEED 0x9e3779b97f4a7c15ull
#define NULL_HASH 0xd1b54a32d192ed03ull

__device__ __forceinline__ u64 thread() { return (u64)blockIdx.x * THREADS + threadIdx.x; }
__device__ __forceinline__ u64 threads() { return (u64)gridDim.x * THREADS; }
__device__ __forceinline__ bool is_set(const u32 *bits, u64 row) { return bits[row / 32] >> (row & 31) & 1; }
__device__ __forceinline__ bool is_valid(const u32 *validity, u64 row) { return !validity || is_set(validity, row); }

__device__ __forceinline__ u64 mixed(u64 x) {
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ull;
    return x ^ x >> 33;
}
__device__ __forceinline__ u64 combined(u64 hash, u64 value) { return value ^ mixed(hash); }

template <class T> __device__ __forceinline__ u64 hash_of(T value) { return mixed(value ^ SEED); }
template <> __device__ __forceinline__ u64 hash_of(ulonglong2 value) { return mixed(value.y ^ mixed(value.x ^ SEED)); }

// The bits of a float such that equal keys have equal bits: one zero, and one NaN.
template <class T> __device__ __forceinline__ T one_of_equals(T bits, T infinity, T nan) {
    T magnitude = bits & (T)~((T)1 << (sizeof(T) * 8 - 1));
    if (magnitude > infinity) return nan;
    return magnitude == 0 ? 0 : bits;
}

// Adds the hash of each row, which is the expression of `row`.
#define ROWS(expression)                                                                                                         \
    _Pragma("unroll 1") for (u64 row = thread(); row < rows; row += threads()) {                                                 \
        u64 value = NULL_HASH;                                                                                                   \
        if (is_valid(validity, row)) value = expression;                                                                         \
        hashes[row] = combined(hashes[row], value);                                                                              \
    }
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

KERNEL hash_bits(const u32 *__restrict__ input, const u32 *__restrict__ validity, u64 rows, u64 *__restrict__ hashes) {
    ROWS(hash_of((u64)is_set(input, row)))
}

#define FIXED(width, type)                                                                                                       \
    KERNEL hash_##width(const type *__restrict__ input, const u32 *__restrict__ validity, u64 rows, u64 *__restrict__ hashes) {  \
        ROWS(hash_of(input[row]))                                                                                                \
    }
FIXED(1, u8)
FIXED(2, u16)
FIXED(4, u32)
FIXED(8, u64)
FIXED(16, ulonglong2)

#define FLOAT(width, type, infinity, nan)                                                                                        \
    KERNEL hash_f##width(const type *__restrict__ input, const u32 *__restrict__ validity, u64 rows, u64 *__restrict__ hashes) { \
        ROWS(hash_of(one_of_equals<type>(input[row], infinity, nan)))                                                            \
    }
FLOAT(16, u16, 0x7c00, 0x7e00)
FLOAT(32, u32, 0x7f800000, 0x7fc00000)
FLOAT(64, u64, 0x7ff0000000000000ull, 0x7ff8000000000000ull)

// Eight bytes at a time, the last ones filled up with zeros; the length is in it, so the filling is no part of the key.
__device__ __forceinline__ u64 hash_of_bytes(const u8 *bytes, u64 length) {
    u64 hash = SEED ^ length;
#pragma unroll 1
    for (u64 at = 0; at < length; at += 8) {
        u64 word = 0;
#pragma unroll 1
        for (u32 k = 0; k < 8 && at + k < length; k++) word |= (u64)bytes[at + k] << (8 * k);
        hash = mixed(hash ^ word);
    }
    return mixed(hash);
}

#define BYTES(width, type)                                                                                                       \
    KERNEL hash_bytes_##width(const type *__restrict__ offsets, const u8 *__restrict__ bytes, const u32 *__restrict__ validity,  \
                              u64 rows, u64 *__restrict__ hashes) {                                                              \
        ROWS(hash_of_bytes(bytes + offsets[row], offsets[row + 1] - offsets[row]))                                               \
    }
BYTES(32, u32)
BYTES(64, u64)

// Rows of a dictionary column: a key picks the hash of its entry. Keys are not negative where it counts.
#define ENTRIES(width, type)                                                                                                     \
    KERNEL hash_entries_##width(const type *__restrict__ keys, const u32 *__restrict__ validity, u64 rows,                       \
                                const u64 *__restrict__ entries, u64 *__restrict__ hashes) {                                     \
        ROWS(entries[keys[row]])                                                                                                 \
    }
ENTRIES(1, u8)
ENTRIES(2, u16)
ENTRIES(4, u32)
ENTRIES(8, u64)
