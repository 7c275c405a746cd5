// One ray (part of march.cpp). A slot is a sample of it: first the coarse ones, from `first_fine` on the fine ones. Slots are
// worked on in groups of kLanes.

// Where the points of a group lie in the planes: weights of four texels in each of three planes, and the first of the four.
struct Places {
  float tap[12][kLanes];
  int32_t corner[3][kLanes];
};

template <int kVectors>
class Ray {
 public:
  Ray(const Scene& scene, const Memory& memory, float* scratch) : s(scene), m(memory) {
    const auto take = [&scratch](size_t count) {
      float* out = scratch;
      scratch += count;
      return out;
    };
    const int more = m.slots + kSpare;  // a few numbers beyond the end are written, read, and not used
    places = (Places*)take((size_t)m.slots / kLanes * sizeof(Places) / sizeof(float));
    rows = take((size_t)m.slots * row());
    coloured = take((size_t)kBlock * row());
    clues = take((size_t)m.slots * m.clues);
    met = take(m.outputs);
    depth = take(more), density = take(more), own = take(more);
    for (int a = 0; a < 3; ++a) moved[a] = take(more);
    sorted_depth = take(more), sorted_density = take(more), weight = take(more);
    share = take(more), reached = take(more), kept = take(more);
    order = (int32_t*)take(more), chosen = (int32_t*)take(more);
    // EG3D's stratified depths without jitter, alike for all rays; what is not used repeats the last.
    const float step = (s.far - s.near) / (s.num_coarse - 1);
    for (int i = 0; i < m.first_fine; ++i)
      depth[i] = s.near + (s.far - s.near) * ((float)least_of(i, s.num_coarse - 1) / (s.num_coarse - 1)) + 0.5f * step;
  }

  // Densities of the coarse samples, for rays around this one.
  void probe(int number, float* to) {
    start(number);
    evaluate(0, s.num_coarse);
    for (int i = 0; i < s.num_coarse; ++i) to[i] = density[i];
  }

  void march(int number) {
    start(number);
    const float bound = s.rays_per_coarse == 1 ? expect() : expect_from_lattice(number);
    if (bound <= s.empty_opacity) return leave_out(number);
    const int fine = bound <= s.faint_opacity ? s.faint_samples : s.fine_samples;
    place_fine(fine);
    evaluate(m.first_fine, m.first_fine + fine);
    if (s.composite_coarse) {
      merge(s.num_coarse, fine);
      weigh(sorted_depth, sorted_density, s.num_coarse + fine - 1);
      return composite(s.num_coarse + fine, sorted_depth, number);
    }
    weigh(depth + m.first_fine, density + m.first_fine, fine - 1);
    for (int i = 0; i < fine; ++i) order[i] = m.first_fine + i;
    composite(fine, depth + m.first_fine, number);
  }

 private:
  const Scene& s;
  const Memory& m;
  Places* places;
  const float *origin, *direction;
  float *rows, *coloured, *clues, *met, *depth, *density, *own, *moved[3];
  float *sorted_depth, *sorted_density, *weight, *share, *reached, *kept;
  int32_t *order, *chosen;

  int row() const { return kVectors ? kVectors * kLanes : m.row; }

  void start(int number) { origin = s.origins + 3 * (size_t)number, direction = s.directions + 3 * (size_t)number; }

  void leave_out(int number) {
    for (int o = 0; o < s.outputs; ++o) s.features[(size_t)number * s.outputs + o] = 0.0f;
    s.depth[number] = 0.5f * (depth[0] + depth[1]), s.opacity[number] = 0.0f;
  }

  // Weights by which the fine samples are placed, and the most opacity that the ray may have: from its own coarse samples.
  float expect() {
    evaluate(0, s.num_coarse);
    return weigh(depth, density, s.num_coarse - 1);
  }

