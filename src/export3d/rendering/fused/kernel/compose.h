// The picture at the photograph's own size, row by row (part of march.cpp): `head_at` and `paste` of the PyTorch code.
//
// What is calculated at a few places is enlarged, the photograph is read where the guide says, and the layers are mixed. A
// network in between corrects the mixture: `look` writes what it reads, `mix` takes what it said.
#pragma once

constexpr int kGuide = 6, kChoice = 10;     // guide and opacity; raw image, three logits, residual, opacity
constexpr int kLines = 9;                   // of a row in `layers`: own and mirrored colours, two gates, opacity
constexpr int kClues = 28;                  // of the corrections' inputs, without the state
constexpr int kSaid = 8;                    // three logits, residual, opacity, gain of the fine detail
constexpr int kMargin = export3d::kMargin;  // pixels around an interleaved picture that repeat its border

// Bilinear enlargement of (channels, height, width), centres of pixels aligned by area; rows in the order they are asked for.
struct Enlarged {
  const float* from;
  int channels, height, width, to_height, to_width, line;  // line: distance of two channels in what `row` gives
  int kept[2];
  float *part, *starts, *rows[2], *out;  // starts: from which place on each number of a row is the first of the two

  Enlarged(const float* from, int channels, int height, int width, int to_height, int to_width, float*& scratch)
      : from(from), channels(channels), height(height), width(width), to_height(to_height), to_width(to_width),
        line(up(to_width, 16)), kept{-1, -1} {
    part = take(scratch, line + kLanes), starts = take(scratch, width + 1);
    for (float*& row : rows) row = take(scratch, (size_t)channels * line + kLanes);
    out = take(scratch, (size_t)channels * line);
    int32_t* start = (int32_t*)starts;
    for (int i = 0; i <= width; ++i) start[i] = line;
    for (int x = line + kLanes - 1; x >= 0; --x) {
      const int first = source(least_of(x, to_width - 1), width, to_width, part[x]);
      if (x < line) start[first] = x;
    }
    for (int i = width - 1; i >= 0; --i) start[i] = least_of(start[i], start[i + 1]);
  }

  static size_t room(int channels, int width, int to_width) {
    return (size_t)up(to_width, 16) * (1 + 3 * channels) + width + 1 + 3 * kLanes;
  }

  // The first of the two that place i lies between, and the share of the second.
  static int source(int i, int count, int to_count, float& share) {
    const float at = (i + 0.5f) * ((float)count / to_count) - 0.5f, place = at > 0.0f ? at : 0.0f;
    const int first = least_of((int)place, count - 1);
    share = first + 1 < count ? place - first : 0.0f;
    return first;
  }

  const float* row(int y) {
    float share;
    const int first = source(y, height, to_height, share), second = least_of(first + 1, height - 1);
    const float *a = widened(first, second), *b = widened(second, first);
    for (int i = 0; i < channels * line; i += kLanes) store(out + i, load(a + i) + (load(b + i) - load(a + i)) * share);
    return out;
  }

  // A row of the source at the full width; the row `other` stays in memory.
  const float* widened(int y, int other) {
    if (kept[0] == y) return rows[0];
    if (kept[1] == y) return rows[1];
    const int slot = kept[0] == other ? 1 : 0;
    const int32_t* start = (const int32_t*)starts;
    kept[slot] = y;
    for (int c = 0; c < channels; ++c) {
      const float* source = from + ((size_t)c * height + y) * width;
      float* to = rows[slot] + (size_t)c * line;
      for (int i = 0; i < width; ++i) {  // what goes beyond a number's places is written again with the next one
        const float own = source[i], more = source[least_of(i + 1, width - 1)] - own;
        for (int x = start[i]; x < start[i + 1]; x += kLanes) store(to + x, load(part + x) * more + own);
      }
    }
    return rows[slot];
  }
};

