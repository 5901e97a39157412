#pragma once
#include <stdexcept>

namespace edgerecall {

/// Bad input (an image that cannot be decoded, a spec that makes no sense); the message says what was wrong with it.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The bytes are of a format that this core does not decode (neither JPEG nor PNG).
class UnsupportedImage : public InputError {
 public:
  using InputError::InputError;
};

/// Something the core needs is not on this machine (a runtime's library); the message has the remedy.
class Unavailable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A runtime is there and failed: it does not take the model, or gave something else than embeddings.
class RuntimeFailed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The caller's progress function asked to stop.
class Cancelled : public std::runtime_error {
 public:
  Cancelled() : std::runtime_error("cancelled") {}
};

}  // namespace edgerecall
