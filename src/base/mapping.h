// Mapping: a range of our address space that is unmapped when its owner ends. Any thread.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <span>
#include <utility>

#include "ringway/base/result.h"

namespace ringway {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Mapping() {
    if (base_ != nullptr) ::munmap(base_, size_);
  }

  // A shared mapping of `size` bytes of `fd` from page-aligned `offset`. `size` > 0.
  static Result<Mapping> of_file(int fd, size_t size, off_t offset, int protection = PROT_READ | PROT_WRITE);
  // Zeroed private memory; pages cost nothing until touched.
  static Result<Mapping> anonymous(size_t size);

  [[nodiscard]] std::byte* data() const { return base_; }
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] std::span<std::byte> bytes() const { return {base_, size_}; }

 private:
  Mapping(void* base, size_t size) : base_(static_cast<std::byte*>(base)), size_(size) {}
  std::byte* base_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ringway
