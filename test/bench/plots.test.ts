// Proves that the plots stand alone, follow the reader's scheme, are the same for the same figures, and cut or cover no text.

import { describe, expect } from "vitest";
import { plots } from "../../bench/report/plots.mjs";
import { hasBenchModules, measurementIn, type Results, someResults } from "../support/bench-results.ts";
import { itWhere } from "../support/capabilities.ts";

const it = itWhere(hasBenchModules, "bench/node_modules is not installed: npm run bench -- --help", { of: "runtime" });

interface Plot {
  scenario: string;
  file: string;
  title: string;
  svg: string;
}

interface Text {
  text: string;
  left: number;
  right: number;
  top: number;
  bottom: number;
}

const LARGEST = 150_000;
/** Wider than the letters of the usual fonts are on average. */
const LETTER = 0.56;

async function drawn(results: Results = someResults()): Promise<Plot[]> {
  return (await plots(results)) as Plot[];
}

async function svgOf(file: string, results?: Results): Promise<string> {
  return (await drawn(results)).find((plot) => plot.file === file)?.svg ?? "";
}

describe("each plot", () => {
  it("is there for its scenario, and only if that is", async () => {
    const names = (await drawn()).map(({ file }) => file);
    expect(names).toEqual(
      "uncontended refusal contention contention-fairness handoff failover restart scale weight"
        .split(" ")
        .map((name) => `${name}.svg`),
    );
    const { handoff } = someResults() as Required<Results>;
    expect((await drawn({ handoff } as Results)).map(({ file }) => file)).toEqual(["handoff.svg"]);
    expect(await drawn({})).toEqual([]);
  });

  it("is the same for the same figures", async () => {
    expect(await drawn()).toEqual(await drawn());
  });

  it("stands alone, is small, and has title and description", async () => {
    for (const { svg, title } of await drawn()) {
      expect(svg.length).toBeLessThan(LARGEST);
      expect(svg).not.toMatch(/<script|href=|url\(|@import|NaN|undefined|Infinity/);
      expect(svg).toMatch(
        /^<svg [^>]*viewBox="0 0 \d+ \d+"[^>]* role="img"><title>[^<]+<\/title><desc>[^<]+<\/desc><style>/,
      );
      expect(svg).toContain(`<title>${title}</title>`);
    }
  });

  it("has a dark colour for every light one", async () => {
    for (const { svg } of await drawn()) {
      const marks = svg.slice(svg.indexOf("</style>"));
      const colours = new Set([...marks.matchAll(/(?:fill|stroke)="(#[0-9a-f]+|[a-z]+)"/g)].map(([pair]) => pair));
      for (const pair of colours) {
        if (!/"(none|transparent)"/.test(pair)) expect(svg).toContain(`[${pair}]{`);
      }
    }
  });

  for (const [what, results] of [
    ["a full run", someResults()],
    ["a quick run", someResults("quick")],
    ["one number of processes", onlyTwoProcesses()],
  ] as const) {
    it(`cuts no text, and covers none by another: ${what}`, async () => {
      for (const { file, svg } of await drawn(results)) {
        const [, width, height] = /viewBox="0 0 (\d+) (\d+)"/.exec(svg) ?? [];
        const texts = textsIn(svg);
        expect(texts.length).toBeGreaterThan(5);
        for (const text of texts) {
          const isInside =
            text.left >= 0 && text.right <= Number(width) && text.top >= 0 && text.bottom <= Number(height);
          expect(isInside, `${file}: ${JSON.stringify(text)} in ${width}×${height}`).toBe(true);
          const covered = texts.filter((other) => other.text !== text.text && overlap(text, other));
          expect(covered, `${file}: ${text.text}`).toEqual([]);
        }
      }
    });
  }
});

it("shows what is missing as a dash with its reason, and draws nothing for it", async () => {
  const results = someResults();
  const before = await svgOf("failover.svg", results);
  expect(before).toContain("– it can't wait for a lock");
  const peer = measurementIn(results, "failover", "SIGKILL to HTTP answer", "failover", "lockfile");
  delete peer.median;
  peer.missing = "it was not installed";
  const after = await svgOf("failover.svg", results);
  expect(after).toContain("– it was not installed");
  expect(pointsIn(after)).toBe(pointsIn(before) - 1);
});

it("names below the title of lines who has none", async () => {
  expect(await svgOf("contention.svg")).toContain("– os-lock: it can't wait for a lock");
});

it("draws zero at the beginning of a log axis, and writes it as zero", async () => {
  const results = someResults();
  const blocked = measurementIn(results, "restart", "clients connected", "blocked", "gateway-lock");
  Object.assign(blocked, { median: 0, p25: 0, p99: 0 });
  const svg = await svgOf("restart.svg", results);
  expect(svg).toContain(">0 µs<");
  expect(svg).toContain(">100 ms<");
  expect(svg).not.toMatch(/NaN|Infinity/);
});

it("says of a quick run that its figures are rough", async () => {
  expect(await svgOf("handoff.svg", someResults("quick"))).toContain("quick run: rough figures");
  expect(await svgOf("handoff.svg")).not.toContain("rough");
});

function onlyTwoProcesses(): Results {
  const results = someResults();
  const { contention } = results;
  if (contention) contention.measurements = contention.measurements.filter((one) => one.case.startsWith("2 "));
  return results;
}

function pointsIn(svg: string): number {
  return svg.match(/<path aria-label="[^"]*"|<path [^>]*d="M[^"]*A/g)?.length ?? 0;
}

/** Where each text is: groups are moved by those around them. */
function textsIn(svg: string): Text[] {
  const around: [number, number][] = [[0, 0]];
  const texts: Text[] = [];
  for (const [tag, text = ""] of svg.matchAll(/<\/g>|<g\b[^>]*>|<text\b[^>]*>([^<]*|<tspan.*?)<\/text>/g)) {
    const [outerX, outerY] = around.at(-1) ?? [0, 0];
    if (tag === "</g>") {
      around.pop();
      continue;
    }
    const [, x = "0", y = "0"] = /transform="translate\(([-\d.]+),([-\d.]+)\)/.exec(tag) ?? [];
    const [atX, atY] = [outerX + Number(x), outerY + Number(y)];
    if (tag.startsWith("<g")) {
      if (!tag.endsWith("/>")) around.push([atX, atY]);
      continue;
    }
    texts.push(...boxesOf(tag, text, atX, atY));
  }
  return texts;
}

function boxesOf(tag: string, content: string, x: number, y: number): Text[] {
  const size = Number(/font-size="([\d.]+)px"/.exec(tag)?.[1] ?? 11);
  const anchor = /text-anchor="(\w+)"/.exec(tag)?.[1] ?? "start";
  const lines = content.startsWith("<tspan")
    ? [...content.matchAll(/>([^<]+)</g)].map(([, line = ""]) => line)
    : [content];
  return lines.map((text, index) => {
    const width = text.length * size * LETTER;
    const left = x - (anchor === "end" ? width : anchor === "middle" ? width / 2 : 0);
    const bottom = y + index * size * 1.2;
    return { text, left, right: left + width, top: bottom - size * 0.75, bottom };
  });
}

function overlap(a: Text, b: Text): boolean {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}
