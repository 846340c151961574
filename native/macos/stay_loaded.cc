// Keeps the addon in memory when the only worker that loaded it ends: a thread that waits for a lock may still run its code.
//
// Mach-O has no counterpart of the ELF linker's -z nodelete, so the addon opens itself once more when it is loaded, and never
// closes that. RTLD_NOLOAD: what is there already, and nothing from disk (dlopen(3)).

#include <dlfcn.h>

namespace {

__attribute__((constructor)) void StayLoaded() {
  Dl_info self;
  if (dladdr(reinterpret_cast<const void*>(&StayLoaded), &self) == 0) return;
  dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

}  // namespace