  // The same from the rays of the lattice around it (`_expect` of fast.py): weights of the mean densities, bound of the most.
  float expect_from_lattice(int number) {
    const int y = number / s.side, x = number % s.side;
    float all = 0.0f;
    for (int i = 0; i < s.num_coarse; ++i) density[i] = -HUGE_VALF, own[i] = 0.0f;
    for (int v = y > 2 ? y - 2 : 0; v <= y + 2 && v < s.side; ++v)
      for (int u = x > 2 ? x - 2 : 0; u <= x + 2 && u < s.side; ++u) {
        if (!on_lattice(s, v, u)) continue;
        const float tent = (float)((3 - (v > y ? v - y : y - v)) * (3 - (u > x ? u - x : x - u)));
        const float* found = m.probed + ((size_t)v * s.side + u) * s.num_coarse;
        for (int i = 0; i < s.num_coarse; ++i) {
          own[i] += tent * found[i];
          density[i] = found[i] <= density[i] ? density[i] : found[i];
        }
        all += tent;
      }
    const float bound = weigh(depth, density, s.num_coarse - 1);
    for (int i = 0; i < s.num_coarse; ++i) own[i] /= all;
    weigh(depth, own, s.num_coarse - 1);
    return bound;
  }

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

  // Weights of `count` intervals between samples at depths t with densities d (Eq. 10, midpoint form); gives their sum.
  float weigh(const float* t, const float* d, int count) {
    for (int i = 0; i < count; i += kLanes) {
      const Floats middle = (load(d + i) + load(d + i + 1)) * 0.5f, length = load(t + i + 1) - load(t + i);
      const Floats nothing = (middle + length) * 0.0f;  // or not a number, which `exponential` would hide
      store(reached + i, exponential(-(soft_plus(middle + s.shift) * length * s.gain)) + nothing);  // what passes
    }
    float clear = 1.0f;
    for (int i = 0; i < count; ++i) weight[i] = clear * (1.0f - reached[i]), clear *= reached[i];
    return 1.0f - clear;
  }

  // Depths drawn in proportion to the smoothed coarse weights at even quantiles (`importance_depths`).
  void place_fine(int count) {
    const int n = s.num_coarse, bins = n - 3;
    const auto pooled = [this, n](int j) {
      const float a = weight[j > 0 ? j - 1 : 0], b = weight[j < n - 2 ? j : n - 2];
      return a > b ? a : b;
    };
    float *edge = share, total = 0.0f;
    for (int k = 0; k <= bins; ++k) {
      edge[k] = 0.5f * (depth[k] + depth[k + 1]);
      reached[k] = total;
      total += 0.5f * (pooled(k + 1) + pooled(k + 2)) + s.floor + 1e-5f;
    }
    const float scale = 1.0f / reached[bins];
    for (int k = 0; k <= bins; ++k) reached[k] *= scale;
    float* fine = depth + m.first_fine;
    for (int i = 0, k = 0; i < up(count, kLanes); ++i) {
      const float quantile = (least_of(i, count - 1) + 0.5f) / count;
      while (k < bins - 1 && reached[k + 1] <= quantile) ++k;
      const float gap = reached[k + 1] - reached[k];
      float part = (quantile - reached[k]) / (gap > 1e-8f ? gap : 1e-8f);
      part = part < 0.0f ? 0.0f : (part > 1.0f ? 1.0f : part);
      fine[i] = edge[k] + part * (edge[k + 1] - edge[k]);
    }
  }

  // Slots of the coarse and the fine samples, nearest first.
  void merge(int coarse, int fine) {
    int a = 0, b = m.first_fine;
    const int end_a = coarse, end_b = m.first_fine + fine;
    for (int i = 0; i < coarse + fine; ++i) {
      const bool take_a = b == end_b || (a < end_a && depth[a] <= depth[b]);
      const int slot = take_a ? a : b;
      order[i] = slot, sorted_depth[i] = depth[slot], sorted_density[i] = density[slot];
      a += take_a, b += !take_a;
    }
  }