// Some pixels of a picture (3, height, width) in [-1, 1] as bytes, colours beside each other: PyTorch's steps.
constexpr int kSome = 64;
template <typename Number>
EXPORT3D_INLINE void round_some(const float* from, size_t area, uint8_t* to, Number count) {
  uint8_t bytes[3][kSome];
  for (int c = 0; c < 3; ++c)
    for (int i = 0; i < count; ++i) {
      const float given = from[c * area + i], high = given < 1.0f ? given : 1.0f;
      bytes[c][i] = (uint8_t)(int)std::nearbyint(((high > -1.0f ? high : -1.0f) + 1.0f) * 127.5f);
    }
  for (int i = 0; i < count; ++i) to[3 * i] = bytes[0][i], to[3 * i + 1] = bytes[1][i], to[3 * i + 2] = bytes[2][i];
}

void round(const export3d::Picture& p, int row) {
  for (int x = 0; x < p.width; x += kSome) {
    const size_t at = (size_t)row * p.width + x, area = (size_t)p.height * p.width;
    uint8_t* to = (uint8_t*)p.to + 3 * at;
    if (x + kSome <= p.width)
      round_some(p.from + at, area, to, Count<kSome>());
    else
      round_some(p.from + at, area, to, p.width - x);
  }
}

// Where a row of an interleaved picture is read: weights of four columns and four rows, and the first of the sixteen.
struct CubicRow {
  float *columns[4], *rows[4], *corner;

  CubicRow(int line, float*& scratch) {
    for (float*& x : columns) x = take(scratch, line);
    for (float*& x : rows) x = take(scratch, line);
    corner = take(scratch, 2 * line);
  }
  static size_t room(int line) { return (size_t)line * 10; }

  // Keys' cubic with a = -0.75, PyTorch's.
  static void weights(Floats t, float** to, int x) {
    const Floats far = t + 1.0f, back = 1.0f - t, last = 2.0f - t;
    store(to[0] + x, ((far * -0.75f + 3.75f) * far - 6.0f) * far + 3.0f);
    store(to[1] + x, (t * 1.25f - 2.25f) * t * t + 1.0f);
    store(to[2] + x, (back * 1.25f - 2.25f) * back * back + 1.0f);
    store(to[3] + x, ((last * -0.75f + 3.75f) * last - 6.0f) * last + 3.0f);
  }

  // Pixels x .. x + kLanes at the places (across, down), in pixels of a picture of that width and height.
  void aim(int x, Floats across, Floats down, int width, int height) {
    across = within(across, -2.0f, width + 1.0f) + (float)kMargin;  // beyond that only the border is met
    down = within(down, -2.0f, height + 1.0f) + (float)kMargin;
    const Ints left = truncated(across), top = truncated(down);
    weights(across - floats(left), columns, x);
    weights(down - floats(top), rows, x);
    int32_t lefts[kLanes], tops[kLanes];
    store(lefts, left), store(tops, top);
    int32_t* to = (int32_t*)corner;
    for (int i = 0; i < kLanes; ++i) to[x + i] = ((tops[i] - 1) * (width + 2 * kMargin) + lefts[i] - 1) * 4;
  }

  // The four rows that pixel x is read from as one, for a row of pixels that all lie as high in the picture.
  void blend(const float* picture, int width, int x, float* to) const {
    const int below = (width + 2 * kMargin) * 4, place = ((const int32_t*)corner)[x];
    const float* from = picture + place / below * below;
    int i = 0;
    for (; i + kLanes <= below; i += kLanes) {
      Floats total = load(from + i) * rows[0][x];
      for (int r = 1; r < 4; ++r) total += load(from + r * below + i) * rows[r][x];
      store(to + i, total);
    }
    for (; i < below; ++i) {
      to[i] = 0.0f;
      for (int r = 0; r < 4; ++r) to[i] += from[r * below + i] * rows[r][x];
    }
  }

  // From what `blend` gave.
  Four read(const float* blended, int x) const {
    Four total = load_four(blended) * columns[0][x];
    for (int c = 1; c < 4; ++c) total = total + load_four(blended + 4 * c) * columns[c][x];
    return total;
  }

