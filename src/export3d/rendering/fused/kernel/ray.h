// One ray: where its samples belong, and what they add up to (part of march.cpp).
#pragma once

#include "samples.h"

template <int kVectors>
class Ray : Samples<kVectors> {
  using Base = Samples<kVectors>;
  using Base::activate, Base::depth, Base::density, Base::direction, Base::evaluate, Base::gather, Base::m, Base::moved;
  using Base::origin, Base::row, Base::rows, Base::s, Base::start;

 public:
  Ray(const Scene& scene, const Memory& memory, float* scratch) : Base(scene, memory, scratch) {
    const int more = m.slots + kSpare;
    coloured = take(scratch, (size_t)kBlock * row());
    met = take(scratch, m.outputs);
    own = take(scratch, more), sorted_depth = take(scratch, more), sorted_density = take(scratch, more);
    weight = take(scratch, more), share = take(scratch, more), reached = take(scratch, more), kept = take(scratch, more);
    order = (int32_t*)take(scratch, more), chosen = (int32_t*)take(scratch, more);
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
  float *coloured, *met, *own, *sorted_depth, *sorted_density, *weight, *share, *reached, *kept;
  int32_t *order, *chosen;

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
