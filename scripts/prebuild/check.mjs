// Looks into a built binary for what would keep it from loading elsewhere, and for what it must not carry along.
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { readElf } from "./elf.mjs";
import { readMachO } from "./macho.mjs";
import { NODE_API } from "./node-api.mjs";
import { LIBSYSTEM, ROOT } from "./paths.mjs";
import { readPe } from "./pe.mjs";

const MAX_SIZE = 500_000;
const ENTRY = "napi_register_module_v1";
const EXPORTS = [ENTRY, "node_api_module_get_api_version_v1"];
const GLIBC = [
  "libc.so.6",
  "libdl.so.2",
  "libm.so.6",
  "libpthread.so.0",
  "ld-linux-x86-64.so.2",
  "ld-linux-aarch64.so.1",
];
const NEWEST_GLIBC = [2, 17];
const OLDEST_MACOS = "11.0";
const WINDOWS =
  /^(api-ms-win-crt-[a-z]+-l1-1-0|ucrtbase|msvcrt|kernel32|advapi32|ntdll|ws2_32|iphlpapi|rstrtmgr)\.dll$/i;
const MACOS_EXPORTS = [...EXPORTS, "_mh_dylib_header", "__dso_handle"]; // the latter two are the linker's own

// Returns what is wrong, a sentence each.
export function findFaults(bytes, target) {
  const faults = [];
  const must = (holds, fault) => holds || faults.push(fault);
  must(bytes.length < MAX_SIZE, `has ${bytes.length} bytes; allowed are less than ${MAX_SIZE}`);
  for (const path of [ROOT, homedir()]) {
    must(path === "/" || !bytes.includes(`${path}/`), `contains the path ${path}, which is this machine's alone`);
  }
  const facts = { linux: readElf, darwin: readMachO, win32: readPe }[target.platform](bytes);
  must(facts.arch === target.arch, `is for the processor ${facts.arch}`);
  must(facts.stripped, "is not stripped");
  must(facts.exports.includes(ENTRY), `does not export ${ENTRY}, so that Node cannot load it`);
  ({ linux: checkLinux, darwin: checkMacos, win32: checkWindows })[target.platform](facts, target, must);
  return faults;
}

function checkLinux({ libraries, imports, exports, ...facts }, { libc }, must) {
  for (const name of exports) must(EXPORTS.includes(name), `exports ${name} to the whole process`);
  for (const library of libraries) {
    must((libc === "musl" ? ["libc.so"] : GLIBC).includes(library), `needs ${library}, which a system may not have`);
  }
  for (const { name, version } of imports) {
    if (isNodeApi(name)) must(NODE_API.includes(name), `needs ${name}, which is not in the Node-API that it asks for`);
    else if (libc === "musl") must(version === undefined, `needs ${name}@${version}, of glibc`);
    else if (version === undefined) must(isOptional(name), `needs ${name} of no library`);
    else
      must(isOldGlibc(version), `needs ${name}@${version}, newer than glibc ${NEWEST_GLIBC.join(".")} or not of glibc`);
  }
  must(facts.neverUnloaded, "may be unloaded while a thread still runs in it (NODELETE)");
  must(!facts.writesToCode, "has relocations in its code (TEXTREL)");
  must(facts.searchPaths.length === 0, `looks for libraries in ${facts.searchPaths}`);
}

const isNodeApi = (name) => /^(napi|node_api)_/.test(name);
// What crt files of every compiler ask for if it is there.
const isOptional = (name) =>
  /^(__gmon_start__|_ITM_|__cxa_finalize$|__deregister_frame_info|__register_frame_info)/.test(name);

function isOldGlibc(version) {
  const [, major, minor = 0] = /^GLIBC_(\d+)\.(\d+)/.exec(version) ?? [];
  return major !== undefined && Number(major) === NEWEST_GLIBC[0] && Number(minor) <= NEWEST_GLIBC[1];
}

function checkMacos({ libraries, imports, exports, ...facts }, { arch }, must) {
  for (const name of exports) {
    must(MACOS_EXPORTS.includes(name), `exports ${name} to the whole process`);
  }
  for (const library of libraries) must(library === "/usr/lib/libSystem.B.dylib", `needs ${library}`);
  const known = new Set(readFileSync(LIBSYSTEM, "utf8").match(/[\w$.]+/g));
  for (const { name, library } of imports) {
    if (isNodeApi(name)) must(NODE_API.includes(name), `needs ${name}, which is not in the Node-API that it asks for`);
    else
      must(
        library !== undefined && (known.has(`_${name}`) || known.has(name)),
        `needs ${name}, which is not in libSystem`,
      );
  }
  must(facts.oldestSystem === OLDEST_MACOS, `is for macOS ${facts.oldestSystem} and later, not ${OLDEST_MACOS}`);
  must(facts.installName === "@rpath/gateway-lock.node", `calls itself ${facts.installName}`);
  must(facts.searchPaths.length === 0, `looks for libraries in ${facts.searchPaths}`);
  must(
    facts.signed || arch === "x64",
    "carries no valid signature, without which an Apple silicon Mac kills the process",
  );
}

function checkWindows({ libraries, exports, ...facts }, _target, must) {
  for (const name of exports) must(EXPORTS.includes(name), `exports ${name}`);
  for (const library of libraries) must(WINDOWS.test(library), `needs ${library}, which a system may not have`);
  must(!facts.delayed, "loads a library by delay, which is not looked into");
  must(facts.hardened, "is not linked for data execution prevention and a random address");
}