  Four read(const float* picture, int width, int x) const {
    const float* from = picture + ((const int32_t*)corner)[x];
    const int below = (width + 2 * kMargin) * 4;
    float blended[16];  // four pixels of four numbers
    unrolled<16 / kLanes>([&](auto v) {
      Floats total = load(from + v * kLanes) * rows[0][x];
      for (int r = 1; r < 4; ++r) total += load(from + r * below + v * kLanes) * rows[r][x];
      store(blended + v * kLanes, total);
    });
    return read(blended, x);
  }
};

// A picture (channels <= 4, height, width) interleaved, with a margin; one row of what comes out.
void interleave(const export3d::Picture& p, int row) {
  const int y = least_of(row < kMargin ? 0 : row - kMargin, p.height - 1);
  float* to = p.to + (size_t)row * (p.width + 2 * kMargin) * 4;
  for (int x = -kMargin; x < p.width + kMargin; ++x, to += 4) {
    const int at = least_of(x < 0 ? 0 : x, p.width - 1);
    for (int c = 0; c < 4; ++c) to[c] = c < p.channels ? p.from[((size_t)c * p.height + y) * p.width + at] : 0.0f;
  }
}

// Between which columns of a row, in whole vectors, the head shows: no opacity is left elsewhere. All where more may come to it.
struct Shown {
  Enlarged opacity, more;
  int width;
  bool all;

  Shown(const export3d::Head& h, float*& scratch)
      : opacity(h.guide + 5 * (size_t)h.rays_height * h.rays_width, 1, h.rays_height, h.rays_width, h.height, h.width, scratch),
        more(h.choice + 9 * (size_t)h.small_height * h.small_width, 1, h.small_height, h.small_width, h.height, h.width, scratch),
        width(h.width), all(h.clues || h.seen) {}
  static size_t room(const export3d::Head& h) {
    return Enlarged::room(1, h.rays_width, h.width) + Enlarged::room(1, h.small_width, h.width);
  }

  void row(int y, int& first, int& last) {
    first = 0, last = width;
    if (!all) {
      const float *o = opacity.row(y), *m = more.row(y);  // what is not a number shows
      while (first < last && o[first] + m[first] <= 0.0f) ++first;
      while (first < last && o[last - 1] + m[last - 1] <= 0.0f) --last;
    }
    first = first / kLanes * kLanes, last = first < last ? up(last, kLanes) : first;
  }
};

size_t compose_floats(const export3d::Head& h) {
  const int line = up(h.width, 16), most = h.small_width > h.width / 2 ? h.small_width : h.width / 2;
  return Shown::room(h) + Enlarged::room(kGuide, h.rays_width, h.width) + Enlarged::room(kChoice, h.small_width, h.width) +
         Enlarged::room(h.state_channels > kSaid ? h.state_channels : kSaid, most, h.width) + 2 * CubicRow::room(line) +
         (size_t)line * 8;
}

