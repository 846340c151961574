// Descriptors that this process was started with: sockets that a service manager listens on, locks of whoever started us.
//
// What is adopted is a copy; the inherited one stays open, and is not inherited any further. So whoever adopts twice has the same
// lock twice: to see to it that nobody does is the caller's. ENOTSUP where a process is not started with descriptors.
#pragma once

#include <cstdint>
#include <string>

#include "file_lock.h"
#include "handle.h"
#include "listener.h"
#include "result.h"

namespace gateway_lock {

struct InheritedSocket {
  std::string address;
  bool ipv6 = false;
  std::uint16_t port = 0;
  bool v6only = false;
  bool listening = false;
  bool reuse_port = false;  // anybody of the same user may listen beside it
};

// Takes nothing. ENOTSOCK: no socket; EPROTOTYPE: not one of TCP.
Result<InheritedSocket> DescribeSocket(RawHandle inherited) noexcept;

// One that listens is readied for a successor, as Listen does it.
Result<BoundSocket> AdoptSocket(RawHandle inherited) noexcept;

// A file or directory, if this descriptor has the lock on what is at `path`, and can write to it if it is a file. Whether it
// had the lock before can't be told: if nobody had it, it is locked now. Everything that can be looked at is looked at before
// that. Where it is refused afterwards all the same, because the file was replaced in that moment or the filesystem lies, the
// lock stays with the descriptor: it may well be that of whoever started us, and to unlock it would take it from them.
//
// kHeld is said of somebody else's lock only. It has no file.
Result<LockAttempt> AdoptLock(RawHandle inherited, const std::string& path, bool self_test) noexcept;

// Lets accept(2) wait again on a listening socket, as programs expect that are given one. It is so for everybody who has it:
// EPROTOTYPE for what is not of TCP, because we never wait for one of a handover.
Result<Done> LendSocket(const SocketHandle& socket) noexcept;

}  // namespace gateway_lock
