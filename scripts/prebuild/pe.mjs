// Reads what Windows would load from a PE file of 64 bits.

const MACHINES = { 34404: "x64", 43620: "arm64" };
const DIRECTORY = { EXPORT: 0, IMPORT: 1, DEBUG: 6, DELAYED: 13 };
const NX_AND_DYNAMIC_BASE = 0x140;
// Says only that the linker was asked to be reproducible.
const DEBUG_REPRO = 16;

export function readPe(bytes) {
  const header = bytes.readUInt32LE(0x3c);
  const optional = header + 24;
  if (bytes.toString("latin1", header, header + 4) !== "PE\0\0" || bytes.readUInt16LE(optional) !== 0x20b) {
    throw new Error("no 64-bit PE file");
  }
  const sections = readSections(bytes, header);
  const offset = (address) => {
    const section = sections.find((one) => address >= one.address && address < one.address + one.size);
    return address - section.address + section.offset;
  };
  const directory = (index) => {
    const at = optional + 112 + index * 8;
    return { address: bytes.readUInt32LE(at), size: bytes.readUInt32LE(at + 4) };
  };
  const text = (address) => string(bytes, offset(address));
  const debug = directory(DIRECTORY.DEBUG);
  const debugTypes = Array.from({ length: debug.size / 28 }, (_, index) => {
    return bytes.readUInt32LE(offset(debug.address) + index * 28 + 12);
  });
  return {
    arch: MACHINES[bytes.readUInt16LE(header + 4)],
    stripped:
      bytes.readUInt32LE(header + 16) === 0 &&
      debugTypes.every((type) => type === DEBUG_REPRO) &&
      !sections.some(({ name }) => name.startsWith("/") || name.startsWith(".debug")),
    hardened: (bytes.readUInt16LE(optional + 70) & NX_AND_DYNAMIC_BASE) === NX_AND_DYNAMIC_BASE,
    delayed: directory(DIRECTORY.DELAYED).size > 0,
    libraries: readImports(bytes, offset(directory(DIRECTORY.IMPORT).address), text),
    exports: readExports(bytes, offset(directory(DIRECTORY.EXPORT).address), offset, text),
  };
}

function readSections(bytes, header) {
  const start = header + 24 + bytes.readUInt16LE(header + 20);
  return Array.from({ length: bytes.readUInt16LE(header + 6) }, (_, index) => {
    const at = start + index * 40;
    return {
      name: string(bytes.subarray(at, at + 8), 0),
      size: bytes.readUInt32LE(at + 8),
      address: bytes.readUInt32LE(at + 12),
      offset: bytes.readUInt32LE(at + 20),
    };
  });
}

function readImports(bytes, table, text) {
  const libraries = [];
  for (let at = table; bytes.readUInt32LE(at + 12) !== 0; at += 20) libraries.push(text(bytes.readUInt32LE(at + 12)));
  return libraries;
}

function readExports(bytes, table, offset, text) {
  const names = offset(bytes.readUInt32LE(table + 32));
  return Array.from({ length: bytes.readUInt32LE(table + 24) }, (_, index) =>
    text(bytes.readUInt32LE(names + index * 4)),
  );
}

function string(bytes, at) {
  const end = bytes.indexOf(0, at);
  return bytes.toString("latin1", at, end === -1 ? bytes.length : end);
}