// Rows [first, last) of the layers, both even, and what the corrections read there.
void look(const export3d::Head& h, float* scratch, int first, int last) {
  const int line = up(h.width, 16), half = h.width / 2, seen = kClues + h.state_channels;
  Enlarged guide(h.guide, kGuide, h.rays_height, h.rays_width, h.height, h.width, scratch);
  Enlarged choice(h.choice, kChoice, h.small_height, h.small_width, h.height, h.width, scratch);
  Enlarged state(h.state, h.state_channels, h.small_height, h.small_width, h.height / 2, half, scratch);
  CubicRow own(line, scratch), other(line, scratch);
  Shown shown(h, scratch);
  int edges[4][2], known = first > 0 ? first - 1 : 0;
  for (int y = first; y < last; ++y) {
    int begin = line, end = 0;  // a pixel's detail is what it differs by from those around it
    for (; known <= least_of(y + 1, h.height - 1); ++known) shown.row(known, edges[known & 3][0], edges[known & 3][1]);
    for (int i = y > 0 ? y - 1 : 0; i < known; ++i) {
      if (edges[i & 3][0] == edges[i & 3][1]) continue;
      begin = least_of(begin, edges[i & 3][0]), end = end > edges[i & 3][1] ? end : edges[i & 3][1];
    }
    if (begin >= end) continue;
    begin = begin > 0 ? begin - 1 : 0, end = least_of(end + 1, h.width);
    const float* g = guide.row(y);
    float *layers = h.layers + (size_t)y * kLines * line, *clues = h.clues ? h.clues + (size_t)y * 4 * line : nullptr;
    for (int x = begin / kLanes * kLanes; x < end; x += kLanes) {
      const Floats opacity = load(g + 5 * line + x), low = splat(1e-3f);
      const Floats inverse = 1.0f / pick(low < opacity, opacity, low);
      Floats gates[2];
      for (int k = 0; k < 2; ++k) {
        Floats p[3], seen_at[3];
        for (int a = 0; a < 3; ++a) p[a] = load(g + a * line + x) * inverse;
        if (k) p[0] = -p[0];
        turn(h.pose, p[0], p[1], p[2]);
        for (int a = 0; a < 3; ++a) p[a] = p[a] - h.portrait.centre[a];
        for (int a = 0; a < 3; ++a)
          seen_at[a] = p[0] * h.portrait.rotation[a] + p[1] * h.portrait.rotation[3 + a] + p[2] * h.portrait.rotation[6 + a];
        const Floats near = 1.0f / seen_at[2];
        const Floats u = seen_at[0] * near * h.portrait.focal[0] + h.portrait.middle[0];
        const Floats v = seen_at[1] * near * h.portrait.focal[1] + h.portrait.middle[1];
        Floats margin = pick(u < 1.0f - u, u, 1.0f - u);
        const Floats other_margin = pick(v < 1.0f - v, v, 1.0f - v);
        margin = pick(other_margin < margin, other_margin, margin);
        gates[k] = within(load(g + (3 + k) * line + x) * inverse, 0.0f, 1.0f) *
                   within(margin * (float)h.side + 0.5f, 0.0f, 1.0f);
        (k ? other : own).aim(x, u * (float)h.side - 0.5f, v * (float)h.side - 0.5f, h.side, h.side);
      }
      store(layers + 6 * line + x, gates[0] + 0.01f);
      store(layers + 7 * line + x, gates[1] * (1.0f - gates[0]) * 0.3f + 0.01f);
      store(layers + 8 * line + x, opacity);
      for (int k = 0; clues && k < 2; ++k) store(clues + k * line + x, gates[k]);
    }
    for (int k = 0; k < 2; ++k)
      for (int x = begin; x < end; ++x) {
        const Four read = limited((k ? other : own).read(h.picture, h.side, x), -1.0f, 1.0f);
        for (int c = 0; c < 3; ++c) layers[(3 * k + c) * line + x] = read[c];
        if (clues) clues[(2 + k) * line + x] = read[3];
      }
    if (!h.seen) continue;
    float* to = h.seen + (size_t)(y / 2) * half * seen;
    for (int x = 0; x < half; ++x)
      for (int c = 0; c < 3; ++c)
        for (int right = 0; right < 2; ++right) to[x * seen + 4 * c + 2 * (y & 1) + right] = layers[c * line + 2 * x + right];
    if (y & 1) continue;
    const float *c = choice.row(y), *s = state.row(y / 2);
    for (int x = 0; x < half; ++x, to += seen) {
      const int at = 2 * x;
      for (int i = 0; i < 3; ++i) {
        const float raw = c[i * line + at], prior = i ? layers[(5 + i) * line + at] : 0.11f;
        to[12 + i] = raw;
        to[15 + i] = c[(3 + i) * line + at] + std::log(prior);
        to[18 + i] = c[(6 + i) * line + at];
        for (int k = 0; k < 2; ++k) to[22 + 3 * k + i] = std::fabs(layers[(3 * k + i) * line + at] - raw);
      }
      to[21] = layers[8 * line + at] + c[9 * line + at];
      for (int i = 0; i < h.state_channels; ++i) to[kClues + i] = s[i * state.line + x];
    }
  }
}

