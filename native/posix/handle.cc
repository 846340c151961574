#include "../handle.h"

#include <unistd.h>

namespace gateway_lock {

void CloseRaw(HandleKind, RawHandle raw) noexcept { close(static_cast<int>(raw)); }

}  // namespace gateway_lock
