// Packed frames back to counts, see io/packing.py for the format: one thread block a tile.
//
// Columns of `tiles`: first word of the tile, its base, width in bits, escapes; first of its values in `values`, and
// how many. `outside` counts escapes at places outside of their tile, which are passed over.
extern "C" __global__ void unpack_tiles(const u16* words, const i64* tiles, u16* values, int* outside) {
  const i64* tile = tiles + 6 * (i64)blockIdx.x;
  const u16* planes = words + tile[0];
  const int base = (int)tile[1], width = (int)tile[2], n_escapes = (int)tile[3], n = (int)tile[5];
  u16* part = values + tile[4];
  const int sixteenth = (n + 15) / 16;  // of the tile filled up; a plane of p bits has p times as many words

  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    // Of the values of a plane, those in the same bits of their words follow each other: p sixteenths of the tile.
    const int where = i / sixteenth;
    int value = base, shift = 0, plane = 0;
    for (int log2 = 4; log2 >= 0; --log2) {
      const int bits = 1 << log2;
      if (!(width & bits)) continue;
      const int block = where >> log2;
      const int word = planes[plane + i - block * bits * sixteenth];
      value += (word >> block * bits & (1 << bits) - 1) << shift;
      plane += bits * sixteenth;
      shift += bits;
    }
    part[i] = (u16)value;
  }
  __syncthreads();  // an escape goes over what its bits said

  const u16* escapes = planes + (i64)width * sixteenth;
  for (int k = threadIdx.x; k < n_escapes; k += blockDim.x) {
    const int place = escapes[k];
    if (place < n) part[place] = escapes[n_escapes + k];
    else atomicAdd(outside, 1);
  }
}
