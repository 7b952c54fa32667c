// out[i] = in[table[i]] for elements of 2 bytes, 0 where the table has -1. Eight to a thread.
extern "C" __global__ void __launch_bounds__(128)
    sliding_gather(const unsigned short* __restrict__ in, const int4* __restrict__ table,
                   uint4* __restrict__ out, int count) {
  const int index = blockIdx.x * 128 + threadIdx.x;
  if (index * 8 >= count) return;
  const int4 low = __ldg(table + 2 * index), high = __ldg(table + 2 * index + 1);
  const auto at = [&](int i) { return i < 0 ? 0u : static_cast<unsigned>(__ldg(in + i)); };
  out[index] = make_uint4(at(low.x) | at(low.y) << 16, at(low.z) | at(low.w) << 16,
                          at(high.x) | at(high.y) << 16, at(high.z) | at(high.w) << 16);
}
