// What a socket is that somebody else has made.
#pragma once

namespace gateway_lock {

// Of a stream socket of an IP family: TCP, and nothing that is laid over it.
bool IsPlainTcp(int socket) noexcept;
bool IsListening(int socket) noexcept;

}  // namespace gateway_lock
