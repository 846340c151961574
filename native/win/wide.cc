#include "wide.h"

#include <windows.h>

#include <algorithm>

namespace gateway_lock {

std::wstring Widen(const std::string& utf8) {
  const int length = static_cast<int>(utf8.size());
  std::wstring utf16(utf8.size(), L'\0');  // never more units than bytes
  const int units = MultiByteToWideChar(CP_UTF8, 0, utf8.data(), length, utf16.data(), length);
  utf16.resize(static_cast<std::size_t>(units));
  return utf16;
}

std::string Narrow(const std::wstring& utf16) {
  const int units = static_cast<int>(utf16.size());
  std::string utf8(utf16.size() * 3, '\0');  // never more bytes than three for a unit
  const int length = static_cast<int>(utf8.size());
  const int bytes = WideCharToMultiByte(CP_UTF8, 0, utf16.data(), units, utf8.data(), length, nullptr, nullptr);
  utf8.resize(static_cast<std::size_t>(bytes));
  return utf8;
}

std::wstring NativePath(const std::string& path) {
  std::wstring wide = Widen(path);
  std::replace(wide.begin(), wide.end(), L'/', L'\\');
  const auto begins = [&](const wchar_t* prefix) { return wide.rfind(prefix, 0) == 0; };
  if (begins(L"\\\\?\\") || begins(L"\\\\.\\")) return wide;
  if (begins(L"\\\\")) return L"\\\\?\\UNC\\" + wide.substr(2);
  const bool is_absolute = wide.size() > 2 && wide[1] == L':' && wide[2] == L'\\';
  return is_absolute ? L"\\\\?\\" + wide : wide;
}

}  // namespace gateway_lock
