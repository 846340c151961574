// Digests of texts.

import { crypto } from "./builtins.ts";

/** The first `digits` hexadecimal digits of the SHA-256 of a text, in UTF-8. */
export function digest(text: string, digits: number): string {
  const { hash, createHash } = crypto();
  // `hash` takes half as long, and not every runtime has it.
  const all = hash === undefined ? createHash("sha256").update(text).digest("hex") : hash("sha256", text, "hex");
  return all.slice(0, digits);
}