// Rows [first, last) of the head before what is behind it.
void mix(const export3d::Head& h, float* scratch, int first, int last) {
  const int line = up(h.width, 16);
  Enlarged choice(h.choice, kChoice, h.small_height, h.small_width, h.height, h.width, scratch);
  Enlarged said(h.said, h.said ? kSaid : 0, h.height / 2, h.width / 2, h.height, h.width, scratch);
  float *image = take(scratch, 4 * (size_t)line), *soft = take(scratch, (size_t)line);
  float* sums = take(scratch, (size_t)line + 32) + 16;
  Shown shown(h, scratch);
  for (int y = first; y < last; ++y) {
    int begin, end;
    shown.row(y, begin, end);
    float* opacity_row = h.opacity + (size_t)y * h.stride;
    std::memset(opacity_row, 0, h.width * sizeof(float));
    if (begin == end) continue;
    const float *c = choice.row(y), *t = h.said ? said.row(y) : nullptr, *layers = h.layers + (size_t)y * kLines * line;
    const float* above = layers - (y > 0 ? kLines * line : 0);
    const float* below = layers + (y + 1 < h.height ? kLines * line : 0);
    for (int x = begin; x < end; x += kLanes) {
      Floats share[3], most, total = splat(0.0f);
      for (int k = 0; k < 3; ++k) {
        share[k] = load(c + (3 + k) * line + x);
        if (t) share[k] += load(t + k * line + x);
        most = k ? pick(most < share[k], share[k], most) : share[k];
      }
      for (int k = 0; k < 3; ++k) {
        share[k] = exponential(share[k] - most) * (k ? load(layers + (5 + k) * line + x) : splat(0.11f));
        total += share[k];
      }
      for (int k = 0; k < 3; ++k) share[k] = share[k] / total;
      for (int a = 0; a < 3; ++a) {
        Floats value = load(c + (6 + a) * line + x) + share[0] * load(c + a * line + x) +
                       share[1] * load(layers + a * line + x) + share[2] * load(layers + (3 + a) * line + x);
        if (t) value += load(t + (3 + a) * line + x);
        store(image + a * line + x, value);
      }
      const Floats gain = splat(h.gain);  // of the portrait's own detail
      store(soft + x, share[1] * (t ? gain + load(t + 7 * line + x) : gain));
      Floats opacity = load(layers + 8 * line + x) + load(c + 9 * line + x);
      if (t) opacity += load(t + 6 * line + x);
      store(image + 3 * line + x, within(opacity, 0.0f, 1.0f));
    }
    for (int a = 0; a < 3; ++a) {  // the portrait less its 3x3 binomial mean: one axis after the other
      const float *up_row = above + a * line, *row = layers + a * line, *down_row = below + a * line;
      for (int x = begin > 0 ? begin - kLanes : 0; x < least_of(end + kLanes, line); x += kLanes)
        store(sums + x, load(up_row + x) + load(row + x) * 2.0f + load(down_row + x));
      sums[-1] = sums[0], sums[h.width] = sums[h.width - 1];
      for (int x = begin; x < end; x += kLanes) {
        const Floats mean = (load(sums + x - 1) + load(sums + x) * 2.0f + load(sums + x + 1)) * 0.0625f;
        store(image + a * line + x, load(image + a * line + x) + load(soft + x) * (load(row + x) - mean));
      }
      float* to = h.image + a * h.plane + (size_t)y * h.stride;  // what is behind stands there
      const int stop = least_of(end, h.width);
      int x = begin;
      for (; x + kLanes <= stop; x += kLanes) {
        const Floats behind = load(to + x);
        store(to + x, behind + load(image + 3 * line + x) * (load(image + a * line + x) - behind));
      }
      for (; x < stop; ++x) to[x] += image[3 * line + x] * (image[a * line + x] - to[x]);
    }
    std::memcpy(opacity_row + begin, image + 3 * (size_t)line + begin, (least_of(end, h.width) - begin) * sizeof(float));
  }
}

