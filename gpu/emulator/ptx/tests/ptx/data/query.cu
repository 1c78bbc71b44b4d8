// Compiled by NVRTC 12.9 with `--gpu-architecture=compute_80` to query.ptx, which tests run.
typedef long long i64; typedef unsigned long long u64; typedef unsigned int u32; typedef int i32;
typedef unsigned char u8;

__device__ __forceinline__ u64 mix64(u64 k) {          // murmur3 finalizer
  k ^= k >> 33; k *= 0xff51afd7ed558ccdULL;
  k ^= k >> 33; k *= 0xc4ceb9fe1a85ec53ULL;
  k ^= k >> 33; return k;
}

// pass 1: per-block histogram in shared memory -> hist[p * gridDim.x + block]
extern "C" __global__ void part_hist(const i64* __restrict__ keys, u64 n, u32 nparts, u32* __restrict__ hist) {
  extern __shared__ u32 sh[];
  for (u32 p = threadIdx.x; p < nparts; p += blockDim.x) sh[p] = 0;
  __syncthreads();
  u64 stride = (u64)gridDim.x * blockDim.x;
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride)
    atomicAdd(&sh[(u32)(mix64((u64)keys[i]) % nparts)], 1u);
  __syncthreads();
  for (u32 p = threadIdx.x; p < nparts; p += blockDim.x) hist[(u64)p * gridDim.x + blockIdx.x] = sh[p];
}

// pass 2: exclusive scan of m counters by ONE block (warp shuffles + shared), total in out[m]
extern "C" __global__ void excl_scan(const u32* __restrict__ in, u64* __restrict__ out, u32 m) {
  __shared__ u64 warp_sum[32];
  __shared__ u64 carry;
  u32 lane = threadIdx.x & 31, w = threadIdx.x >> 5, nw = (blockDim.x + 31) >> 5;
  if (threadIdx.x == 0) carry = 0;
  __syncthreads();
  for (u32 base = 0; base < m; base += blockDim.x) {
    u32 i = base + threadIdx.x;
    u64 v = i < m ? in[i] : 0;
    u64 x = v;
    #pragma unroll
    for (int d = 1; d < 32; d <<= 1) { u64 y = __shfl_up_sync(0xffffffffu, x, d); if (lane >= d) x += y; }
    if (lane == 31) warp_sum[w] = x;
    __syncthreads();
    if (w == 0) {
      u64 s = lane < nw ? warp_sum[lane] : 0;
      #pragma unroll
      for (int d = 1; d < 32; d <<= 1) { u64 y = __shfl_up_sync(0xffffffffu, s, d); if (lane >= d) s += y; }
      warp_sum[lane] = s;
    }
    __syncthreads();
    u64 pre = carry + (w ? warp_sum[w - 1] : 0);
    if (i < m) out[i] = pre + x - v;
    __syncthreads();
    if (threadIdx.x == 0) carry += warp_sum[nw - 1];
    __syncthreads();
  }
  if (threadIdx.x == 0) out[m] = carry;
}

// pass 3: scatter; each block owns a disjoint output range per partition
extern "C" __global__ void part_scatter(const i64* __restrict__ keys, u64 n, u32 nparts,
                                        const u64* __restrict__ offs, i64* __restrict__ out, u32* __restrict__ out_row) {
  extern __shared__ u64 cur[];
  for (u32 p = threadIdx.x; p < nparts; p += blockDim.x) cur[p] = offs[(u64)p * gridDim.x + blockIdx.x];
  __syncthreads();
  u64 stride = (u64)gridDim.x * blockDim.x;
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
    i64 k = keys[i];
    u64 d = atomicAdd(&cur[(u32)(mix64((u64)k) % nparts)], 1ULL);
    out[d] = k; out_row[d] = (u32)i;
  }
}

// filter + compact with warp ballot
extern "C" __global__ void filter_gt(const double* __restrict__ v, u32 n, double thr, u32* __restrict__ sel, u32* __restrict__ count) {
  u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  bool keep = i < n && v[i] > thr;
  u32 m = __ballot_sync(0xffffffffu, keep);
  u32 lane = threadIdx.x & 31;
  u32 base = 0;
  if (lane == 0 && m) base = atomicAdd(count, (u32)__popc(m));
  base = __shfl_sync(0xffffffffu, base, 0);
  if (keep) sel[base + __popc(m & ((1u << lane) - 1u))] = i;
}

// open-addressing hash aggregate: slot keys u64 (EMPTY = ~0), sum f64, count u64, max i64
extern "C" __global__ void hash_agg(const i64* __restrict__ keys, const double* __restrict__ vals, u64 n,
                                    u64* slot_key, double* sum, u64* cnt, i64* mx, u64 mask) {
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  u64 k = (u64)keys[i], h = mix64(k) & mask;
  for (;;) {
    u64 prev = atomicCAS(&slot_key[h], ~0ULL, k);
    if (prev == ~0ULL || prev == k) break;
    h = (h + 1) & mask;
  }
  atomicAdd(&sum[h], vals[i]);
  atomicAdd(&cnt[h], 1ULL);
  atomicMax(&mx[h], (i64)(vals[i] * 1000.0));
}

// LSD radix-sort pass building block: 4-bit digit, match_any + popc ranking
extern "C" __global__ void radix_rank(const u64* __restrict__ keys, u32 n, u32 shift, u32* __restrict__ digit, u32* __restrict__ rank_in_warp) {
  u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  u32 d = i < n ? (u32)((keys[i] >> shift) & 15u) : 16u;
  u32 peers = 0xffffffffu;
  #pragma unroll
  for (int b = 0; b < 5; b++) { u32 bal = __ballot_sync(0xffffffffu, (d >> b) & 1u); peers &= ((d >> b) & 1u) ? bal : ~bal; }
  u32 lane = threadIdx.x & 31;
  if (i < n) { digit[i] = d; rank_in_warp[i] = __popc(peers & ((1u << lane) - 1u)); }
}

// string hash over Arrow offsets/bytes (FNV-1a 64), divergent loops, byte loads
extern "C" __global__ void str_hash(const i32* __restrict__ offs, const u8* __restrict__ bytes, u32 n, u64* __restrict__ out) {
  u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  u64 h = 0xcbf29ce484222325ULL;
  for (i32 j = offs[i]; j < offs[i + 1]; j++) { h ^= bytes[j]; h *= 0x100000001b3ULL; }
  out[i] = h;
}

// block tree reduction f64 sum/min with shfl_down, f32 math too
extern "C" __global__ void reduce_sum(const double* __restrict__ v, u64 n, double* out) {
  __shared__ double s[32];
  double x = 0; u64 stride = (u64)gridDim.x * blockDim.x;
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) x += v[i];
  for (int d = 16; d; d >>= 1) x += __shfl_down_sync(0xffffffffu, x, d);
  if ((threadIdx.x & 31) == 0) s[threadIdx.x >> 5] = x;
  __syncthreads();
  if (threadIdx.x < 32) {
    x = threadIdx.x < (blockDim.x >> 5) ? s[threadIdx.x] : 0.0;
    for (int d = 16; d; d >>= 1) x += __shfl_down_sync(0xffffffffu, x, d);
    if (threadIdx.x == 0) atomicAdd(out, x);
  }
}
