// Win32 and the Restart Manager.
//
// Who holds a lock is not to be had: the system tells who has a file open (the Restart Manager, which asks the kernel), and that
// it is locked (a read of the locked byte is refused, and such a read disturbs nobody). Of several who have it open, the owner
// that the record names is the holder; if it is not among them, nobody is named. Nobody has it open is the one proof that it is
// free. As the Restart Manager is a stub in places (Wine), it has to name ourselves first, who have the file open to ask.

#include "../process.h"

#include <winsock2.h>
#include <ws2tcpip.h>
// After the headers of Winsock.
#include <iphlpapi.h>
#include <restartmanager.h>
#include <windows.h>
#include <winternl.h>

#include <algorithm>

#include "../handle.h"
#include "errors.h"
#include "request.h"
#include "wide.h"

namespace gateway_lock {
namespace {

constexpr ULONGLONG kUnitsInMillisecond = 10'000;  // a FILETIME counts 100 ns
constexpr DWORD kShareAll = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
constexpr int kMaxTries = 8;
constexpr auto kProcessCommandLineInformation = static_cast<PROCESSINFOCLASS>(60);  // Windows 8.1

HANDLE Native(const FileHandle& file) noexcept { return reinterpret_cast<HANDLE>(file.raw()); }

FileHandle OpenProcessFor(DWORD access, ProcessId pid) noexcept {
  const HANDLE process = ::OpenProcess(access, FALSE, static_cast<DWORD>(pid));
  return process == nullptr ? FileHandle() : FileHandle(reinterpret_cast<RawHandle>(process));
}

// Minimal editions do not have every library, and what a function is there for can be done without it.
template <typename Function>
Function* Find(const wchar_t* library, const char* name) noexcept {
  HMODULE module = LoadLibraryExW(library, nullptr, LOAD_LIBRARY_SEARCH_SYSTEM32);
  if (module == nullptr) return nullptr;
  return reinterpret_cast<Function*>(reinterpret_cast<void (*)()>(GetProcAddress(module, name)));
}

struct RestartManager {
  decltype(&RmStartSession) start = Find<decltype(RmStartSession)>(L"rstrtmgr.dll", "RmStartSession");
  decltype(&RmRegisterResources) add = Find<decltype(RmRegisterResources)>(L"rstrtmgr.dll", "RmRegisterResources");
  decltype(&RmGetList) list = Find<decltype(RmGetList)>(L"rstrtmgr.dll", "RmGetList");
  decltype(&RmEndSession) end = Find<decltype(RmEndSession)>(L"rstrtmgr.dll", "RmEndSession");

