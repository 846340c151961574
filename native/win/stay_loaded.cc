// The end of the only worker that has loaded the addon would unmap it, under the feet of a thread of the system's pool that is
// about to tell us of a lock. So the module is never unloaded.

#include <windows.h>

namespace {

const bool stays_loaded = [] {
  HMODULE module;
  return GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                            reinterpret_cast<const wchar_t*>(&stays_loaded), &module) != 0;
}();

}  // namespace
