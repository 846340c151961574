// A move-only owner of one kernel object: whoever has the Handle closes it, once.
#pragma once

#include <cstdint>
#include <utility>

namespace gateway_lock {

// What the system calls it: a descriptor on POSIX; a HANDLE or a SOCKET on Windows, which are closed differently.
using RawHandle = std::intptr_t;
constexpr RawHandle kNoHandle = -1;

enum class HandleKind { kFile, kSocket };

// Closes `raw`; one implementation for each system. The result is not looked at: after close(2) has failed, the
// descriptor is gone all the same on Linux and macOS, and closing it again could hit somebody else's.
void CloseRaw(HandleKind kind, RawHandle raw) noexcept;

template <HandleKind kKind>
class Handle {
 public:
  Handle() noexcept = default;
  explicit Handle(RawHandle raw) noexcept : raw_(raw) {}
  Handle(Handle&& other) noexcept : raw_(other.Take()) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      Reset();
      raw_ = other.Take();
    }
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { Reset(); }

  RawHandle raw() const noexcept { return raw_; }
  explicit operator bool() const noexcept { return raw_ != kNoHandle; }

  // Gives the object away: the caller closes it from here on.
  RawHandle Take() noexcept { return std::exchange(raw_, kNoHandle); }
  void Reset() noexcept {
    if (raw_ != kNoHandle) CloseRaw(kKind, Take());
  }

 private:
  RawHandle raw_ = kNoHandle;
};

using FileHandle = Handle<HandleKind::kFile>;
using SocketHandle = Handle<HandleKind::kSocket>;

}  // namespace gateway_lock
