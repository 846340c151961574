// Reads what Linux would load from an ELF file of 64 bits.

const SHT = { SYMTAB: 2, DYNAMIC: 6, DYNSYM: 11, VERNEED: 0x6ffffffe, VERSYM: 0x6fffffff };
const DT = { NEEDED: 1, RPATH: 15, TEXTREL: 22, RUNPATH: 29, FLAGS_1: 0x6ffffffb };
const MACHINES = { 62: "x64", 183: "arm64" };

export function readElf(bytes) {
  if (bytes.readUInt32BE(0) !== 0x7f454c46 || bytes[4] !== 2 || bytes[5] !== 1) throw new Error("no 64-bit ELF file");
  const sections = readSections(bytes);
  const find = (type) => sections.find((section) => section.type === type);
  const dynamic = find(SHT.DYNAMIC);
  const entries = rows(dynamic, 16).map((at) => [
    Number(bytes.readBigUInt64LE(at)),
    Number(bytes.readBigUInt64LE(at + 8)),
  ]);
  const strings = sections[dynamic.link].offset;
  const values = (tag) => entries.filter(([key]) => key === tag).map(([, value]) => value);
  const symbols = readSymbols(bytes, find(SHT.DYNSYM), sections, readVersions(bytes, sections));
  return {
    arch: MACHINES[bytes.readUInt16LE(18)],
    stripped: find(SHT.SYMTAB) === undefined && !sections.some(({ name }) => name.startsWith(".debug")),
    libraries: values(DT.NEEDED).map((value) => string(bytes, strings + value)),
    searchPaths: [...values(DT.RPATH), ...values(DT.RUNPATH)].map((value) => string(bytes, strings + value)),
    neverUnloaded: values(DT.FLAGS_1).some((flags) => (flags & 8) !== 0),
    writesToCode: values(DT.TEXTREL).length > 0,
    imports: symbols.filter(({ defined }) => !defined),
    exports: symbols.filter(({ defined }) => defined).map(({ name }) => name),
  };
}

function readSections(bytes) {
  const start = Number(bytes.readBigUInt64LE(0x28));
  const count = bytes.readUInt16LE(0x3c);
  const sections = Array.from({ length: count }, (_, index) => {
    const at = start + index * 64;
    return {
      nameAt: bytes.readUInt32LE(at),
      type: bytes.readUInt32LE(at + 4),
      offset: Number(bytes.readBigUInt64LE(at + 24)),
      size: Number(bytes.readBigUInt64LE(at + 32)),
      link: bytes.readUInt32LE(at + 40),
      info: bytes.readUInt32LE(at + 44),
    };
  });
  const names = sections[bytes.readUInt16LE(0x3e)].offset;
  return sections.map((section) => ({ ...section, name: string(bytes, names + section.nameAt) }));
}

function readSymbols(bytes, table, sections, versions) {
  const names = sections[table.link].offset;
  const versionOf = sections.find(({ type }) => type === SHT.VERSYM);
  const all = rows(table, 24).map((at, index) => ({
    name: string(bytes, names + bytes.readUInt32LE(at)),
    defined: bytes.readUInt16LE(at + 6) !== 0,
    version: versionOf && versions.get(bytes.readUInt16LE(versionOf.offset + index * 2) & 0x7fff),
  }));
  return all.filter(({ name }) => name !== "");
}

function readVersions(bytes, sections) {
  const versions = new Map();
  const table = sections.find(({ type }) => type === SHT.VERNEED);
  if (table === undefined) return versions;
  const names = sections[table.link].offset;
  let need = table.offset;
  for (let library = 0; library < table.info; library++) {
    let at = need + bytes.readUInt32LE(need + 8);
    for (let count = bytes.readUInt16LE(need + 2); count > 0; count--) {
      versions.set(bytes.readUInt16LE(at + 6), string(bytes, names + bytes.readUInt32LE(at + 8)));
      at += bytes.readUInt32LE(at + 12);
    }
    need += bytes.readUInt32LE(need + 12);
  }
  return versions;
}

const rows = ({ offset, size }, length) => Array.from({ length: size / length }, (_, index) => offset + index * length);
const string = (bytes, at) => bytes.toString("latin1", at, bytes.indexOf(0, at));
