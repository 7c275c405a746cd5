// The way into the fused renderer from outside: picks the kernel for this processor and shares the rays among threads.
#include <atomic>
#include <cstring>
#include <system_error>
#include <thread>

#include "scene.h"

#if defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>
#endif

#if defined(_WIN32)
#define EXPORT3D_API extern "C" __declspec(dllexport)
#else
#define EXPORT3D_API extern "C" __attribute__((visibility("default")))
#endif

const float export3d::lowest_power = -126.0f;

namespace {

using export3d::Kernel;
using export3d::Scene;

constexpr int kRaysAtOnce = 64;
constexpr int kRowsAtOnce = 16;
constexpr int kMostThreads = 64;

#if defined(EXPORT3D_X86)
// Whether processor and system know these instructions; AVX2 with FMA, AVX-512 with its F, DQ, BW and VL parts.
#if defined(_MSC_VER) && !defined(__clang__)
bool has(int wide) {
  int a[4], b[4];
  __cpuidex(a, 1, 0);
  __cpuidex(b, 7, 0);
  const bool saves = (a[2] >> 27) & 1;  // OSXSAVE
  const unsigned long long kept = saves ? _xgetbv(0) : 0;
  if (wide) return (kept & 0xE6) == 0xE6 && (b[1] >> 16 & 1) && (b[1] >> 17 & 1) && (b[1] >> 30 & 1) && (b[1] >> 31 & 1);
  return (kept & 6) == 6 && (a[2] >> 12 & 1) && (b[1] >> 5 & 1);
}
#else
bool has(int wide) {
  __builtin_cpu_init();
  if (wide)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif
#endif

// The fastest kernel that this processor can run, or the one of this name; null where it cannot.
const Kernel* kernel_for(const char* name) {
  const Kernel* found[3];
  int count = 0;
#if defined(EXPORT3D_X86)
  if (has(1)) found[count++] = &export3d::kernel_avx512;
  if (has(0)) found[count++] = &export3d::kernel_avx2;
#endif
  found[count++] = &export3d::kernel_plain;
  for (int i = 0; i < count; ++i)
    if (!name || !*name || std::strcmp(name, found[i]->name) == 0) return found[i];
  return nullptr;
}

// work(thread, begin, end) for pieces of [0, count); what a piece gives does not depend on the thread that does it.
template <typename Work>
void share_out(int count, int piece, int threads, const Work& work) {
  if (threads == 1) return work(0, 0, count);  // what a piece begins with is done once
  std::atomic<int> next{0};
  const auto run = [&](int thread) {
    for (int begin; (begin = next.fetch_add(piece)) < count;)
      work(thread, begin, begin + piece < count ? begin + piece : count);
  };
  std::thread others[kMostThreads];
  int started = 0;
  try {
    while (started < threads - 1) {
      others[started] = std::thread(run, started + 1);
      ++started;
    }
  } catch (const std::system_error&) {  // no more threads to be had: those that run do it all
  }
  run(0);
  for (int i = 0; i < started; ++i) others[i].join();
}

int bounded(int threads) { return threads < 1 ? 1 : (threads > kMostThreads ? kMostThreads : threads); }

}  // namespace

EXPORT3D_API int export3d_fused_version() { return export3d::kVersion; }
EXPORT3D_API size_t export3d_fused_scene_bytes() { return sizeof(Scene); }

// Name of the kernel that runs where `name` is empty; null where there is none of this name for this processor.
EXPORT3D_API const char* export3d_fused_kernel(const char* name) {
  const Kernel* kernel = kernel_for(name);
  return kernel ? kernel->name : nullptr;
}

EXPORT3D_API size_t export3d_fused_floats(const Scene* scene, const char* name, int threads) {
  const Kernel* kernel = kernel_for(name);
  return kernel ? kernel->floats(*scene, bounded(threads)) : 0;
}

// Renders; `work` has export3d_fused_floats numbers. 0, or 1 where there is no such kernel.
EXPORT3D_API int export3d_fused_render(const Scene* scene, const char* name, int threads, float* work) {
  const Kernel* kernel = kernel_for(name);
  if (!kernel) return 1;
  threads = bounded(threads);
  kernel->prepare(*scene, work);
  share_out(scene->resolution + 2 * scene->ring, 8, threads, [&](int, int begin, int end) {
    for (int row = begin; row < end; ++row) kernel->fold(*scene, work, row);
  });
  if (scene->rays_per_coarse > 1)
    share_out(scene->rays, kRaysAtOnce, threads,
              [&](int thread, int begin, int end) { kernel->probe(*scene, work, thread, begin, end); });
  share_out(scene->rays, kRaysAtOnce, threads,
            [&](int thread, int begin, int end) { kernel->march(*scene, work, thread, begin, end); });
  return 0;
}

// Pictures: `work` has export3d_fused_head_floats (export3d_fused_paste_floats) numbers. 0, or 1 where there is no such kernel.
EXPORT3D_API int export3d_fused_interleave(const export3d::Picture* picture, const char* name, int threads) {
  const Kernel* kernel = kernel_for(name);
  if (!kernel) return 1;
  share_out(picture->height + 2 * export3d::kMargin, kRowsAtOnce, bounded(threads), [&](int, int begin, int end) {
    for (int row = begin; row < end; ++row) kernel->interleave(*picture, row);
  });
  return 0;
}

// Of a picture (3, height, width), into bytes.
EXPORT3D_API int export3d_fused_round(const export3d::Picture* picture, const char* name, int threads) {
  const Kernel* kernel = kernel_for(name);
  if (!kernel) return 1;
  share_out(picture->height, kRowsAtOnce, bounded(threads), [&](int, int begin, int end) {
    for (int row = begin; row < end; ++row) kernel->round(*picture, row);
  });
  return 0;
}

EXPORT3D_API size_t export3d_fused_head_floats(const export3d::Head* head, const char* name, int threads) {
  const Kernel* kernel = kernel_for(name);
  return kernel ? kernel->compose_floats(*head) * bounded(threads) : 0;
}

// Reads the photograph (`step` 0), or mixes the layers (1).
EXPORT3D_API int export3d_fused_head(const export3d::Head* head, const char* name, int threads, int step, float* work) {
  const Kernel* kernel = kernel_for(name);
  if (!kernel) return 1;
  const size_t each = kernel->compose_floats(*head);
  const auto rows = step == 0 ? kernel->look : kernel->mix;
  share_out(head->height, kRowsAtOnce, bounded(threads),
            [&](int thread, int begin, int end) { rows(*head, work + thread * each, begin, end); });
  return 0;
}

EXPORT3D_API int export3d_fused_layer(const export3d::Layered* layered, const char* name, int threads) {
  const Kernel* kernel = kernel_for(name);
  if (!kernel) return 1;
  share_out(layered->height, kRowsAtOnce, bounded(threads), [&](int, int begin, int end) {
    for (int row = begin; row < end; ++row) kernel->layer(*layered, row);
  });
  return 0;
}

EXPORT3D_API size_t export3d_fused_paste_floats(const export3d::Pasted* pasted, const char* name, int threads) {
  const Kernel* kernel = kernel_for(name);
  return kernel ? kernel->paste_floats(*pasted) * bounded(threads) : 0;
}

EXPORT3D_API int export3d_fused_paste(const export3d::Pasted* pasted, const char* name, int threads, float* work) {
  const Kernel* kernel = kernel_for(name);
  if (!kernel) return 1;
  const size_t each = kernel->paste_floats(*pasted);
  share_out(pasted->height, kRowsAtOnce, bounded(threads), [&](int thread, int begin, int end) {
    for (int row = begin; row < end; ++row) kernel->paste(*pasted, work + thread * each, row);
  });
  return 0;
}

EXPORT3D_API int export3d_fused_convert(const export3d::Converted* picture, const char* name, int threads) {
  const Kernel* kernel = kernel_for(name);
  if (!kernel) return 1;
  share_out(picture->height / 2, kRowsAtOnce, bounded(threads), [&](int, int begin, int end) {
    for (int pair = begin; pair < end; ++pair) kernel->convert(*picture, pair);
  });
  return 0;
}

EXPORT3D_API int export3d_fused_add_pattern(const export3d::Patterned* picture, const char* name, int threads) {
  const Kernel* kernel = kernel_for(name);
  if (!kernel) return 1;
  constexpr int rows = export3d::kBlock / 2;
  share_out((picture->height + rows - 1) / rows, kRowsAtOnce / rows, bounded(threads), [&](int, int begin, int end) {
    for (int strip = begin; strip < end; ++strip) kernel->add_pattern(*picture, strip);
  });
  return 0;
}
