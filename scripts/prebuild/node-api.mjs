// The functions of Node-API that the addon may call: those of the version that native/addon.gypi names.
import { createRequire } from "node:module";
import { readGyp } from "./gyp.mjs";

const { symbols } = createRequire(import.meta.url)("node-api-headers");
const { compile } = readGyp({ platform: "linux" });
const version = compile.find((flag) => flag.startsWith("-DNAPI_VERSION="))?.split("=")[1];
const { js_native_api_symbols, node_api_symbols } = symbols[`v${version}`];

export const NODE_API = [...js_native_api_symbols, ...node_api_symbols].sort();
