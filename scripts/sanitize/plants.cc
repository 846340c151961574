// Bugs of four kinds, one for each sanitizer, in a copy of the addon: GATEWAY_LOCK_PLANT tells which of them happens where it is
// loaded. Whoever does not report them would not report ours.

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

namespace {

volatile int shared = 0;
void* volatile lost;

void* Race(void*) {
  for (int i = 0; i < 1000; i++) shared = shared + 1;
  return nullptr;
}

__attribute__((constructor)) void Plant() {
  const char* const plant = getenv("GATEWAY_LOCK_PLANT");
  if (plant == nullptr) return;
  if (strcmp(plant, "use-after-free") == 0) {
    volatile char* const memory = static_cast<char*>(malloc(1));
    free(const_cast<char*>(memory));
    memory[0] = 1;
  } else if (strcmp(plant, "overflow") == 0) {
    volatile int most = 0x7fffffff;
    most = most + 1;
  } else if (strcmp(plant, "race") == 0) {
    pthread_t threads[2];
    for (pthread_t& thread : threads) pthread_create(&thread, nullptr, Race, nullptr);
    for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  } else if (strcmp(plant, "leak") == 0) {
    for (int i = 0; i < 100; i++) lost = malloc(1000);
    lost = nullptr;
  }
}

}  // namespace
