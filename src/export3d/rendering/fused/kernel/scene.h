// What one call of the fused renderer is given: plain numbers and pointers to float32, row-major. binding.py holds the same.
#pragma once

#include <cstddef>
#include <cstdint>

namespace export3d {

constexpr int kVersion = 11;  // of this layout; binding.py refuses a library of another one

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

constexpr int kMargin = 4;  // pixels around an interleaved picture that repeat its border

// A picture (channels, height, width) of at most four channels, and where it goes: (height + 2 kMargin, width + 2 kMargin, 4).
struct Picture {
  int32_t channels, height, width;
  const float* from;
  float* to;
};

// A rectangle of a picture with the photograph's detail, see compose.h; (channels, height, width) unless it says otherwise.
struct Head {
  int32_t rays_height, rays_width, small_height, small_width, state_channels, side, height, width;
  float gain;  // share of its own fine detail that the photograph gets on top, before `said`
  const float *guide, *choice, *state;
  const float* picture;  // the photograph, `side` pixels along each side, interleaved
  Pinhole portrait;
  Joint pose;
  float *layers, *seen;  // (height, 9, width rounded up to 16); (height / 2, width / 2, 28 + state_channels), or null
  float* clues;          // (height, 4, width rounded up to 16), or null: gates, and the fourth channel of the picture twice
  const float* said;     // (8, height / 2, width / 2), or null
  int64_t plane, stride;  // distances of channels and of rows in `image` (3, ..) and `opacity`
  float *image, *opacity;
};

// A head apart from what is behind it, with its crown behind it.
struct Layered {
  int32_t height, width, rows, room;            // of the layer; of the crown: the upper ones; above the pictures and beside them
  float haze;                                   // opacity below it shows nothing
  const float *picture, *opacity, *behind;      // (3, side, side) in [-1, 1]; (side, side); as the picture
  const float* crown;                           // (rows + 2, width + 2, 4) with a border of zeros, or null
  const int32_t* spans;                         // (rows + 2, 2): first column of a row of it that holds any of it, and one past the last
  float across[3], down[3];                     // where pixel (x, y) of the picture lies in the crown: of 1, x and y
  const float *columns, *rows_shown;            // shares of the pictures that are shown, (side) each; or null: all of it
  float *colours, *clear;                       // (3, height, width) in [0, 255] times the opacity; (height, width)
};

// A head put into a rectangle of a photograph.
struct Pasted {
  int32_t head_height, head_width, height, width;
  const float* head;                    // interleaved: colours in [0, 255] times opacity, opacity
  const uint8_t* met;                   // of each pixel of the interleaved head: whether the 4 x 4 from there on hold any of it
  const float* lines;                   // (height, 4): across, its step from pixel to pixel, down, its step: where they lie in the head
  const float* share;                   // (height, width)
  uint8_t* made;                        // (height, width, 3), rows `stride` bytes apart; before the call without this head
  int64_t stride;
};

constexpr int kTile = 128, kBlock = 8;  // sides of the repeated pattern and of a block of the gain, pixels

// A picture (height, width, 3) to which a pattern (kTile, kTile, 3) is added, times a gain (height / kBlock, width / kBlock, both
// rounded up), whole numbers whose product counts 1/512 of a level.
struct Patterned {
  int32_t height, width;
  const int16_t *pattern, *gain;
  const uint8_t* from;
  uint8_t* to;
};

// A picture (height, width, 3), both sides even, as 4:2:0 of BT.709, TV range; rows of brightness and of colour lie apart.
struct Converted {
  int32_t height, width;
  const uint8_t* from;
  uint8_t *luma, *blue, *red;
  int64_t luma_stride, blue_stride, red_stride;
};

// One compiled version of the kernel; `work` is memory of `floats` for this many threads.
struct Kernel {
  const char* name;
  size_t (*floats)(const Scene&, int threads);
  void (*prepare)(const Scene&, float* work);
  void (*fold)(const Scene&, float* work, int row);                                 // one row of texels of all three planes
  void (*probe)(const Scene&, float* work, int thread, int first_ray, int last_ray);  // of a square picture, row by row
  void (*march)(const Scene&, float* work, int thread, int first_ray, int last_ray);  // rays in the order of `ray_number`
  void (*interleave)(const Picture&, int row);
  size_t (*compose_floats)(const Head&);  // of memory for one thread, as of `paste_floats`
  void (*look)(const Head&, float* work, int first_row, int last_row);
  void (*mix)(const Head&, float* work, int first_row, int last_row);
  void (*layer)(const Layered&, int row);
  size_t (*paste_floats)(const Pasted&);
  void (*paste)(const Pasted&, float* work, int row);
  void (*add_pattern)(const Patterned&, int strip);  // half a block of rows
  void (*convert)(const Converted&, int pair);       // two rows
  void (*round)(const Picture&, int row);
};

// -126. Where compilers do not see the number, they take one instruction for the greater of two instead of two.
extern const float lowest_power;

extern const Kernel kernel_plain, kernel_avx2, kernel_avx512;

}  // namespace export3d
