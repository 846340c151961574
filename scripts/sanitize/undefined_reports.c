// For UndefinedBehaviorSanitizer beside AddressSanitizer: both libraries have a function that says where reports go, and calls of
// either are bound to the first one. So the second would write to standard error, where tests of ours do not look.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

const char* __ubsan_default_options(void);

__attribute__((constructor)) static void SetReportPath(void) {
  typedef void Setter(const char*);
  void* const library = dlopen("libubsan.so.1", RTLD_NOLOAD | RTLD_LAZY);
  Setter* const set = library == 0 ? 0 : (Setter*)dlsym(library, "__sanitizer_set_report_path");
  const char* const path = strstr(__ubsan_default_options(), "log_path=");
  if (set != 0 && path != 0) set(path + strlen("log_path="));
}
