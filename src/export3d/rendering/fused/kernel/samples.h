// The samples of one ray: where they lie, what the planes and the portrait say there, and their densities (part of march.cpp).
//
// A slot is a sample: first the coarse ones, from `first_fine` on the fine ones. Slots are worked on in groups of kLanes.
#pragma once

// Where the points of a group lie in the planes: weights of four texels in each of three planes, and the first of the four.
struct Places {
  float tap[12][kLanes];
  int32_t corner[3][kLanes];
};

template <int kVectors>
class Samples {
 public:
  Samples(const Scene& scene, const Memory& memory, float*& scratch) : s(scene), m(memory) {
    const int more = m.slots + kSpare;  // a few numbers beyond the end are written, read, and not used
    places = (Places*)take(scratch, (size_t)m.slots / kLanes * sizeof(Places) / sizeof(float));
    rows = take(scratch, (size_t)m.slots * row());
    clues = take(scratch, (size_t)m.slots * m.clues);
    depth = take(scratch, more), density = take(scratch, more);
    for (int a = 0; a < 3; ++a) moved[a] = take(scratch, more);
    // EG3D's stratified depths without jitter, alike for all rays; what is not used repeats the last.
    const float step = (s.far - s.near) / (s.num_coarse - 1);
    for (int i = 0; i < m.first_fine; ++i)
      depth[i] = s.near + (s.far - s.near) * ((float)least_of(i, s.num_coarse - 1) / (s.num_coarse - 1)) + 0.5f * step;
  }

 protected:
  const Scene& s;
  const Memory& m;
  Places* places;
  const float *origin, *direction;
  float *rows, *clues, *depth, *density, *moved[3];

  int row() const { return kVectors ? kVectors * kLanes : m.row; }

  void start(int number) { origin = s.origins + 3 * (size_t)number, direction = s.directions + 3 * (size_t)number; }

  // Densities of slots at their depths; hidden features and moved points stay for the colours.
  void evaluate(int first, int last) {
    const float bias = s.density_bias[0];
    for (int i = first; i < last; i += kLanes) {
      const int count = least_of(kLanes, last - i);
      Floats p[3];
      for (int a = 0; a < 3; ++a) p[a] = load(depth + i) * direction[a] + origin[a];
      turn(s.unpose, p[0], p[1], p[2]);
      locate(p, places[i / kLanes]);
      for (int j = 0; j < count; ++j) gather(m.table, i + j, rows + (size_t)(i + j) * row());
      if (s.outputs > s.colours) move(i, count, p);
      if (m.clues) ask_maps(i, count);
      for (int j = 0; j < count; ++j) density[i + j] = activate(i + j, rows + (size_t)(i + j) * row()) + bias;
    }
  }

  // The planes' (width, height) axes are (x, -y), (z, -y), (x, z).
  void locate(const Floats* p, Places& to) const {
    const float per_unit = s.resolution / s.box_side, middle = 0.5f * (m.side - 1);
    const int side = m.side;
    Ints low[3];
    Floats part[3];
    for (int a = 0; a < 3; ++a) {
      const Floats place = within(p[a] * (a == 1 ? -per_unit : per_unit) + middle, 0.0f, (float)(side - 1));
      const Floats whole = within(floats(truncated(place)), 0.0f, (float)(side - 2));
      low[a] = truncated(whole), part[a] = place - whole;
    }
    constexpr int kWidth[3] = {0, 2, 0}, kHeight[3] = {1, 1, 2};
    for (int plane = 0; plane < 3; ++plane) {
      const Floats u = part[kWidth[plane]], v = part[kHeight[plane]], both = u * v;
      store(to.corner[plane], low[kHeight[plane]] * side + low[kWidth[plane]] + plane * side * side);
      store(to.tap[4 * plane], 1.0f - u - v + both);
      store(to.tap[4 * plane + 1], u - both);
      store(to.tap[4 * plane + 2], v - both);
      store(to.tap[4 * plane + 3], both);
    }
  }

  // The weighted sum of twelve texels (Eq. 7).
  void gather(const float* table, int i, float* to) const {
    const Places& group = places[i / kLanes];
    const int lane = i % kLanes;
    const size_t below = (size_t)m.side * row();
    each_part([&](auto part, int h) {
      constexpr int kCount = decltype(part)::value;
      Floats total[kCount];
      unrolled<kCount>([&](auto v) { total[v] = splat(0.0f); });
      for (int plane = 0; plane < 3; ++plane) {
        const float* texel = table + (size_t)group.corner[plane][lane] * row() + h;
        const float* tap = &group.tap[4 * plane][lane];
        unrolled<4>([&](auto k) {
          const Floats w = splat(tap[k * kLanes]);
          const float* from = texel + (k & 1 ? row() : 0) + (k & 2 ? below : 0);
          unrolled<kCount>([&](auto v) { total[v] += w * load(from + v * kLanes); });
        });
      }
      unrolled<kCount>([&](auto v) { store(to + h + v * kLanes, total[v]); });
    });
  }

