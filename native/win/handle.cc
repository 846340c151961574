#include "../handle.h"

#include <winsock2.h>

namespace gateway_lock {

// Both are pointers in size, but a SOCKET has to be closed by Winsock, which keeps books of its own.
void CloseRaw(HandleKind kind, RawHandle raw) noexcept {
  if (kind == HandleKind::kSocket) {
    closesocket(static_cast<SOCKET>(raw));
  } else {
    CloseHandle(reinterpret_cast<HANDLE>(raw));
  }
}

}  // namespace gateway_lock
