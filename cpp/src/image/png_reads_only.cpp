// libpng's parts that write, which its reader refers to and never calls: without them, and the zlib that deflates, the
// packed program is 70 kB smaller.
#include <png.h>

extern "C" {

// Frees what a writer has: there is none.
void png_destroy_write_struct(png_structpp, png_infopp) {}
void png_free_buffer_list(png_structrp, void*) {}

/// As libpng's own: big-endian.
void png_save_uint_32(png_bytep bytes, png_uint_32 number) {
  for (int place = 0; place < 4; ++place) bytes[place] = static_cast<png_byte>(number >> (24 - 8 * place) & 0xff);
}
}
