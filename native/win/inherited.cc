#include "../inherited.h"

#include <errno.h>

namespace gateway_lock {
namespace {

// Handles are inherited, but nobody says which ones and what for.
constexpr Failure kUnsupported = {ENOTSUP, "descriptor"};

}  // namespace

Result<InheritedSocket> DescribeSocket(RawHandle) noexcept { return kUnsupported; }

Result<BoundSocket> AdoptSocket(RawHandle) noexcept { return kUnsupported; }

Result<LockAttempt> AdoptLock(RawHandle, const std::string&, bool) noexcept { return kUnsupported; }

Result<Done> LendSocket(const SocketHandle&) noexcept { return kUnsupported; }

}  // namespace gateway_lock