  static const RestartManager& Get() noexcept {
    static const RestartManager manager;
    return manager;
  }
  bool is_there() const noexcept { return start != nullptr && add != nullptr && list != nullptr && end != nullptr; }
};

// The processes that have the file open; false if they can't be told.
bool FindUsers(const std::wstring& path, std::vector<ProcessId>& users) noexcept {
  const RestartManager& manager = RestartManager::Get();
  if (!manager.is_there()) return false;
  DWORD session;
  wchar_t key[CCH_RM_SESSION_KEY + 1] = {};
  if (manager.start(&session, 0, key) != ERROR_SUCCESS) return false;
  const wchar_t* const file = path.c_str();
  bool done = false;
  if (manager.add(session, 1, const_cast<const wchar_t**>(&file), 0, nullptr, 0, nullptr) == ERROR_SUCCESS) {
    std::vector<RM_PROCESS_INFO> processes(16);
    for (int tries = 0; tries < kMaxTries && !done; tries++) {
      UINT needed = 0;
      UINT count = static_cast<UINT>(processes.size());
      DWORD reasons = 0;
      const DWORD error = manager.list(session, &needed, &count, processes.data(), &reasons);
      if (error == ERROR_MORE_DATA) {
        processes.resize(needed + 16);
        continue;
      }
      if (error != ERROR_SUCCESS) break;
      for (UINT i = 0; i < count; i++) users.push_back(static_cast<ProcessId>(processes[i].Process.dwProcessId));
      done = true;
    }
  }
  manager.end(session);
  return done;
}

std::string ImageOf(const FileHandle& process) noexcept {
  std::wstring image(32768, L'\0');
  DWORD length = static_cast<DWORD>(image.size());
  if (!QueryFullProcessImageNameW(Native(process), 0, image.data(), &length)) return "";
  return Narrow(image.substr(0, length));
}

LockEvidence FindHolders(const std::string& path, const std::vector<ProcessId>& hints, bool first_only) noexcept {
  LockEvidence evidence;
  const std::wstring wide = NativePath(path);
  const DWORD flags = FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_OVERLAPPED;
  const HANDLE opened = CreateFileW(wide.c_str(), GENERIC_READ, kShareAll, nullptr, OPEN_EXISTING, flags, nullptr);
  if (opened == INVALID_HANDLE_VALUE) {
    const DWORD error = GetLastError();
    // Where there is no file, there is no lock on it.
    if (error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND) evidence.locked = Verdict::kNo;
    return evidence;
  }
  FileHandle file(reinterpret_cast<RawHandle>(opened));
  Request request;
  const bool is_locked = request.ReadLockedByte(Native(file)) == ERROR_LOCK_VIOLATION;
  if (is_locked) evidence.locked = Verdict::kYes;

  std::vector<ProcessId> users;
  const bool is_complete = FindUsers(wide, users);
  const auto self = std::find(users.begin(), users.end(), OwnProcess());
  if (!is_complete || self == users.end()) return evidence;
  // This process may have it open twice: once to ask, and once because it is the holder.
  const bool self_is_hinted = std::find(hints.begin(), hints.end(), OwnProcess()) != hints.end();
  if (!is_locked) {
    if (users.size() == 1 && !self_is_hinted) evidence.locked = Verdict::kNo;
    return evidence;
  }
  if (users.size() == 1) {
    evidence.holders.push_back(OwnProcess());
    return evidence;
  }
  for (const ProcessId hint : hints) {
    if (std::find(users.begin(), users.end(), hint) == users.end()) continue;
    evidence.holders.push_back(hint);
    if (first_only) return evidence;
  }
  // Nobody but one other has it open.
  if (evidence.holders.empty() && users.size() == 2) {
    evidence.holders.push_back(users[0] == OwnProcess() ? users[1] : users[0]);
  }
  return evidence;
}

}  // namespace

ProcessId OwnProcess() noexcept { return static_cast<ProcessId>(GetCurrentProcessId()); }

Result<ProcessIdentity> IdentifyProcess(ProcessId pid) noexcept {
  ProcessIdentity identity;
  FileHandle process = OpenProcessFor(PROCESS_QUERY_LIMITED_INFORMATION, pid);
  if (!process) {
    const DWORD error = GetLastError();
    if (error == ERROR_INVALID_PARAMETER) return identity;  // nobody has this pid
    if (error != ERROR_ACCESS_DENIED) return FailureOf(error, "OpenProcess");
    identity.exists = true;
    return identity;
  }
  FILETIME created, exited, kernel, user;
  if (!GetProcessTimes(Native(process), &created, &exited, &kernel, &user)) return LastFailure("GetProcessTimes");
  // A process that has ended can still be opened for as long as anybody has a handle to it. Its exit code may be any number.
  DWORD code = 0;
  const bool has_code = GetExitCodeProcess(Native(process), &code) != 0;
  const bool ended = has_code && (code != STILL_ACTIVE || exited.dwLowDateTime != 0 || exited.dwHighDateTime != 0);
  identity.exists = !ended;
  ULARGE_INTEGER start;
  start.LowPart = created.dwLowDateTime;
  start.HighPart = created.dwHighDateTime;
  identity.start_time = static_cast<double>(start.QuadPart / kUnitsInMillisecond);
  return identity;
}

std::string DescribeCommand(ProcessId pid) noexcept {
  FileHandle process = OpenProcessFor(PROCESS_QUERY_LIMITED_INFORMATION, pid);
  if (!process) return "";
  static const auto query = Find<decltype(NtQueryInformationProcess)>(L"ntdll.dll", "NtQueryInformationProcess");
  ULONG size = 0;
  if (query == nullptr) return ImageOf(process);
  query(Native(process), kProcessCommandLineInformation, nullptr, 0, &size);
  if (size < sizeof(UNICODE_STRING)) return ImageOf(process);
  std::vector<char> memory(size);
  if (query(Native(process), kProcessCommandLineInformation, memory.data(), size, &size) < 0) return ImageOf(process);
  const auto* text = reinterpret_cast<const UNICODE_STRING*>(memory.data());
  if (text->Buffer == nullptr || text->Length == 0) return ImageOf(process);
  return Narrow(std::wstring(text->Buffer, text->Length / sizeof(wchar_t)));
}

// A start time counts from 1601, so that pid and start time alone tell a process from those of other boots.
HostIdentity IdentifyHost() noexcept { return HostIdentity{}; }

std::vector<LockEvidence> FindLockHolders(const std::vector<std::string>& paths, const std::vector<ProcessId>& hints,
                                          bool first_only) noexcept {
  std::vector<LockEvidence> evidence;
  for (const std::string& path : paths) evidence.push_back(FindHolders(path, hints, first_only));
  return evidence;
}

}  // namespace gateway_lock