// Between which columns of row y of a head layer its crown may show: those of the crown's rows that are read there.
void crown_part(const export3d::Layered& l, int y, int& begin, int& end) {
  const float left = l.across[0] + l.across[2] * y + 1.0f, high = l.down[0] + l.down[2] * y + 1.0f;
  const float last = high + l.down[1] * (l.width - 1), step = l.across[1];
  const float lowest = high < last ? high : last, most = high < last ? last : high;
  begin = 0, end = lowest < l.rows + 1.0f && most > 0.0f ? l.width : 0;
  if (begin == end || !(step > 0.1f)) return;
  int first = l.width + 2, stop = 0;
  for (int row = lowest > 0.0f ? (int)lowest : 0; row < l.rows + 2 && row <= most + 1.0f; ++row)
    first = least_of(first, l.spans[2 * row]), stop = stop > l.spans[2 * row + 1] ? stop : l.spans[2 * row + 1];
  const float from = (first - 1 - left) / step - 1.0f, to = (stop - left) / step + 2.0f;
  if (from > 0.0f) begin = from < l.width ? (int)from : l.width;
  if (to < l.width) end = to > 0.0f ? (int)to : 0;
}

// One row of a head layer (`HeadLayer.of_picture`, `Crown.behind`): the picture with nothing around it, and the crown.
void layer(const export3d::Layered& l, int y) {
  const int row = y - l.room, side = l.width - 2 * l.room;
  const size_t area = (size_t)l.height * l.width, at = (size_t)y * l.width, own = (size_t)(l.height - l.room) * side;
  float *colours = l.colours + at, *clear = l.clear + at, *lines[] = {colours, colours + area, colours + 2 * area, clear};
  for (float* line : lines) {
    std::memset(line, 0, (row < 0 ? l.width : l.room) * sizeof(float));
    std::memset(line + l.width - l.room, 0, l.room * sizeof(float));
  }
  const size_t from = row < 0 ? 0 : (size_t)row * side;
  const float *opacity = l.opacity + from, *picture = l.picture + from, *behind = l.behind + from;
  for (int step = 0; row >= 0 && step < side; step += kLanes) {
    const int x = least_of(step, side - kLanes), to = x + l.room;  // the last ones may be done twice
    const Floats given = load(opacity + x);
    Floats shown = within((given - l.haze) * (1.0f / (1.0f - 2.0f * l.haze)), 0.0f, 1.0f);
    if (l.columns) shown = shown * load(l.columns + x) * l.rows_shown[row];
    const Floats scale = 127.5f / pick(given < splat(l.haze), splat(l.haze), given);  // as if the head were solid
    store(clear + to, shown);
    for (int c = 0; c < 3; ++c) {
      const Floats back = load(behind + c * own + x), light = load(picture + c * own + x) - back + given * (back + 1.0f);
      store(colours + c * area + to, within(light * scale, 0.0f, 255.0f) * shown);
    }
  }
  if (!l.crown || y >= l.rows) return;
  const int wide = l.width + 2;
  int begin, end;
  crown_part(l, y, begin, end);
  for (int x = begin; x < end; ++x) {
    if (clear[x] == 1.0f) continue;
    const float across = l.across[0] + l.across[1] * x + l.across[2] * y + 1.0f;
    const float down = l.down[0] + l.down[1] * x + l.down[2] * y + 1.0f;
    if (!(across > 0.0f && across < l.width + 1.0f && down > 0.0f && down < l.rows + 1.0f)) continue;
    const int left = (int)across, top = (int)down;
    const float u = across - left, v = down - top, room = 1.0f - clear[x];
    const float* from = l.crown + 4 * ((size_t)top * wide + left);
    if (from[3] + from[7] + from[4 * wide + 3] + from[4 * wide + 7] == 0.0f) continue;
    const Four upper = load_four(from) * (1.0f - u) + load_four(from + 4) * u;
    const Four lower = load_four(from + 4 * wide) * (1.0f - u) + load_four(from + 4 * wide + 4) * u;
    const Four met = (upper * (1.0f - v) + lower * v) * room;
    for (int c = 0; c < 3; ++c) colours[c * area + x] += met[c];
    clear[x] += met[3];
  }
}

