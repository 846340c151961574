// Writes what Windows' linker would take from node.lib: Node-API, found in whatever program has loaded the addon.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { NODE_API } from "./node-api.mjs";

// An import table names its program: NODE.EXE. Electron, a single executable application and a renamed node.exe are
// not called that, which is why node-gyp links by delay and a hook. zig has no delay-loading; but a call to a function
// that is declared dllimport goes through the pointer __imp_<function>, and we may be the one who sets it.
const SOURCE = `#include <stdlib.h>
#include <windows.h>

extern "C" {
${NODE_API.map((name) => `void* __imp_${name};`).join("\n")}
}

namespace {

struct Import {
  const char* name;
  void** pointer;
};

const Import kImports[] = {
${NODE_API.map((name) => `    {"${name}", &__imp_${name}},`).join("\n")}
};

}  // namespace

// Node built as a library has it in libnode.dll, every other one in the program itself. What neither has ends the
// process when it is called.
extern "C" BOOL WINAPI DllMain(HINSTANCE, DWORD reason, LPVOID) {
  if (reason != DLL_PROCESS_ATTACH) return TRUE;
  HMODULE host = GetModuleHandleW(L"libnode.dll");
  if (host == nullptr) host = GetModuleHandleW(nullptr);
  for (const Import& import : kImports) {
    void* found = reinterpret_cast<void*>(GetProcAddress(host, import.name));
    *import.pointer = found != nullptr ? found : reinterpret_cast<void*>(&abort);
  }
  return TRUE;
}
`;

export function writeHostImports(directory) {
  const file = join(directory, "host_imports.cc");
  writeFileSync(file, SOURCE);
  return file;
}
