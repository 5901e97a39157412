#pragma once
#include <stdexcept>

namespace edgerecall {

/// Bad input data (an image that cannot be decoded); the message says what was wrong with it.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The JPEG is of a kind this decoder leaves to others (CMYK, YCCK).
class UnsupportedImage : public InputError {
 public:
  using InputError::InputError;
};

}  // namespace edgerecall