  // From the weights of the intervals between `count` samples at depths t, in slots `order`: the ray's results (Eq. 9).
  void composite(int count, const float* t, int number) {
    float opacity = 0.0f, distance = 0.0f, most = 0.0f, sum_kept = 0.0f;
    for (int i = 0; i < count - 1; ++i) opacity += weight[i], distance += weight[i] * 0.5f * (t[i] + t[i + 1]);
    for (int i = 0; i < count; ++i) {
      share[i] = 0.5f * ((i < count - 1 ? weight[i] : 0.0f) + (i > 0 ? weight[i - 1] : 0.0f));
      most = share[i] > most ? share[i] : most;
    }
    const float least = most < s.least_share ? most : s.least_share;
    int n = 0;
    for (int i = 0; i < count; ++i)
      if (share[i] >= least && share[i] > 0.0f) chosen[n] = order[i], kept[n] = share[i], sum_kept += share[i], ++n;
    for (int i = 0; i < n; ++i) kept[i] *= opacity / sum_kept;  // they stand for the others too
    for (int o = 0; o < m.outputs; ++o) met[o] = 0.0f;
    for (int i = n; i < up(n, kBlock); ++i) chosen[i] = chosen[0], kept[i] = 0.0f;
    for (int i = 0; i < n; i += kBlock) colour(i);
    float poison = opacity * 0.0f;  // what is not a number in the ray must not look like a picture
    for (int a = 0; a < 3; ++a) poison += (origin[a] + direction[a]) * 0.0f;
    distance /= opacity > 1e-6f ? opacity : 1e-6f;
    distance = distance < t[0] ? t[0] : (distance > t[count - 1] ? t[count - 1] : distance);
    s.depth[number] = distance + poison;
    s.opacity[number] = opacity + poison;
    write(s.features + (size_t)number * s.outputs, n, opacity, poison);
  }

  // Adds the colours of kBlock chosen samples times their shares to `met`.
  void colour(int first) {
    constexpr int kPerPanel = kPanel / kLanes;
    const float* hidden[kBlock];
    for (int b = 0; b < kBlock; ++b) {
      const int slot = chosen[first + b];
      hidden[b] = rows + (size_t)slot * row();
      if (!m.second_table) continue;
      float* other = coloured + (size_t)b * row();  // a network of its own
      gather(m.second_table, slot, other);
      activate(slot, other);
      hidden[b] = other;
    }
    const int outputs = m.outputs, features = s.hidden;
    for (int panel = 0; panel < outputs; panel += kPanel) {
      Floats sums[kBlock][kPerPanel];
      unrolled<kPerPanel>([&](auto v) {
        unrolled<kBlock>([&](auto b) { sums[b][v] = load(m.last_bias + panel + v * kLanes); });
      });
      const float* weights = m.last + panel;
      for (int h = 0; h < features; ++h, weights += outputs)
        unrolled<kPerPanel>([&](auto v) {
          const Floats w = load(weights + v * kLanes);
          unrolled<kBlock>([&](auto b) { sums[b][v] += w * hidden[b][h]; });
        });
      unrolled<kPerPanel>([&](auto v) {
        Floats total = load(met + panel + v * kLanes);
        unrolled<kBlock>([&](auto b) { total += sigmoid(sums[b][v]) * kept[first + b]; });
        store(met + panel + v * kLanes, total);
      });
    }
  }

  void write(float* to, int n, float opacity, float poison) const {
    for (int o = 0; o < s.colours; ++o) to[o] = met[o] * (1.0f + 2.0f * s.margin) - s.margin * opacity + poison;
    if (s.outputs == s.colours) return;
    for (int a = 0; a < 3; ++a) {  // the guide: where the point lay in the portrait
      float place = s.offset_scale * (2.0f * met[s.colours + a] - opacity);
      for (int i = 0; i < n; ++i) place += kept[i] * moved[a][chosen[i]];
      to[s.colours + a] = place + poison;
    }
    for (int o = s.colours + 3; o < s.outputs; ++o) to[o] = met[o] + poison;
  }
};