// One row of a photograph with a head in it. Where no tap of the cubic meets the head, `made` stays as it is.
void paste(const export3d::Pasted& p, float* scratch, int y) {
  const int line = up(p.width, 16), columns = p.head_width + 2 * kMargin;
  CubicRow cubic(line, scratch);
  float *blended = take(scratch, 4 * columns), steps[kLanes];
  for (int i = 0; i < kLanes; ++i) steps[i] = (float)i;
  const float *share = p.share + (size_t)y * p.width, *row = p.lines + 4 * (size_t)y;
  const float left = row[0], step = row[1], high = row[2], fall = row[3];
  int begin = 0, end = p.width;
  const auto aim = [&](int x) {
    const Floats at = load(steps) + (float)x;
    cubic.aim(x, at * step + left, at * fall + high, p.head_width, p.head_height);
  };
  const bool level = fall == 0.0f;
  if (level) {  // all lie as high in the head: between its first and its last pixel there
    aim(0);
    const uint8_t* met = p.met + ((const int32_t*)cubic.corner)[0] / 4 / columns * columns;
    int first = 0, last = columns;
    while (first < last && !met[first]) ++first;
    while (first < last && !met[last - 1]) --last;
    if (first == last) return;
    const float lowest = (first + 1 - kMargin - left) / step - 1.0f, most = (last + 1 - kMargin - left) / step + 1.0f;
    if (step > 0.0f && first > 1 && lowest > 0.0f) begin = lowest < p.width ? (int)lowest : p.width;
    if (step > 0.0f && last < columns - 3 && most < p.width) end = most > 0.0f ? (int)most + 1 : 0;
  }
  while (begin < end && !(share[begin] > 0.0f)) ++begin;
  while (begin < end && !(share[end - 1] > 0.0f)) --end;
  if (begin >= end) return;
  for (int x = begin / kLanes * kLanes; x < end; x += kLanes) aim(x);
  const int32_t* corners = (const int32_t*)cubic.corner;
  const int top = corners[begin] / (4 * columns) * (4 * columns);
  if (level) cubic.blend(p.head, p.head_width, begin, blended);
  uint8_t* to = p.made + (size_t)y * p.stride + 3 * begin;
  for (int x = begin; x < end; ++x, to += 3) {
    if (!(share[x] > 0.0f) || !p.met[corners[x] / 4]) continue;
    const Four read = level ? cubic.read(blended + corners[x] - top, x) : cubic.read(p.head, p.head_width, x);
    // Cubic kernels ring; what shows nothing must stay nothing.
    const float opacity = read[3] > 1.0f / 512.0f ? (read[3] < 1.0f ? read[3] : 1.0f) : 0.0f;
    const Four part = load_bytes(to);
    const Four change = limited(read, 0.0f, 255.0f * opacity) + part * -opacity;
    store_bytes(to, limited(part + change * share[x], 0.0f, 255.0f));
  }
}

size_t paste_floats(const export3d::Pasted& p) {
  const size_t line = up(p.width, 16);
  return CubicRow::room(line) + 4 * (p.head_width + 2 * kMargin);
}

// Four rows of a picture with a pattern; the same whole numbers on every machine. Between the middles of its blocks the gain is
// bilinear: a quarter comes from the blocks above or below, up to 7/16 from those beside.
void add_pattern(const export3d::Patterned& p, int strip) {
  constexpr int block = export3d::kBlock, half = block / 2, lane = 3 * block, side = 3 * export3d::kTile;
  const int down = (p.height + block - 1) / block, across = (p.width + block - 1) / block;
  const auto within = [](int at, int count) { return at < 0 ? 0 : least_of(at, count - 1); };
  const int16_t* own = p.gain + (size_t)(strip / 2) * across;
  const int16_t* other = p.gain + (size_t)within(strip / 2 + (strip % 2 ? 1 : -1), down) * across;
  int16_t left[lane], middle[lane], right[lane], gain[side];
  for (int i = 0; i < lane; ++i) {
    const int off = 2 * (i / 3) + 1 - block;
    left[i] = (int16_t)(off < 0 ? -off : 0), right[i] = (int16_t)(off > 0 ? off : 0);
    middle[i] = (int16_t)(2 * block - left[i] - right[i]);
  }
  const int first = strip * half, last = least_of(first + half, p.height);
  for (int x = 0; x < p.width; x += export3d::kTile) {
    for (int b = 0; b < export3d::kTile / block && x + b * block < p.width; ++b) {
      int16_t value[3];
      for (int k = 0; k < 3; ++k) {
        const int at = within(x / block + b + k - 1, across);
        value[k] = (int16_t)(3 * own[at] + other[at]);
      }
      for (int i = 0; i < lane; ++i) {
        const int16_t sum = (int16_t)(value[0] * left[i] + value[1] * middle[i] + value[2] * right[i]);
        gain[b * lane + i] = (int16_t)((int16_t)(sum + 32) >> 6);
      }
    }
    const int count = least_of(side, 3 * (p.width - x));
    for (int y = first; y < last; ++y) {
      const int16_t* pattern = p.pattern + y % export3d::kTile * side;
      const uint8_t* from = p.from + 3 * ((size_t)y * p.width + x);
      uint8_t* to = p.to + 3 * ((size_t)y * p.width + x);
      for (int i = 0; i < count; ++i) {
        const int16_t change = (int16_t)((int16_t)(gain[i] * pattern[i]) + 256) >> 9;
        const int16_t value = (int16_t)(from[i] + change);
        to[i] = (uint8_t)(value < 0 ? 0 : (value > 255 ? 255 : value));
      }
    }
  }
}

