#include <cstdio>  // jpeglib.h needs FILE

#include <jpeglib.h>
#include <jerror.h>

#include <csetjmp>
#include <string>

#include "edgerecall/image.h"

namespace edgerecall {
namespace {

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

enum class Outcome { ok, broken, truncated, unsupported, size_changed };

struct Request {
  const std::uint8_t* data;
  std::size_t size;
  ImageSize dimensions;  // in: expected when decoding; out: what the header says
  std::uint8_t* out;     // null: header only
};

// Holds no C++ object with a destructor, so that longjmp is well defined.
Outcome run(Request& request, ErrorManager& errors) {
  jpeg_decompress_struct info;
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = on_error;
  errors.base.emit_message = on_message;
  errors.base.output_message = on_output;
  errors.truncated = false;
  errors.message[0] = '\0';
  if (setjmp(errors.jump) != 0) {
    jpeg_destroy_decompress(&info);
    return Outcome::broken;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, request.data, static_cast<unsigned long>(request.size));
  jpeg_read_header(&info, TRUE);
  if (info.jpeg_color_space != JCS_YCbCr && info.jpeg_color_space != JCS_RGB &&
      info.jpeg_color_space != JCS_GRAYSCALE) {
    jpeg_destroy_decompress(&info);
    return Outcome::unsupported;
  }
  const ImageSize found{static_cast<int>(info.image_height), static_cast<int>(info.image_width)};
  if (request.out == nullptr) {
    request.dimensions = found;
    jpeg_destroy_decompress(&info);
    return Outcome::ok;
  }
  if (found.height != request.dimensions.height || found.width != request.dimensions.width) {
    jpeg_destroy_decompress(&info);
    return Outcome::size_changed;
  }
  info.out_color_space = JCS_RGB;
  info.dct_method = JDCT_ISLOW;
  info.do_fancy_upsampling = TRUE;
  jpeg_start_decompress(&info);
  const std::size_t stride = static_cast<std::size_t>(found.width) * 3;
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = request.out + info.output_scanline * stride;
    jpeg_read_scanlines(&info, &row, 1);
    if (errors.truncated) break;
  }
  if (!errors.truncated) jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return errors.truncated ? Outcome::truncated : Outcome::ok;
}

void check(Outcome outcome, const ErrorManager& errors) {
  switch (outcome) {
    case Outcome::ok: return;
    case Outcome::broken: throw InputError(std::string("not a readable JPEG: ") + errors.message);
    case Outcome::truncated: throw InputError("truncated JPEG: the data ends before the image does");
    case Outcome::unsupported: throw UnsupportedImage("JPEG is neither gray nor YCbCr nor RGB");
    case Outcome::size_changed: throw InputError("JPEG header does not have the expected size");
  }
}

}  // namespace

ImageSize jpeg_size(const std::uint8_t* data, std::size_t size) {
  ErrorManager errors;
  Request request{data, size, {}, nullptr};
  check(run(request, errors), errors);
  return request.dimensions;
}

void decode_jpeg(const std::uint8_t* data, std::size_t size, ImageSize expected, std::uint8_t* out) {
  ErrorManager errors;
  Request request{data, size, expected, out};
  check(run(request, errors), errors);
}

}  // namespace edgerecall