  // The clues join the hidden features of a slot, then soft-plus; gives the density without its bias.
  float activate(int i, float* hidden) const {
    Floats total = splat(0.0f);
    const float* told = clues + (size_t)(i / kLanes) * m.clues * kLanes + i % kLanes;
    const int count = m.clues;
    each_part([&](auto part, int h) {
      constexpr int kCount = decltype(part)::value;
      Floats x[kCount];
      unrolled<kCount>([&](auto v) { x[v] = load(hidden + h + v * kLanes); });
      const float* weights = m.clue_weight + h;
      for (int k = 0; k < count; ++k, weights += row()) {
        const Floats clue = splat(told[k * kLanes]);
        unrolled<kCount>([&](auto v) { x[v] += clue * load(weights + v * kLanes); });
      }
      unrolled<kCount>([&](auto v) {
        const Floats y = soft_plus(x[v]);
        store(hidden + h + v * kLanes, y);
        total += y * load(m.density + h + v * kLanes);
      });
    });
    return sum(total);
  }

  // Calls what(Count, first feature) for all features of a row, several vectors at a time.
  template <typename What>
  void each_part(const What& what) const {
    constexpr int kMost = kVectors == 0 ? 4 : (kVectors <= 8 ? kVectors : (kVectors % 8 == 0 ? 8 : 6));
    static_assert(kVectors % kMost == 0, "a row is a whole number of parts");
    int h = 0;
    for (; h + kMost * kLanes <= row(); h += kMost * kLanes) what(Count<kMost>(), h);
    if (kVectors == 0)
      for (; h < row(); h += kLanes) what(Count<1>(), h);
  }

  // Where the points p of a group were in the portrait, as far as the motion planes say.
  void move(int i, int count, const Floats* p) {
    for (int a = 0; a < 3; ++a) {
      float said[kLanes] = {};
      if (s.motion)
        for (int j = 0; j < count; ++j) said[j] = rows[(size_t)(i + j) * row() + s.hidden + a];
      store(moved[a] + i, p[a] + load(said) * s.offset_scale);
    }
  }

  // What the portrait's depth map says of a group of points and of their mirror images (`SourceDepth.clues`).
  void ask_maps(int i, int count) {
    const int mirrored = s.map_channels + 1;  // first clue of the mirror image
    float* to = clues + (size_t)(i / kLanes) * m.clues * kLanes;
    look_up(i, count, 1.0f, s.map_channels, to);
    look_up(i, count, -1.0f, 2, to + mirrored * kLanes);
    for (int k = 0; k <= mirrored; k += mirrored) {
      const Floats behind = load(to + k * kLanes);
      for (int scale = 0; scale < 2; ++scale)
        store(to + (k + scale) * kLanes, hyperbolic_tangent(behind * (1.0f / kScales[scale])));
    }
  }

  // Distances behind the depth map into the first clue of `to`, the map's other channels from the third on.
  void look_up(int i, int count, float mirror, int channels, float* to) const {
    const Pinhole& camera = s.portrait;
    const int width = s.map_width, height = s.map_height, map_row = m.map_row;
    Floats p[3] = {load(moved[0] + i) * mirror, load(moved[1] + i), load(moved[2] + i)}, seen[3];
    turn(s.pose, p[0], p[1], p[2]);
    for (int a = 0; a < 3; ++a) p[a] = p[a] - camera.centre[a];
    for (int a = 0; a < 3; ++a)
      seen[a] = p[0] * camera.rotation[a] + p[1] * camera.rotation[3 + a] + p[2] * camera.rotation[6 + a];
    const Floats inverse = 1.0f / seen[2], u = seen[0] * inverse, v = seen[1] * inverse;
    const Floats across = within((u * camera.focal[0] + camera.middle[0]) * (float)width - 0.5f, 0.0f, width - 1.0f);
    const Floats down = within((v * camera.focal[1] + camera.middle[1]) * (float)height - 0.5f, 0.0f, height - 1.0f);
    const Floats left = within(floats(truncated(across)), 0.0f, width - 2.0f);
    const Floats top = within(floats(truncated(down)), 0.0f, height - 2.0f);
    float stretch[kLanes], x_part[kLanes], y_part[kLanes], read[kMostMaps];
    int32_t corner[kLanes];
    store(stretch, u * u + v * v + 1.0f);
    for (float& x : stretch) x = std::sqrt(x);
    store(x_part, across - left), store(y_part, down - top);
    store(corner, truncated(top) * width + truncated(left));
    for (int j = 0; j < count; ++j) {
      const float *texel = m.maps + (size_t)corner[j] * map_row, *under = texel + (size_t)width * map_row;
      const Floats right = splat(x_part[j]), low = splat(y_part[j]);
      for (int c = 0; c < map_row; c += kLanes) {
        const Floats upper = load(texel + c) + right * (load(texel + map_row + c) - load(texel + c));
        const Floats lower = load(under + c) + right * (load(under + map_row + c) - load(under + c));
        store(read + c, upper + low * (lower - upper));
      }
      to[j] = read[0];
      for (int c = 1; c < channels; ++c) to[(1 + c) * kLanes + j] = read[c];
    }
    store(to, seen[2] * load(stretch) - camera.distance - load(to));
  }
};
