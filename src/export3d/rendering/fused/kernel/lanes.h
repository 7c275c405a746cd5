// A few float32 numbers at once: GCC's and Clang's vector types, plain arrays elsewhere; the functions the renderer needs.
//
// No intrinsics: the width alone differs between processors. Approximations are good to 3e-6 (minimax).
#pragma once

#include <cstdint>
#include <cstring>

#include "scene.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define EXPORT3D_INLINE __forceinline
#else
#define EXPORT3D_INLINE inline __attribute__((always_inline))
#endif

namespace {

template <int kNumber>
struct Count {
  static constexpr int value = kNumber;
  constexpr operator int() const { return kNumber; }
};

// what(Count<0>), what(Count<1>), ... one after another: arrays that are used so stay in registers.
template <int kTimes, typename What>
EXPORT3D_INLINE void unrolled(const What& what) {
  if constexpr (kTimes > 0) {
    unrolled<kTimes - 1>(what);
    what(Count<kTimes - 1>());
  }
}

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__) || (defined(_MSC_VER) && !defined(__clang__))
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

#if (defined(__GNUC__) || defined(__clang__)) && !defined(EXPORT3D_ARRAYS)

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));

inline Floats splat(float x) { return x - Floats{}; }  // not +, which would turn -0 into 0; a loop becomes 16 instructions
inline Floats pick(Ints mask, Floats yes, Floats no) { return mask ? yes : no; }
inline Ints truncated(Floats x) { return __builtin_convertvector(x, Ints); }
inline Floats floats(Ints x) { return __builtin_convertvector(x, Floats); }
inline Ints bits(Floats x) { return (Ints)x; }
inline Floats from_bits(Ints x) { return (Floats)x; }

typedef float LooseFloats __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef int32_t LooseInts __attribute__((vector_size(4 * kLanes), aligned(4)));
inline Floats load(const float* from) { return *(const LooseFloats*)from; }
inline void store(float* to, Floats x) { *(LooseFloats*)to = x; }
inline void store(int32_t* to, Ints x) { *(LooseInts*)to = x; }

#else

template <typename T>
struct Several {
  T v[kLanes];
};
typedef Several<float> Floats;
typedef Several<int32_t> Ints;

#define EXPORT3D_LANEWISE(R, TEXT)                                  \
  {                                                                 \
    R out;                                                          \
    for (int i = 0; i < kLanes; ++i) out.v[i] = TEXT;               \
    return out;                                                     \
  }
inline Floats splat(float x) EXPORT3D_LANEWISE(Floats, x)
inline Floats operator+(Floats a, Floats b) EXPORT3D_LANEWISE(Floats, a.v[i] + b.v[i])
inline Floats operator-(Floats a, Floats b) EXPORT3D_LANEWISE(Floats, a.v[i] - b.v[i])
inline Floats operator*(Floats a, Floats b) EXPORT3D_LANEWISE(Floats, a.v[i] * b.v[i])
inline Floats operator/(Floats a, Floats b) EXPORT3D_LANEWISE(Floats, a.v[i] / b.v[i])
inline Ints operator<(Floats a, Floats b) EXPORT3D_LANEWISE(Ints, a.v[i] < b.v[i] ? -1 : 0)
inline Floats operator-(Floats a) EXPORT3D_LANEWISE(Floats, -a.v[i])
inline Floats operator+(Floats a, float b) { return a + splat(b); }
inline Floats operator-(Floats a, float b) { return a - splat(b); }
inline Floats operator-(float a, Floats b) { return splat(a) - b; }
inline Floats operator*(Floats a, float b) { return a * splat(b); }
inline Floats operator/(float a, Floats b) { return splat(a) / b; }
inline Floats& operator+=(Floats& a, Floats b) { return a = a + b; }
inline Ints operator+(Ints a, Ints b) EXPORT3D_LANEWISE(Ints, (int32_t)((uint32_t)a.v[i] + (uint32_t)b.v[i]))
inline Ints operator*(Ints a, int b) EXPORT3D_LANEWISE(Ints, a.v[i] * b)
inline Ints operator+(Ints a, int b) EXPORT3D_LANEWISE(Ints, a.v[i] + b)
inline Ints operator&(Ints a, int b) EXPORT3D_LANEWISE(Ints, a.v[i] & b)
inline Ints operator<<(Ints a, int b) EXPORT3D_LANEWISE(Ints, (int32_t)((uint32_t)a.v[i] << b))
inline Floats pick(Ints mask, Floats yes, Floats no) EXPORT3D_LANEWISE(Floats, mask.v[i] ? yes.v[i] : no.v[i])
inline Ints truncated(Floats x) EXPORT3D_LANEWISE(Ints, (int32_t)x.v[i])
inline Floats floats(Ints x) EXPORT3D_LANEWISE(Floats, (float)x.v[i])
inline Ints bits(Floats x) { Ints out; std::memcpy(&out, &x, sizeof out); return out; }
inline Floats from_bits(Ints x) { Floats out; std::memcpy(&out, &x, sizeof out); return out; }
#undef EXPORT3D_LANEWISE

