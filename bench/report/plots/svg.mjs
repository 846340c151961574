// From a Vega-Lite specification to an SVG that stands alone: own paper, own dark colours, title and description, no script.

import * as vega from "vega";
import { compile } from "vega-lite";
import { CONFIG, STYLE } from "./theme.mjs";

/** Without a canvas Vega takes every letter for as wide as 0.8 of the size; of the fonts in question none is that wide. */
const LETTER = 0.57;
vega.textMetrics.width = (item, text) => {
  const line = text ?? item.text;
  return line === undefined || line === null ? 0 : LETTER * (item.fontSize ?? 11) * String(line).length;
};

/** `body` is a view or a concatenation; the same input gives the same bytes. */
export async function drawSvg({ title, notes, description, body }) {
  const heading = {
    text: title,
    subtitle: notes,
    fontSize: 16,
    fontWeight: 700,
    anchor: "start",
    offset: 22,
    subtitlePadding: 6,
    frame: "bounds",
  };
  const { spec } = compile(
    { $schema: "https://vega.github.io/schema/vega-lite/v6.json", title: heading, config: CONFIG, ...body },
    { logger: vega.logger(vega.Error) },
  );
  vega.resetSVGDefIds();
  const view = new vega.View(vega.parse(spec), { renderer: "none", logLevel: vega.Error });
  try {
    return finished(await view.toSVG(), title, description);
  } finally {
    view.finalize();
  }
}

function finished(svg, title, description) {
  const head = `<title>${escaped(title)}</title><desc>${escaped(description)}</desc><style>${STYLE}</style>`;
  return `${svg.replace(/<svg [^>]*>/, (tag) => `${tag.replace(">", ' role="img">')}${head}`)}\n`;
}

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
