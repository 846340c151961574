// Digests of texts.

import { crypto } from "./builtins.ts";

/** The first `digits` hexadecimal digits of the SHA-256 of a text, in UTF-8. */
export function digest(text: string, digits: number): string {
  return crypto().createHash("sha256").update(text).digest("hex").slice(0, digits);
}
