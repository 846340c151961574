// A value, or what the system said instead: the sole vocabulary between the core and the glue.
#pragma once

#include <utility>
#include <variant>

namespace gateway_lock {

// `code` is an errno, on Windows one of its C library's; there `system` is the number that Windows itself gave, which says
// more. `syscall` is the name of the refused call, as a manual page has it.
struct Failure {
  int code;
  const char* syscall;
  unsigned long system = 0;
};

// For calls that either work or fail, and have nothing to tell when they work.
struct Done {};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) noexcept : state_(std::move(value)) {}
  Result(Failure failure) noexcept : state_(failure) {}

  bool ok() const noexcept { return std::holds_alternative<T>(state_); }
  T& value() noexcept { return *std::get_if<T>(&state_); }
  const Failure& failure() const noexcept { return *std::get_if<Failure>(&state_); }

 private:
  std::variant<T, Failure> state_;
};

}  // namespace gateway_lock
