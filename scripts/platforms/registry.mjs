// A registry on the loopback with the package as it would be published, and its one dependency: npm treats what comes
// from a registry unlike a tarball, whose `prepare` it counts as an install script.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

/** `packages`: what each package.json says, and the path of its tarball. */
export async function serveRegistry(packages) {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const [, name, isTarball] = /^\/([a-z-]+)(\.tgz)?$/.exec(pathname) ?? [];
    const found = packages.find(({ manifest }) => manifest.name === name);
    if (found === undefined) return response.writeHead(404).end();
    const { manifest, tarball } = found;
    const bytes = readFileSync(tarball);
    if (isTarball) return response.end(bytes);
    const integrity = `sha512-${createHash("sha512").update(bytes).digest("base64")}`;
    const dist = { tarball: `${address()}/${name}.tgz`, integrity };
    const versions = { [manifest.version]: { ...manifest, dist } };
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ name, "dist-tags": { latest: manifest.version }, versions }));
  });
  const address = () => `http://127.0.0.1:${server.address().port}`;
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: address(), close: () => new Promise((resolve) => server.close(resolve).closeAllConnections()) };
}
