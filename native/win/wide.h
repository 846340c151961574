// Text and paths as Windows has them: UTF-16, and without the limit of 260 characters.
#pragma once

#include <string>

namespace gateway_lock {

std::wstring Widen(const std::string& utf8);
// What is no UTF-16 becomes U+FFFD.
std::string Narrow(const std::wstring& utf16);

// For CreateFileW and its like. An absolute path gets the prefix by which Windows takes it as it is, up to 32,767 characters
// long, without looking for "." and "..", for device names or for dots and blanks at the end: as Node's fs does it.
std::wstring NativePath(const std::string& path);

}  // namespace gateway_lock
