// Numbers with something added, behind others: offsets of strings behind those of another column, and keys of a dictionary
// behind those of another dictionary, which follows it in the joined one. Sums wrap around.
//
// registers <= 24: append_1 append_2 append_4 append_8
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define THREADS 256

// output[at + i] = input[i] + added
#define APPEND(width, type)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                        \
        append_##width(const type *__restrict__ input, u64 items, u64 added, u64 at, type *__restrict__ output) {                \
        _Pragma("unroll 1") for (u64 item = (u64)blockIdx.x * THREADS + threadIdx.x; item < items;                               \
                                 item += (u64)gridDim.x * THREADS) output[at + item] = (type)(input[item] + added);              \
    }
APPEND(1, u8)
APPEND(2, u16)
APPEND(4, u32)
APPEND(8, u64)
