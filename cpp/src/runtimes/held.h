// Things of C interfaces, freed with their own functions.
#pragma once

namespace edgerecall {

template <typename T>
class Held {
 public:
  explicit Held(void (*release)(T*)) : release_(release) {}
  Held(Held&& other) noexcept : pointer(other.pointer), release_(other.release_) { other.pointer = nullptr; }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held() {
    if (pointer != nullptr) release_(pointer);
  }
  T* pointer = nullptr;

 private:
  void (*release_)(T*);
};

}  // namespace edgerecall
