#include <png.h>

#include <array>
#include <csetjmp>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "image/codecs.h"
#include "edgerecall/decode.h"
#include "edgerecall/error.h"

namespace edgerecall {
namespace {

struct Source {
  const std::uint8_t* data;
  std::size_t left;
};

struct Message {
  char text[160];
};

void on_read(png_structp png, png_bytep out, size_t length) {
  auto* source = static_cast<Source*>(png_get_io_ptr(png));
  if (length > source->left) png_error(png, "the data ends before the image does");
  std::memcpy(out, source->data, length);
  source->data += length;
  source->left -= length;
}

void on_error(png_structp png, png_const_charp text) {
  auto* message = static_cast<Message*>(png_get_error_ptr(png));
  std::strncpy(message->text, text, sizeof(message->text) - 1);
  message->text[sizeof(message->text) - 1] = '\0';
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

/// A reader over bytes in memory. Between calls that can fail lies no object with a destructor (longjmp).
class Reader {
 public:
  Reader(const std::uint8_t* data, std::size_t size) : source_{data, size} {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &message_, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw InputError("not enough memory to decode it");
    }
  }
  ~Reader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  bool open() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    // Colour management, text and time are not looked at: a broken one must not cost the image.
    static constexpr png_byte kIgnored[] =
        "cHRM\0gAMA\0iCCP\0sRGB\0sBIT\0bKGD\0hIST\0pHYs\0sPLT\0tIME\0iTXt\0tEXt\0zTXt\0";
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, kIgnored, (sizeof(kIgnored) - 1) / 5);
    png_set_user_limits(png_, 0x7fffffff, 0x7fffffff);  // check_pixels sets the limit
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    png_set_crc_action(png_, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);  // or every change ends at a checksum
#endif
    png_set_read_fn(png_, &source_, on_read);
    png_read_info(png_, info_);
    return true;
  }

  bool start() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_packing(png_);  // 1, 2 and 4 bits to one byte a sample, values as they are
    passes_ = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  bool read(std::uint8_t* rows, std::size_t stride) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    const png_uint_32 height = png_get_image_height(png_, info_);
    for (int pass = 0; pass < passes_; ++pass)
      for (png_uint_32 row = 0; row < height; ++row) png_read_row(png_, rows + row * stride, nullptr);
    png_read_end(png_, info_);
    return true;
  }

  [[noreturn]] void fail() const { throw InputError(std::string("damaged PNG: ") + message_.text); }

  png_structp png() const { return png_; }
  png_infop info() const { return info_; }

 private:
  Source source_;
  Message message_{};
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  int passes_ = 1;
};

using Palette = std::array<std::array<std::uint8_t, 3>, 256>;

/// Entries that the file does not give are black, as in Pillow.
Palette palette_of(const Reader& reader) {
  Palette palette{};
  png_colorp colors = nullptr;
  int count = 0;
  if (png_get_PLTE(reader.png(), reader.info(), &colors, &count) == 0) throw InputError("PNG without its palette");
  for (int index = 0; index < count && index < 256; ++index)
    palette[static_cast<std::size_t>(index)] = {colors[index].red, colors[index].green, colors[index].blue};
  return palette;
}

int orientation_of(const Reader& reader) {
#ifdef PNG_eXIf_SUPPORTED
  png_bytep exif = nullptr;
  png_uint_32 length = 0;
  if (png_get_eXIf_1(reader.png(), reader.info(), &length, &exif) != 0) return exif_orientation(exif, length);
#endif
  return 1;
}

/// What a row of samples looks like once libpng has unpacked it.
struct Layout {
  int channels;
  int bytes;       // a sample: 1 or 2, big-endian
  unsigned scale;  // gray of fewer than 8 bits is stretched to 0..255
  bool gray, clipped;
};

void to_rgb(const std::uint8_t* samples, int pixels, const Layout& layout, const Palette* palette, std::uint8_t* rgb) {
  const int step = layout.channels * layout.bytes;
  for (int index = 0; index < pixels; ++index, samples += step, rgb += 3) {
    if (palette != nullptr) {
      std::memcpy(rgb, (*palette)[samples[0]].data(), 3);
    } else if (layout.gray) {
      const unsigned value = layout.clipped && samples[0] != 0 ? 255 : samples[layout.clipped ? 1 : 0] * layout.scale;
      rgb[0] = rgb[1] = rgb[2] = static_cast<std::uint8_t>(value);
    } else {
      for (int channel = 0; channel < 3; ++channel) rgb[channel] = samples[channel * layout.bytes];
    }
  }
}

}  // namespace

Decoded decode_png(const std::uint8_t* data, std::size_t size, std::int64_t max_pixels) {
  Reader reader(data, size);
  if (!reader.open()) reader.fail();
  const png_uint_32 height = png_get_image_height(reader.png(), reader.info());
  const png_uint_32 width = png_get_image_width(reader.png(), reader.info());
  check_pixels(height, width, max_pixels);
  const int color = png_get_color_type(reader.png(), reader.info());
  const int depth = png_get_bit_depth(reader.png(), reader.info());
  const bool indexed = color == PNG_COLOR_TYPE_PALETTE;
  const Palette palette = indexed ? palette_of(reader) : Palette{};
  if (!reader.start()) reader.fail();

  const int channels = png_get_channels(reader.png(), reader.info());
  const Layout layout{channels, depth == 16 ? 2 : 1, depth < 8 ? 255u / ((1u << depth) - 1u) : 1u,
                      !indexed && (color & PNG_COLOR_MASK_COLOR) == 0, color == PNG_COLOR_TYPE_GRAY && depth == 16};
  const std::size_t stride = png_get_rowbytes(reader.png(), reader.info());
  Decoded decoded{Image({static_cast<int>(height), static_cast<int>(width)})};
  std::vector<std::uint8_t> samples(stride * height);
  if (!reader.read(samples.data(), stride)) reader.fail();
  decoded.orientation = orientation_of(reader);  // which may stand behind the pixels
  for (int y = 0; y < decoded.image.size().height; ++y)
    to_rgb(samples.data() + static_cast<std::size_t>(y) * stride, decoded.image.size().width, layout,
           indexed ? &palette : nullptr, decoded.image.row(y));
  return decoded;
}

}  // namespace edgerecall
