// Owned host resources. Everything that must be given back is one of these.
#pragma once

#include <dirent.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

namespace vmsight {

/// A file descriptor that is closed once.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~UniqueFd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

/// A directory that is being listed; closed once. Null, with errno, if it cannot be opened.
using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;
inline Directory list_directory(const std::string& path) {
  return {::opendir(path.c_str()), &::closedir};
}

/// A memory mapping that is unmapped once.
class Mapping {
 public:
  Mapping() = default;
  Mapping(void* start, std::size_t size) : start_(start), size_(size) {}
  Mapping(Mapping&& other) noexcept
      : start_(std::exchange(other.start_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      reset();
      start_ = std::exchange(other.start_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  ~Mapping() { reset(); }
  std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(start_), size_};
  }
  std::span<std::byte> mutable_bytes() { return {static_cast<std::byte*>(start_), size_}; }
  explicit operator bool() const { return start_ != nullptr; }
  void reset() {
    if (start_ != nullptr) ::munmap(std::exchange(start_, nullptr), size_);
  }

 private:
  void* start_ = nullptr;
  std::size_t size_ = 0;
};

/// Runs a function when the scope ends.
class ScopeExit {
 public:
  explicit ScopeExit(std::function<void()> action) : action_(std::move(action)) {}
  ScopeExit(const ScopeExit&) = delete;
  ScopeExit& operator=(const ScopeExit&) = delete;
  ~ScopeExit() {
    if (action_) action_();
  }
  void dismiss() { action_ = nullptr; }

 private:
  std::function<void()> action_;
};

}  // namespace vmsight
