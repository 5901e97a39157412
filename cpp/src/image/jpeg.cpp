#include <cstdio>  // jpeglib.h needs FILE

#include <jerror.h>
#include <jpeglib.h>

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

constexpr int kMaxScans = 500;  // a progressive file needs about ten; each costs a pass over the image
constexpr unsigned kMarkerLimit = 0xffff;

// libjpeg reports through callbacks and must not be unwound by C++ exceptions: errors jump back to the caller.
struct ErrorManager {
  jpeg_error_mgr base;
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
  bool truncated;
};

void on_error(j_common_ptr info) {
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  info->err->format_message(info, manager->message);
  std::longjmp(manager->jump, 1);
}

void on_message(j_common_ptr info, int level) {
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF) manager->truncated = true;
}

void on_output(j_common_ptr) {}

void on_progress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  std::snprintf(manager->message, sizeof(manager->message), "more than %d scans", kMaxScans);
  std::longjmp(manager->jump, 1);
}

/// A decompressor over bytes in memory. Between calls that can fail lies no object with a destructor (longjmp).
class Decompressor {
 public:
  Decompressor() {
    std::memset(&info_, 0, sizeof(info_));
    info_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = on_error;
    errors_.base.emit_message = on_message;
    errors_.base.output_message = on_output;
    errors_.truncated = false;
    errors_.message[0] = '\0';
    progress_.progress_monitor = on_progress;
  }
  ~Decompressor() { jpeg_destroy_decompress(&info_); }
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;

  bool open(const std::uint8_t* data, std::size_t size) {
    if (setjmp(errors_.jump) != 0) return false;
    jpeg_create_decompress(&info_);
    info_.progress = &progress_;
    jpeg_mem_src(&info_, data, static_cast<unsigned long>(size));
    jpeg_save_markers(&info_, JPEG_APP0 + 1, kMarkerLimit);
    jpeg_read_header(&info_, TRUE);
    return true;
  }

  bool start(J_COLOR_SPACE space) {
    if (setjmp(errors_.jump) != 0) return false;
    info_.out_color_space = space;
    info_.dct_method = JDCT_ISLOW;     // the exact integer transform,
    info_.do_fancy_upsampling = TRUE;  // and smooth chroma: what Pillow uses
    jpeg_start_decompress(&info_);
    return true;
  }

  bool read_row(std::uint8_t* row) {
    if (setjmp(errors_.jump) != 0) return false;
    JSAMPROW rows[] = {row};
    jpeg_read_scanlines(&info_, rows, 1);
    return !errors_.truncated;
  }

  bool finish() {
    if (setjmp(errors_.jump) != 0) return false;
    jpeg_finish_decompress(&info_);
    return !errors_.truncated;
  }

  [[noreturn]] void fail() const {
    if (errors_.truncated) throw InputError("truncated JPEG: the data ends before the image does");
    throw InputError(std::string("damaged JPEG: ") + errors_.message);
  }

  const jpeg_decompress_struct& info() const { return info_; }

 private:
  jpeg_decompress_struct info_;
  ErrorManager errors_;
  jpeg_progress_mgr progress_{};
};

int orientation_of(const jpeg_decompress_struct& info) {
  static constexpr char kExif[] = {'E', 'x', 'i', 'f', '\0', '\0'};
  for (const jpeg_marker_struct* marker = info.marker_list; marker != nullptr; marker = marker->next) {
    if (marker->marker != JPEG_APP0 + 1 || marker->data_length < sizeof(kExif)) continue;
    if (std::memcmp(marker->data, kExif, sizeof(kExif)) != 0) continue;
    return exif_orientation(marker->data + sizeof(kExif), marker->data_length - sizeof(kExif));
  }
  return 1;
}

/// a * b / 255, rounded.
unsigned scaled(unsigned a, unsigned b) {
  const unsigned product = a * b + 128;
  return (product + (product >> 8)) >> 8;
}

/// Inks as Adobe stores them, 255 for none, to RGB.
void cmyk_to_rgb(const std::uint8_t* cmyk, int pixels, std::uint8_t* rgb) {
  for (int index = 0; index < pixels; ++index, cmyk += 4, rgb += 3) {
    const unsigned light = cmyk[3];
    for (int channel = 0; channel < 3; ++channel)
      rgb[channel] = static_cast<std::uint8_t>(light - scaled(255u - cmyk[channel], light));
  }
}

}  // namespace

Decoded decode_jpeg(const std::uint8_t* data, std::size_t size, std::int64_t max_pixels) {
  Decompressor jpeg;
  if (!jpeg.open(data, size)) jpeg.fail();
  const auto& info = jpeg.info();
  check_pixels(info.image_height, info.image_width, max_pixels);
  const bool four = info.num_components == 4;
  const bool known = four || info.num_components == 3 || info.num_components == 1;
  if (!known) throw InputError("JPEG with " + std::to_string(info.num_components) + " components: expected 1, 3 or 4");
  Decoded decoded{Image({static_cast<int>(info.image_height), static_cast<int>(info.image_width)}),
                  orientation_of(info)};
  const ImageSize dimensions = decoded.image.size();
  std::vector<std::uint8_t> inks(four ? static_cast<std::size_t>(dimensions.width) * 4 : 0);
  if (!jpeg.start(four ? JCS_CMYK : JCS_RGB)) jpeg.fail();
  for (int y = 0; y < dimensions.height; ++y) {
    std::uint8_t* row = decoded.image.row(y);
    if (!jpeg.read_row(four ? inks.data() : row)) jpeg.fail();
    if (four) cmyk_to_rgb(inks.data(), dimensions.width, row);
  }
  if (!jpeg.finish()) jpeg.fail();
  return decoded;
}

}  // namespace edgerecall
