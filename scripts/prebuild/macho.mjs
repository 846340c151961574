// Reads what macOS would load from a Mach-O file of 64 bits, and checks its signature's hashes.
import { createHash } from "node:crypto";

const LC = {
  SYMTAB: 2,
  LOAD_DYLIB: 0xc,
  ID_DYLIB: 0xd,
  SEGMENT: 0x19,
  SIGNATURE: 0x1d,
  BUILD: 0x32,
  RPATH: 0x8000001c,
};
const CPUS = { 16777223: "x64", 16777228: "arm64" };
const N_STAB = 0xe0;
const N_TYPE = 0x0e;
const N_EXT = 0x01;
const DYNAMIC_LOOKUP = 0xfe;

export function readMachO(bytes) {
  if (bytes.readUInt32LE(0) !== 0xfeedfacf) throw new Error("no 64-bit Mach-O file");
  const commands = readCommands(bytes);
  const all = (type) => commands.filter(({ command }) => command === type).map(({ at }) => at);
  const text = (at) => string(bytes, at + bytes.readUInt32LE(at + 8));
  const [build] = all(LC.BUILD);
  const libraries = all(LC.LOAD_DYLIB).map(text);
  const symbols = readSymbols(bytes, all(LC.SYMTAB)[0], libraries);
  const [signature] = all(LC.SIGNATURE);
  return {
    arch: CPUS[bytes.readUInt32LE(4)],
    stripped: !symbols.some(isForDebugging) && !readSegments(bytes, all(LC.SEGMENT)).has("__DWARF"),
    oldestSystem: build && `${bytes.readUInt16LE(build + 14)}.${bytes[build + 13]}`,
    installName: all(LC.ID_DYLIB).map(text)[0],
    searchPaths: all(LC.RPATH).map(text),
    signed: signature !== undefined && isSigned(bytes, bytes.readUInt32LE(signature + 8)),
    libraries,
    imports: symbols.filter(({ defined }) => !defined),
    exports: symbols.filter(({ defined, local, debug }) => defined && !local && !debug).map(({ name }) => name),
  };
}

// Debug entries would carry the paths of the sources. zig's linker names its own thunks after it has dropped all locals.
const isForDebugging = ({ name, debug, local }) => debug || (local && !name.endsWith("__thunk"));

function readCommands(bytes) {
  const commands = [];
  let at = 32;
  for (let count = bytes.readUInt32LE(16); count > 0; count--) {
    commands.push({ command: bytes.readUInt32LE(at), at });
    at += bytes.readUInt32LE(at + 4);
  }
  return commands;
}

const readSegments = (bytes, segments) => new Set(segments.map((at) => string(bytes, at + 8)));

function readSymbols(bytes, at, libraries) {
  const [table, count, strings] = [8, 12, 16].map((field) => bytes.readUInt32LE(at + field));
  return Array.from({ length: count }, (_, index) => {
    const entry = table + index * 16;
    const type = bytes[entry + 4];
    const ordinal = bytes.readUInt16LE(entry + 6) >> 8;
    return {
      // C puts an underscore before each name.
      name: string(bytes, strings + bytes.readUInt32LE(entry)).replace(/^_/, ""),
      debug: (type & N_STAB) !== 0,
      local: (type & N_EXT) === 0,
      defined: (type & N_TYPE) !== 0,
      library: ordinal === DYNAMIC_LOOKUP ? undefined : libraries[ordinal - 1],
    };
  });
}

// An Apple silicon Mac kills a process that loads a page whose hash is not in the code directory.
function isSigned(bytes, at) {
  const directories = Array.from({ length: bytes.readUInt32BE(at + 8) }, (_, index) => {
    return at + bytes.readUInt32BE(at + 16 + index * 8);
  }).filter((blob) => bytes.readUInt32BE(blob) === 0xfade0c02);
  const [directory] = directories;
  if (directory === undefined || bytes[directory + 37] !== 2) return false;
  const [hashes, , , slots, limit] = [16, 20, 24, 28, 32].map((field) => bytes.readUInt32BE(directory + field));
  const pageSize = 1 << bytes[directory + 39];
  if (limit !== at || slots !== Math.ceil(limit / pageSize)) return false;
  return Array.from({ length: slots }, (_, page) => page).every((page) => {
    const content = bytes.subarray(page * pageSize, Math.min((page + 1) * pageSize, limit));
    const hash = directory + hashes + page * 32;
    return createHash("sha256")
      .update(content)
      .digest()
      .equals(bytes.subarray(hash, hash + 32));
  });
}

const string = (bytes, at) => bytes.toString("latin1", at, bytes.indexOf(0, at));
