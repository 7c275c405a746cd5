// What one call of the fused renderer is given: plain numbers and pointers to float32, row-major. binding.py holds the same.
#pragma once

#include <cstddef>
#include <cstdint>

namespace export3d {

constexpr int kVersion = 1;  // of this layout; binding.py refuses a library of another one

// A smooth joint about a height (the neck): x + w(y) (x - pivot) extra, w from 0 at `top` to 1 at `bottom`.
struct Joint {
  int32_t on;
  float extra[9], pivot[3], top, bottom;
};

struct Pinhole {
  float rotation[9], centre[3];  // camera to world, OpenCV axes
  float focal[2], middle[2];     // of a picture of side 1
  float distance;                // of the centre from the world's origin
};

struct Scene {
  // Tri-planes (3, channels + motion, resolution, resolution); motion is 0 or 3.
  const float* planes;
  int32_t channels, motion, resolution, ring;  // ring: 1 where zeros lie outside the box, 0 where its border goes on
  float box_side;
  // Decoder: first layer (hidden, channels), the same of a separate colour network or null, density, last (outputs, hidden).
  int32_t hidden, outputs, colours;  // outputs = colours, or colours + 5 with a guide (3 offsets, 2 gates)
  const float *first_weight, *first_bias, *second_weight, *second_bias;
  const float *density_weight, *density_bias, *last_weight, *last_bias;
  float margin, offset_scale;
  // Depth maps of the portrait (map_channels, map_height, map_width), or null, and the layer that reads their clues
  // (hidden, map_channels + 4).
  const float *maps, *clue_weight;
  int32_t map_channels, map_height, map_width;
  Pinhole portrait;
  Joint unpose, pose;  // frame -> unturned volume, unturned volume -> portrait
  // Sampling.
  int32_t num_coarse, num_fine, composite_coarse;
  float near, far, floor, shift, gain;
  // What may be left out, see `FastConfig` of fast.py; rays_per_coarse is 1 or 5.
  int32_t rays_per_coarse, fine_samples, faint_samples;
  float empty_opacity, faint_opacity, least_share;
  // Rays (rays, 3), a square picture of this side or 0; results (rays, outputs), (rays), (rays).
  int32_t rays, side;
  const float *origins, *directions;
  float *features, *depth, *opacity;
};

// One compiled version of the kernel; `work` is memory of `floats` for this many threads.
struct Kernel {
  const char* name;
  size_t (*floats)(const Scene&, int threads);
  void (*prepare)(const Scene&, float* work);
  void (*fold)(const Scene&, float* work, int row);                                 // one row of texels of all three planes
  void (*probe)(const Scene&, float* work, int thread, int first_ray, int last_ray);  // of a square picture, row by row
  void (*march)(const Scene&, float* work, int thread, int first_ray, int last_ray);  // rays in the order of `ray_number`
};

// -126. Where compilers do not see the number, they take one instruction for the greater of two instead of two.
extern const float lowest_power;

extern const Kernel kernel_plain, kernel_avx2, kernel_avx512;

}  // namespace export3d
