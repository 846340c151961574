// Memory from malloc, for the addon alone. Without exceptions, there is nobody to tell that there is none: as in Node itself,
// that ends the process. (libc++'s own file wants to know whether the program has replaced these, and exports two symbols for
// it.)

#include <stdlib.h>

#include <new>

namespace {

void* Allocate(std::size_t size) noexcept {
  void* memory = malloc(size == 0 ? 1 : size);
  if (memory == nullptr) abort();
  return memory;
}

}  // namespace

void* operator new(std::size_t size) { return Allocate(size); }
void* operator new[](std::size_t size) { return Allocate(size); }
void operator delete(void* memory) noexcept { free(memory); }
void operator delete[](void* memory) noexcept { free(memory); }
void operator delete(void* memory, std::size_t) noexcept { free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { free(memory); }
