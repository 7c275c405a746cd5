// The fused renderer: samples, planes, decoder and compositing of one ray after another (Sec. 3.3, Eqs. 7-10).
//
// Compiled once for each instruction set (EXPORT3D_KERNEL names it). Everything is local to the file and no template of the
// standard library is used, so that no code of one instruction set can be linked into another. All memory comes from outside.
#include <cmath>

#include "lanes.h"
#include "scene.h"

namespace {

using export3d::Joint;
using export3d::Pinhole;
using export3d::Scene;

constexpr int kPanel = 32;                             // outputs that are calculated together
constexpr int kBlock = kLanes >= 16 ? 4 : (kLanes >= 8 ? 2 : 1);  // samples that share the loads of the last layer
constexpr int kInputs = 32, kColumns = 16;             // channels and texels that are folded together
constexpr int kMostMaps = 64;                          // channels of the depth maps, at most
constexpr int kSpare = 32;                             // room behind lists of samples
constexpr float kScales[2] = {0.012f, 0.05f};          // `_SCALES` of the source depth

inline int up(int n, int step) { return (n + step - 1) / step * step; }
inline int least_of(int a, int b) { return a < b ? a : b; }

// Where everything lies in the memory that a call is given.
struct Memory {
  int row, outputs, clues, map_row, side, slots, first_fine;
  float *table, *second_table, *maps;
  float* probed;  // coarse densities of the rays of the lattice
  float *first, *first_bias, *second, *second_bias, *density, *last, *last_bias, *clue_weight;
  float* threads;
  size_t per_thread, total;

  float* take(size_t count, float* from) {
    float* out = from + total;
    total += (count + 15) / 16 * 16;
    return out;
  }

