// The order of rows by partition, those of one partition in the order they had. A warp counts a tile of rows, and later puts
// their numbers where the prefix sums over all counts say; as no two warps share a tile, nothing is atomic, and any number of
// partitions will do. counts[partition * tiles + tile] begin as zeros.
//
// registers <= 40: partition_counts partition_indices
// registers <= 24: partition_starts
typedef unsigned int u32;
typedef unsigned long long u64;

#define THREADS 256

__device__ __forceinline__ u64 thread() { return (u64)blockIdx.x * THREADS + threadIdx.x; }
__device__ __forceinline__ u64 threads() { return (u64)gridDim.x * THREADS; }

// Scales the upper half of the hash, so that any number of partitions gets equal shares.
__device__ __forceinline__ u32 partition_of(u64 hash, u32 partitions) { return (u32)((hash >> 32) * partitions >> 32); }

__device__ __forceinline__ u64 smaller(u64 a, u64 b) { return a < b ? a : b; }

extern "C" __global__ void __launch_bounds__(THREADS)
    partition_counts(const u64 *__restrict__ hashes, u64 rows, u32 partitions, u32 tile_rows, u64 tiles, u32 *counts) {
    u32 lane = threadIdx.x & 31;
#pragma unroll 1
    for (u64 tile = thread() / 32; tile < tiles; tile += threads() / 32) {
        u64 end = smaller((tile + 1) * tile_rows, rows);
#pragma unroll 1
        for (u64 base = tile * tile_rows; base < end; base += 32) {
            u64 row = base + lane;
            // Lanes past the end are alike and in no partition.
            u32 partition = row < end ? partition_of(hashes[row], partitions) : partitions;
            u32 alike = __match_any_sync(~0u, partition);
            if (row < end && lane + 1 == __ffs(alike)) counts[partition * tiles + tile] += __popc(alike);
            // Another lane may be the first of this partition in the next round.
            __syncwarp();
        }
    }
}

// Counts are now where each tile's rows of each partition begin; used up.
extern "C" __global__ void __launch_bounds__(THREADS)
    partition_indices(const u64 *__restrict__ hashes, u64 rows, u32 partitions, u32 tile_rows, u64 tiles, u32 *starts,
                      u32 *__restrict__ indices) {
    u32 lane = threadIdx.x & 31;
#pragma unroll 1
    for (u64 tile = thread() / 32; tile < tiles; tile += threads() / 32) {
        u64 end = smaller((tile + 1) * tile_rows, rows);
#pragma unroll 1
        for (u64 base = tile * tile_rows; base < end; base += 32) {
            u64 row = base + lane;
            u32 partition = row < end ? partition_of(hashes[row], partitions) : partitions;
            u32 alike = __match_any_sync(~0u, partition);
            u32 *start = starts + (partition * tiles + tile);
            u32 at = row < end ? *start : 0;
            // All have read before the first of them writes.
            __syncwarp();
            if (row < end) {
                indices[at + __popc(alike & ((1u << lane) - 1))] = (u32)row;
                if (lane + 1 == __ffs(alike)) *start = at + __popc(alike);
            }
            __syncwarp();
        }
    }
}

// firsts[p] = where partition p begins, for p up to and with the number of partitions: there, the number of rows.
extern "C" __global__ void __launch_bounds__(THREADS)
    partition_starts(const u32 *__restrict__ starts, u64 tiles, u32 partitions, u32 *__restrict__ firsts) {
#pragma unroll 1
    for (u64 partition = thread(); partition <= partitions; partition += threads())
        firsts[partition] = starts[partition * tiles];
}
