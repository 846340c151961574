#include "../filesystem.h"

#include <windows.h>

#include "errors.h"
#include "wide.h"

namespace gateway_lock {

// By the volume, because a drive letter or a folder may stand for another host's share.
Result<Filesystem> DescribeFilesystem(const std::string& directory) noexcept {
  const std::wstring path = NativePath(directory);
  std::wstring volume(path.size() + 2, L'\0');  // a prefix of the path, and a backslash
  if (!GetVolumePathNameW(path.c_str(), volume.data(), static_cast<DWORD>(volume.size()))) {
    return LastFailure("GetVolumePathNameW");
  }
  const UINT drive = GetDriveTypeW(volume.c_str());
  Filesystem filesystem;
  // One whose kind can't be told is none that is known to be local.
  filesystem.remote =
      drive == DRIVE_REMOTE || drive == DRIVE_UNKNOWN || drive == DRIVE_NO_ROOT_DIR ? Verdict::kYes : Verdict::kNo;
  wchar_t type[MAX_PATH + 1];
  if (GetVolumeInformationW(volume.c_str(), nullptr, 0, nullptr, nullptr, nullptr, type, MAX_PATH + 1)) {
    filesystem.type = Narrow(type);
  } else {
    filesystem.type = "unknown";
  }
  return filesystem;
}

}  // namespace gateway_lock