inline Floats load(const float* from) { Floats out; std::memcpy(&out, from, sizeof out); return out; }
inline void store(float* to, Floats x) { std::memcpy(to, &x, sizeof x); }
inline void store(int32_t* to, Ints x) { std::memcpy(to, &x, sizeof x); }

#endif


// Four numbers of one pixel.
#if (defined(__GNUC__) || defined(__clang__)) && !defined(EXPORT3D_ARRAYS)
typedef float Four __attribute__((vector_size(16)));
typedef float LooseFour __attribute__((vector_size(16), aligned(4)));
inline Four load_four(const float* from) { return *(const LooseFour*)from; }
inline Four limited(Four x, float low, float high) {
  const Four least = {low, low, low, low}, most = {high, high, high, high};
  x = x > least ? x : least;
  return x < most ? x : most;
}
typedef uint8_t FourBytes __attribute__((vector_size(4)));
// Three bytes as numbers.
inline Four load_bytes(const uint8_t* from) {
  FourBytes bytes = {};
  std::memcpy(&bytes, from, 3);
  return __builtin_convertvector(bytes, Four);
}
#else
struct Four {
  float v[4];
  float operator[](int i) const { return v[i]; }
};
inline Four operator+(Four a, Four b) { return {a.v[0] + b.v[0], a.v[1] + b.v[1], a.v[2] + b.v[2], a.v[3] + b.v[3]}; }
inline Four operator*(Four a, float b) { return {a.v[0] * b, a.v[1] * b, a.v[2] * b, a.v[3] * b}; }
inline Four load_four(const float* from) { return {from[0], from[1], from[2], from[3]}; }
inline Four limited(Four x, float low, float high) {
  for (float& v : x.v) v = v > low ? (v < high ? v : high) : low;
  return x;
}
inline Four load_bytes(const uint8_t* from) { return {(float)from[0], (float)from[1], (float)from[2], 0.0f}; }
#endif
// Numbers from 0 to 255, rounded.
inline void store_bytes(uint8_t* to, Four x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: the low bits of x + kMagic hold x
  uint32_t parts[4];
  x = x + Four{kMagic, kMagic, kMagic, kMagic};
  std::memcpy(parts, &x, sizeof parts);
  for (int c = 0; c < 3; ++c) to[c] = (uint8_t)parts[c];
}

inline float sum(Floats x) {
  float parts[kLanes];
  store(parts, x);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) parts[i] += parts[i + half];
  return parts[0];
}

// Between low and high; `low` where x is not a number, so that what comes out may be used as a place in memory.
inline Floats within(Floats x, float low, float high) {
  x = pick(splat(low) < x, x, splat(low));
  return pick(x < splat(high), x, splat(high));
}

// 2^x for x between -126 and 126; exactly 1 for 0.
inline Floats power_of_two(Floats x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: the low bits of x + kMagic hold x, rounded
  const Floats moved = x + kMagic, f = x - (moved - kMagic);
  Floats p = f * 0.009582852944731712f + 0.055906426161527634f;
  p = p * f + 0.24024099111557007f;
  p = p * f + 0.6931241750717163f;
  p = p * f + 1.0f;
  return from_bits(bits(p) + (bits(moved) << 23));
}

inline Floats exponential(Floats x) { return power_of_two(within(x * 1.44269504f, -126.0f, 126.0f)); }

// log(1 + e^x), NaN where x is.
inline Floats soft_plus(Floats x) {
  const Floats size = from_bits(bits(x) & 0x7FFFFFFF), lowest = splat(export3d::lowest_power);
  const Floats z = size * -1.44269504f, u = power_of_two(pick(lowest < z, z, lowest));
  Floats p = u * -0.018371570855379105f + 0.0856708437204361f;
  p = p * u - 0.19387835264205933f;
  p = p * u + 0.31771236658096313f;
  p = p * u - 0.49789050221443176f;
  p = p * u + 0.9999029636383057f;
  return (x + size) * 0.5f + p * u;
}

inline Floats sigmoid(Floats x) { return 1.0f / (exponential(-x) + 1.0f); }
inline Floats hyperbolic_tangent(Floats x) { return 1.0f - 2.0f / (exponential(x * 2.0f) + 1.0f); }

}  // namespace