// Some pixels of two rows as 4:2:0; a colour is the mean of its four pixels. `count` may be known when this is compiled.
template <typename Number>
EXPORT3D_INLINE void convert_some(const uint8_t* const* rows, uint8_t* const* luma, uint8_t* blue, uint8_t* red, Number count) {
  constexpr float kLuma = 219.0f / 255.0f, kBlue = 224.0f / 255.0f / 1.8556f, kRed = 224.0f / 255.0f / 1.5748f;
  constexpr float kShare[3] = {0.2126f, 0.7152f, 0.0722f};
  uint16_t sums[3][kSome] = {};  // of both rows
  for (int half = 0; half < 2; ++half) {
    const uint8_t* from = rows[half];
    uint8_t r[kSome], g[kSome], b[kSome], grey[kSome];
    for (int i = 0; i < count; ++i) r[i] = from[3 * i], g[i] = from[3 * i + 1], b[i] = from[3 * i + 2];
    for (int i = 0; i < count; ++i)
      grey[i] = (uint8_t)(int)((r[i] * kShare[0] + g[i] * kShare[1] + b[i] * kShare[2]) * kLuma + 16.5f);
    for (int i = 0; i < count; ++i)
      sums[0][i] = (uint16_t)(sums[0][i] + r[i]), sums[1][i] = (uint16_t)(sums[1][i] + g[i]),
      sums[2][i] = (uint16_t)(sums[2][i] + b[i]);
    std::memcpy(luma[half], grey, count);
  }
  float mean[3][kSome / 2];
  for (int c = 0; c < 3; ++c)
    for (int i = 0; i < count / 2; ++i) mean[c][i] = 0.25f * (float)(sums[c][2 * i] + sums[c][2 * i + 1]);
  for (int i = 0; i < count / 2; ++i) {
    const float grey = mean[0][i] * kShare[0] + mean[1][i] * kShare[1] + mean[2][i] * kShare[2];
    blue[i] = (uint8_t)(int)((mean[2][i] - grey) * kBlue + 128.5f);
    red[i] = (uint8_t)(int)((mean[0][i] - grey) * kRed + 128.5f);
  }
}

void convert(const export3d::Converted& p, int pair) {
  for (int x = 0; x < p.width; x += kSome) {
    const uint8_t *first = p.from + 3 * ((size_t)2 * pair * p.width + x), *rows[2] = {first, first + 3 * (size_t)p.width};
    uint8_t *top = p.luma + 2 * pair * p.luma_stride + x, *luma[2] = {top, top + p.luma_stride};
    uint8_t *blue = p.blue + pair * p.blue_stride + x / 2, *red = p.red + pair * p.red_stride + x / 2;
    if (x + kSome <= p.width)
      convert_some(rows, luma, blue, red, Count<kSome>());
    else
      convert_some(rows, luma, blue, red, p.width - x);
  }
}
