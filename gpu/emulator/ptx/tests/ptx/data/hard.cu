// Compiled by NVRTC 12.9 with `--gpu-architecture=compute_80 --device-int128` to hard.ptx, which tests run.
typedef unsigned int u32; typedef unsigned long long u64; typedef long long i64; typedef unsigned char u8; typedef unsigned short u16;
typedef __int128 i128; typedef unsigned __int128 u128;
struct Pair { int a; double b; };
struct Wide { i64 low, high; u32 tag; };
__device__ int launches = 3;
__device__ u32 table_of_words[4] = {1, 20, 300, 4000};
__constant__ int factors[16] = {1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12, 13, -14, 15, -16};
__device__ const char* words[3] = {"one", "two", "three"};
extern "C" {
__global__ void copy_vectors(int4* out, const int4* __restrict__ in, double2* d, short4* s, u8* bytes, int n) {
  int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t < n) { int4 v = in[t]; v.x += v.w; out[t] = v; double2 w = d[t]; d[t] = make_double2(w.y, w.x); short4 h = s[t]; h.x = -h.y; s[t] = h;
    uchar4 b = ((uchar4*)bytes)[t]; b.x ^= b.w; ((uchar4*)bytes)[t] = b; }
}
__global__ void math(double* out, const double* in, int n) {
  int t = threadIdx.x; if (t >= n) return; double x = in[t]; double* o = out + t * 16;
  o[0] = sqrt(x); o[1] = exp(x); o[2] = log(x); o[3] = pow(x, 1.5); o[4] = sin(x); o[5] = cos(x); o[6] = x / 3.0; o[7] = 1.0 / x; o[8] = floor(x) + ceil(x) + trunc(x) + rint(x);
  o[9] = fmod(x, 0.7); o[10] = cbrt(x); o[11] = fabs(x - 2.0); o[12] = fmin(x, 1.5) + fmax(x, 2.5); o[13] = tanh(x); o[14] = rsqrt(x); o[15] = round(x);
}
__global__ void math_single(float* out, const float* in, int n) {
  int t = threadIdx.x; if (t >= n) return; float x = in[t]; float* o = out + t * 16;
  o[0] = sqrtf(x); o[1] = expf(x); o[2] = logf(x); o[3] = powf(x, 1.5f); o[4] = sinf(x); o[5] = cosf(x); o[6] = x / 3.0f; o[7] = 1.0f / x; o[8] = floorf(x) + ceilf(x) + truncf(x) + rintf(x);
  o[9] = fmodf(x, 0.7f); o[10] = cbrtf(x); o[11] = fabsf(x - 2.0f); o[12] = fminf(x, 1.5f) + fmaxf(x, 2.5f); o[13] = tanhf(x); o[14] = rsqrtf(x); o[15] = roundf(x);
}
__global__ void decimals(u128* out, const i128* a, const i128* b, int n) {
  int t = threadIdx.x; if (t >= n) return; i128 x = a[t], y = b[t];
  out[t * 8] = x + y; out[t * 8 + 1] = x - y; out[t * 8 + 2] = x * y; out[t * 8 + 3] = y ? x / y : 0; out[t * 8 + 4] = y ? x % y : 0; out[t * 8 + 5] = x < y; out[t * 8 + 6] = x >> (t & 127); out[t * 8 + 7] = (u128)x << (t & 127);
}
__global__ void local_array(int* out, int n) {
  int places[32]; for (int i = 0; i < 32; i++) places[(i * n) & 31] = i * 3;
  out[threadIdx.x] = places[(threadIdx.x * 7) & 31] + factors[threadIdx.x & 15];
  atomicAdd(&launches, 1);
  if (threadIdx.x < 4) out[32 + threadIdx.x] = table_of_words[threadIdx.x];
  if (threadIdx.x < 3) out[36 + threadIdx.x] = words[threadIdx.x][1];
}
__device__ __noinline__ int factorial(int n) { return n < 2 ? 1 : n * factorial(n - 1); }
__device__ __noinline__ Wide widen(Wide w, int by) { Wide r; r.low = w.high * by; r.high = w.low + by; r.tag = w.tag ^ by; return r; }
__device__ __noinline__ void fill(int* where, int count, int value) { for (int i = 0; i < count; i++) where[i] = value + i; }
__global__ void calls(i64* out, int n) {
  int t = threadIdx.x; Wide w{t, 2 * t, (u32)n}; Wide r = widen(w, n + t); int room[8]; fill(room, 8, t);
  out[t * 4] = factorial((t + n) % 12); out[t * 4 + 1] = r.low + r.high; out[t * 4 + 2] = r.tag; out[t * 4 + 3] = room[n & 7];
}
__global__ void choose(int* out, int n) {
  int t = threadIdx.x; int r;
  switch (t) { case 0: r = n; break; case 1: r = n * n; break; case 2: r = out[40]; break; case 3: r = n - 7; break; case 4: r = 99 % (n + 1); break; case 5: r = n << 3; break; case 6: r = ~n; break; case 7: r = __popc(n); break; default: r = -t; }
  out[t] = r;
}
__global__ void bits(u64* out, const u64* in, int n) {
  int t = threadIdx.x; u64 x = in[t], y = in[t + 1]; u32 a = (u32)x, b = (u32)(x >> 32), c = (u32)y; u64* o = out + t * 20;
  o[0] = __popcll(x); o[1] = __clzll(x); o[2] = __brevll(x); o[3] = __ffsll(x); o[4] = __brev(a); o[5] = __clz(a); o[6] = __ffs(a); o[7] = __byte_perm(a, b, c & 0x7777); o[8] = __funnelshift_l(a, b, c); o[9] = __funnelshift_rc(a, b, c);
  o[10] = __umulhi(a, b); o[11] = __umul64hi(x, y); o[12] = __mul64hi(x, y); o[13] = __mulhi((int)a, (int)b); o[14] = __sad((int)a, (int)b, c); o[15] = (a & b) ^ (c | ~a); o[16] = __hadd(a, b); o[17] = (i64)x >> (c & 63); o[18] = x << (c & 63); o[19] = __usad(a, b, c);
}
__global__ void narrow(int* out, const signed char* s8, const u8* b8, const short* s16, const u16* b16, int n) {
  int t = threadIdx.x; out[t * 4] = s8[t] * b8[t]; out[t * 4 + 1] = s16[t] / (b16[t] | 1); out[t * 4 + 2] = s8[t] % (int)(s16[t] | 1); out[t * 4 + 3] = (u8)(b8[t] + s8[t]) + (short)(s16[t] * b16[t]);
}
__global__ void atomics(u32* w, int* i, u64* l, float* f, double* d, i64* s) {
  int t = threadIdx.x + blockIdx.x * blockDim.x;
  atomicAdd(w, 1u); atomicSub(w + 1, 2u); atomicMin(w + 2, (u32)t); atomicMax(w + 3, (u32)t); atomicAnd(w + 4, ~(1u << (t & 31))); atomicOr(w + 5, 1u << (t & 31)); atomicXor(w + 6, 1u << (t & 7)); atomicInc(w + 7, 9u); atomicDec(w + 8, 9u); atomicExch(w + 9, 7u); atomicCAS(w + 10, 0u, 5u);
  atomicMin(i, -t); atomicMax(i + 1, t - 5); atomicAdd(l, 1ull << 33); atomicMin(l + 1, (u64)t); atomicMax(l + 2, (u64)t << 40); atomicAnd(l + 3, ~(1ull << (t & 63))); atomicOr(l + 4, 1ull << (t & 63)); atomicXor(l + 5, 1ull << (t & 15)); atomicExch(l + 6, 3ull); atomicCAS(l + 7, 0ull, 5ull);
  atomicAdd(f, 0.5f); atomicAdd(d, 0.25); atomicMin(s, (i64)-t); atomicMax(s + 1, (i64)t - 3);
}
__global__ void together(u32* out, int n) {
  u32 t = threadIdx.x, full = 0xffffffffu; u32* o = out + t * 16;
  o[0] = __ballot_sync(full, t & 1); o[1] = __any_sync(full, t == 3); o[2] = __all_sync(full, t < 32); o[3] = __match_any_sync(full, t / 5); int same; o[4] = __match_all_sync(full, n, &same) + same; o[5] = __reduce_add_sync(full, t); o[6] = __reduce_max_sync(full, t ^ 5); o[7] = __reduce_or_sync(full, 1u << (t & 7)); o[8] = (u32)__reduce_min_sync(full, (int)t - 9); o[9] = __shfl_xor_sync(full, t * 3, 5); o[10] = __shfl_up_sync(full, t, 2, 8); o[11] = __shfl_down_sync(full, t, 3, 16); o[12] = __shfl_sync(full, t, 9, 16); o[13] = __match_any_sync(full, (u64)(t / 7) << 40); o[14] = __activemask(); o[15] = __popc(__ballot_sync(full, t > 3) & ((1u << t) - 1));
}
__global__ void block_votes(int* out) { int t = threadIdx.x; out[t * 3] = __syncthreads_count(t % 3 == 0); out[t * 3 + 1] = __syncthreads_and(t < 64); out[t * 3 + 2] = __syncthreads_or(t == 63); }
__global__ void clocks(u64* out) { u64 c = clock64(); __nanosleep(10); __threadfence(); __threadfence_block(); __threadfence_system(); u64 g; asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(g)); u32 smid, lt; asm volatile("mov.u32 %0, %%smid;" : "=r"(smid)); asm("mov.u32 %0, %%lanemask_lt;" : "=r"(lt)); out[0] = clock64() > c; out[1] = g > 0; out[2] = smid < 200; out[3] = lt; }
__global__ void generic(int* out, int which) { __shared__ int s[32]; int l[4]; l[which & 3] = 5; l[(which + 1) & 3] = 6; s[threadIdx.x] = threadIdx.x; __syncthreads(); int* p = which & 4 ? &l[which & 3] : which & 8 ? &s[(threadIdx.x + 1) & 31] : out + 32; out[threadIdx.x] = *p + __isShared(p) * 100 + __isGlobal(p) * 1000 + __isLocal(p) * 10000; }
__global__ void conversions(i64* out, const double* d, const float* f, int n) {
  int t = threadIdx.x; double x = d[t]; float y = f[t]; i64* o = out + t * 16; o[0] = (i64)x; o[1] = (u64)x; o[2] = (int)x; o[3] = (u32)x; o[4] = (short)x; o[5] = (i64)y; o[6] = (u64)y; o[7] = (int)y; o[8] = __float2int_rn(y); o[9] = __double2ll_rd(x); o[10] = __double_as_longlong((double)y); o[11] = __float_as_int((float)x); o[12] = __double_as_longlong((double)(o[0])); o[13] = __float_as_int((float)(u64)o[1]); o[14] = __float_as_int((float)o[0]); o[15] = __float2uint_ru(y);
}
__global__ void rounded(double* out, float* outf, const double* a, const float* b) {
  int t = threadIdx.x; double x = a[t], y = a[t + 1]; float u = b[t], v = b[t + 1]; double* o = out + t * 12; float* p = outf + t * 12;
  o[0] = __dadd_rz(x, y); o[1] = __dadd_ru(x, y); o[2] = __dmul_rd(x, y); o[3] = __fma_rz(x, y, x); o[4] = __ddiv_ru(x, y); o[5] = __dsqrt_rd(x); o[6] = __drcp_rz(x); o[7] = __fma_ru(x, y, -x * y);
  p[0] = __fadd_rz(u, v); p[1] = __fadd_ru(u, v); p[2] = __fmul_rd(u, v); p[3] = __fmaf_rz(u, v, u); p[4] = __fdiv_ru(u, v); p[5] = __fsqrt_rd(u); p[6] = __frcp_rz(u); p[7] = __double2float_ru(x); p[8] = __ull2float_rd((u64)x); p[9] = __saturatef(u); p[10] = __ll2double_rz((i64)x * 3) ; p[11] = __frsqrt_rn(u); 
}
__global__ void asserted(int n) { if (n < 0) __trap(); if (n > 5) __brkpt(); }
}
