// What people and programs read on standard output and standard error: nothing of it can command a terminal.

import { writeSync } from "node:fs";
import { isatty } from "node:tty";
import { styleText } from "node:util";
import { codeOf } from "../errors.ts";

/** Descriptors: Node's streams for them are only made where there is a terminal, because making them takes longer than all the rest of a `status`. */
export type Output = typeof STDOUT | typeof STDERR;
export const STDOUT = 1;
export const STDERR = 2;

export type Colour = "bold" | "dim" | "green" | "red" | "yellow";

/**
 * Control characters (C0, DEL, C1), what turns the direction of text or can't be seen, line and paragraph separators, and half
 * characters: a record, a command line or an answer may have them to look like something else, or to talk to the terminal.
 */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** One line that any terminal may show; what it may not is written as in JSON, `\u001b`. */
export function plain(text: string): string {
  return text.replace(UNPRINTABLE, (character) =>
    Array.from(
      { length: character.length },
      (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`,
    ).join(""),
  );
}

/** What stands beside a label, one line below the other. */
export interface Row {
  readonly label: string;
  readonly lines: readonly string[];
  readonly colour?: Colour;
}

/** Rows whose lines begin in one column. */
export function table(rows: readonly Row[]): string {
  const width = Math.max(0, ...rows.map(({ label }) => label.length)) + 2;
  return rows
    .flatMap(({ label, lines, colour = "dim" }) =>
      lines.map((line, index) =>
        index === 0
          ? paint(colour, label) + " ".repeat(width - label.length) + plain(line)
          : " ".repeat(width) + plain(line),
      ),
    )
    .join("\n");
}

/** Coloured, where `output` is a terminal that has colours, and nobody has said no (NO_COLOR, no-color.org). */
export function paint(colour: Colour, text: string, output: Output = STDOUT): string {
  // Without its own check of the stream, which differs from one Node to the next.
  return hasColours(output) ? styleText(colour, plain(text), { validateStream: false }) : plain(text);
}

function hasColours(output: Output): boolean {
  const { FORCE_COLOR, NO_COLOR, TERM } = process.env;
  if (FORCE_COLOR !== undefined) return FORCE_COLOR !== "0" && FORCE_COLOR !== "false";
  return isatty(output) && !NO_COLOR && TERM !== "dumb";
}

/** Resolves when it is written, or when nobody reads any more (`| head`). */
export async function print(text: string, output: Output = STDOUT): Promise<void> {
  const rest = isatty(output) ? Buffer.from(withEnd(text)) : writeAtOnce(output, Buffer.from(withEnd(text)));
  if (rest.length === 0) return;
  const stream = output === STDOUT ? process.stdout : process.stderr;
  await new Promise<void>((resolve, reject) => {
    const finish = (error?: Error | null) => {
      // Not before an error has been emitted, which comes after write()'s own callback and would end the process.
      setImmediate(() => stream.off("error", finish));
      if (error && codeOf(error) !== "EPIPE") reject(error);
      else resolve();
    };
    stream.once("error", finish).write(rest, finish);
  });
}

function withEnd(text: string): string {
  return text.endsWith("\n") ? text : `${text}\n`;
}

/** What is left, because somebody has made the pipe non-blocking and it is full. */
function writeAtOnce(output: Output, text: Buffer): Buffer {
  let rest = text;
  try {
    while (rest.length > 0) rest = rest.subarray(writeSync(output, rest));
  } catch (error) {
    if (codeOf(error) === "EPIPE") return Buffer.alloc(0);
    if (codeOf(error) !== "EAGAIN") throw error;
  }
  return rest;
}

/** One object, in one line. */
export async function printJson(value: object): Promise<void> {
  await print(plain(JSON.stringify(value)));
}

/** Progress, for whoever watches; no log is to be filled with it. */
export function watch(text: string): void {
  if (isatty(STDERR)) process.stderr.write(`${paint("dim", text, STDERR)}\n`);
}