  Memory(const Scene& s, float* work, int thread_count) : total(0) {
    row = up(s.hidden + s.motion, kLanes);
    outputs = up(s.outputs, kPanel);
    clues = s.maps ? s.map_channels + 4 : 0;
    map_row = up(s.map_channels, kLanes);
    side = s.resolution + 2 * s.ring;
    first_fine = up(s.num_coarse, 16);
    slots = first_fine + up(s.num_fine, 16);
    const size_t texels = 3 * (size_t)side * side, inputs = s.channels + s.motion;
    table = take(texels * row, work);
    second_table = s.second_weight ? take(texels * row, work) : nullptr;
    maps = s.maps ? take((size_t)s.map_height * s.map_width * map_row, work) : nullptr;
    probed = take(s.rays_per_coarse > 1 ? (size_t)s.rays * s.num_coarse : 0, work);
    first = take(inputs * row, work);
    first_bias = take(row, work);
    second = take(inputs * row, work);
    second_bias = take(row, work);
    density = take(row, work);
    last = take((size_t)row * outputs, work);
    last_bias = take(outputs, work);
    clue_weight = take((size_t)clues * row, work);
    threads = take(0, work);
    // As `Ray` shares it out; rounded up, so that no two threads write to one line of the cache.
    per_thread = (size_t)slots * (row + clues + 15) + kBlock * row + outputs + 14 * (size_t)(slots + kSpare);
    per_thread = (per_thread + 31) / 16 * 16;
    total += per_thread * thread_count;
  }
};

void prepare_layer(const Scene& s, const Memory& m, const float* weight, const float* bias, float* to, float* to_bias) {
  for (int c = 0; c < s.channels + s.motion; ++c)
    for (int h = 0; h < m.row; ++h) {
      float value = h == s.hidden + c - s.channels ? 1.0f : 0.0f;  // motion stands behind the hidden features as it is
      if (c < s.channels) value = h < s.hidden ? weight[h * s.channels + c] : 0.0f;
      to[c * m.row + h] = value / 3.0f;  // a third from each plane: the mean of Eq. 7
    }
  for (int h = 0; h < m.row; ++h) to_bias[h] = h < s.hidden ? bias[h] / 3.0f : 0.0f;
}

// Weights transposed and padded with zeros; maps texel by texel.
void prepare(const Scene& s, float* work) {
  const Memory m(s, work, 1);
  prepare_layer(s, m, s.first_weight, s.first_bias, m.first, m.first_bias);
  if (s.second_weight) prepare_layer(s, m, s.second_weight, s.second_bias, m.second, m.second_bias);
  for (int h = 0; h < m.row; ++h) m.density[h] = h < s.hidden ? s.density_weight[h] : 0.0f;
  for (int o = 0; o < m.outputs; ++o) {
    // tanh(x) = 2 sigmoid(2 x) - 1, so that one function serves all outputs.
    const float twice = o >= s.colours && o < s.colours + 3 ? 2.0f : 1.0f;
    m.last_bias[o] = o < s.outputs ? twice * s.last_bias[o] : 0.0f;
    for (int h = 0; h < m.row; ++h)
      m.last[h * m.outputs + o] = o < s.outputs && h < s.hidden ? twice * s.last_weight[o * s.hidden + h] : 0.0f;
  }
  for (int k = 0; k < m.clues; ++k)
    for (int h = 0; h < m.row; ++h)
      m.clue_weight[k * m.row + h] = h < s.hidden ? s.clue_weight[h * m.clues + k] : 0.0f;
  const int texels = s.maps ? s.map_height * s.map_width : 0;
  for (int t = 0; t < texels; ++t)
    for (int c = 0; c < m.map_row; ++c)
      m.maps[t * m.map_row + c] = c < s.map_channels ? s.maps[(size_t)c * texels + t] : 0.0f;
}

// The decoder's first layer applied to one row of texels of each plane; outside the box there are zeros.
template <int kCount>
void fold_part(const Memory& m, const float (*texels)[kColumns], int inputs, int columns, const float* weight, const float* bias,
               float* to) {
  for (int t = 0; t < columns; ++t, to += m.row) {
    Floats total[kCount];
    const float *start = bias ? bias : to, *w = weight;
    unrolled<kCount>([&](auto v) { total[v] = load(start + v * kLanes); });
    for (int c = 0; c < inputs; ++c, w += m.row) {
      const Floats value = splat(texels[c][t]);
      unrolled<kCount>([&](auto v) { total[v] += value * load(w + v * kLanes); });
    }
    unrolled<kCount>([&](auto v) { store(to + v * kLanes, total[v]); });
  }
}

void fold_layer(const Scene& s, const Memory& m, const float* weight, const float* bias, float* table, int row) {
  const int inputs = s.channels + s.motion, area = s.resolution * s.resolution, y = row - s.ring;
  float texels[kInputs][kColumns];  // a few columns of a few channels: whole lines of the cache, each read once
  for (int plane = 0; plane < 3; ++plane)
    for (int column = 0; column < m.side; column += kColumns)
      for (int c = 0; c < inputs; c += kInputs) {
        const int some = least_of(kInputs, inputs - c), columns = least_of(kColumns, m.side - column);
        const int left = s.ring - column, right = s.resolution + left;  // where the box begins and ends in `texels`
        for (int k = 0; k < some; ++k) {
          const float* from = s.planes + (size_t)(plane * inputs + c + k) * area + (y * s.resolution - left);
          for (float& texel : texels[k]) texel = 0.0f;
          if (y >= 0 && y < s.resolution)
            for (int t = left > 0 ? left : 0; t < least_of(columns, right); ++t) texels[k][t] = from[t];
        }
        float* to = table + ((size_t)(plane * m.side + row) * m.side + column) * m.row;
        int h = 0;
        const float* w = weight + (size_t)c * m.row;
        for (; h + 4 * kLanes <= m.row; h += 4 * kLanes) fold_part<4>(m, texels, some, columns, w + h, c ? nullptr : bias + h, to + h);
        for (; h + 2 * kLanes <= m.row; h += 2 * kLanes)
          fold_part<2>(m, texels, some, columns, w + h, c ? nullptr : bias + h, to + h);
        for (; h < m.row; h += kLanes) fold_part<1>(m, texels, some, columns, w + h, c ? nullptr : bias + h, to + h);
      }
}

void fold(const Scene& s, float* work, int row) {
  const Memory m(s, work, 1);
  fold_layer(s, m, m.first, m.first_bias, m.table, row);
  if (s.second_weight) fold_layer(s, m, m.second, m.second_bias, m.second_table, row);
}

void turn(const Joint& joint, Floats& x, Floats& y, Floats& z) {
  if (!joint.on) return;
  const Floats low = within((y - joint.top) * (1.0f / (joint.bottom - joint.top)), 0.0f, 1.0f);
  const Floats share = low * low * (3.0f - low * 2.0f);
  const Floats a = x - joint.pivot[0], b = y - joint.pivot[1], c = z - joint.pivot[2];
  const float* e = joint.extra;
  x += share * (a * e[0] + b * e[3] + c * e[6]);
  y += share * (a * e[1] + b * e[4] + c * e[7]);
  z += share * (a * e[2] + b * e[5] + c * e[8]);
}

// One ray of five, a knight's move apart, and the border: no row, column or diagonal of rays slips through (`make_lattice`).
inline bool on_lattice(const Scene& s, int y, int x) {
  return (x + 3 * y) % 5 == 0 || x == 0 || y == 0 || x == s.side - 1 || y == s.side - 1;
}

inline float* take(float*& from, size_t count) {
  float* out = from;
  from += count;
  return out;
}

#include "compose.h"
#include "ray.h"

// The i-th ray to be marched: a square picture goes tile by tile, so that neighbours find their texels in the cache.
inline int ray_number(const Scene& s, int i) {
  constexpr int kTile = 8;
  if (s.side % kTile != 0 || s.side == 0) return i;
  const int tile = i / (kTile * kTile), inside = i % (kTile * kTile), across = s.side / kTile;
  return (tile / across * kTile + inside / kTile) * s.side + tile % across * kTile + inside % kTile;
}

template <int kVectors>
void march_rays(const Scene& s, const Memory& m, int thread, int first, int last) {
  Ray<kVectors> ray(s, m, m.threads + thread * m.per_thread);
  for (int i = first; i < last; ++i) ray.march(ray_number(s, i));
}

template <int kVectors>
void probe_rays(const Scene& s, const Memory& m, int thread, int first, int last) {
  Ray<kVectors> ray(s, m, m.threads + thread * m.per_thread);
  for (int i = first; i < last; ++i)
    if (on_lattice(s, i / s.side, i % s.side)) ray.probe(i, m.probed + (size_t)i * s.num_coarse);
}

// Calls one of the three: the paper's width, the bundled model's, any other.
#define EXPORT3D_FOR_WIDTH(FUNCTION)                                                 \
  void FUNCTION(const Scene& s, float* work, int thread, int first, int last) {      \
    const Memory m(s, work, 1);                                                      \
    switch (m.row) {                                                                 \
      case 64: return FUNCTION##_rays<64 / kLanes>(s, m, thread, first, last);       \
      case 48: return FUNCTION##_rays<48 / kLanes>(s, m, thread, first, last);       \
      default: return FUNCTION##_rays<0>(s, m, thread, first, last);                 \
    }                                                                                \
  }
EXPORT3D_FOR_WIDTH(probe)
EXPORT3D_FOR_WIDTH(march)

size_t floats_needed(const Scene& s, int threads) { return Memory(s, nullptr, threads).total; }

}  // namespace

#define EXPORT3D_TEXT_OF(x) #x
#define EXPORT3D_TEXT(x) EXPORT3D_TEXT_OF(x)
#define EXPORT3D_JOIN_OF(a, b) a##b
#define EXPORT3D_JOIN(a, b) EXPORT3D_JOIN_OF(a, b)
namespace export3d {
extern const Kernel EXPORT3D_JOIN(kernel_, EXPORT3D_KERNEL) = {
    EXPORT3D_TEXT(EXPORT3D_KERNEL), floats_needed, prepare, fold, probe, march, interleave, compose_floats, look, mix, layer,
    paste_floats, paste, add_pattern, convert, round};
}
