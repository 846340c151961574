// The templates of examples/: each is read by what reads it in real life, or by what knows its rules.

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { canUnshareNet, hasPython, itWhere } from "./support/capabilities.ts";
import { TestProcess } from "./support/processes.ts";
import { freePort, temporaryDirectory } from "./support/temporary.ts";
import { Tools } from "./support/tools.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const path = (name: string) => join(root, "examples", name);
const read = (name: string) => readFileSync(path(name), "utf8");
/** What examples/supervised.mjs is told by. */
const SETTINGS = [
  "STATE_DIRECTORY",
  "GATEWAY_HOST",
  "GATEWAY_PORT",
  "GATEWAY_ON_DUPLICATE",
  "GATEWAY_DUPLICATE_EXIT_CODE",
  "GATEWAY_RETRY_LIMIT",
];

// biome-ignore lint/suspicious/noExplicitAny: what a file has is seen by the expectations
type Parsed = any;

const tools = await Tools.install();
const itWithTools = itWhere(tools instanceof Tools, String(tools));
const itWithPython = itWhere(hasPython, "needs python3");

function installed(): Tools {
  if (tools instanceof Tools) return tools;
  throw new Error(tools);
}

/** What Python makes of a file, by `expression` over its `path`. */
function byPython(expression: string, path: string): Parsed {
  const script = `import json, plistlib, sys, xml.etree.ElementTree as xml\npath = sys.argv[1]\nprint(json.dumps(${expression}))`;
  const { stdout, stderr } = spawnSync("python3", ["-c", script, path], { encoding: "utf8" });
  expect(stderr).toBe("");
  return JSON.parse(stdout);
}

it("supervised.mjs is told by the settings that the templates use, and by no others", () => {
  const used = [...read("supervised.mjs").matchAll(/\benv\.(\w+)/g)].map(([, name]) => name);
  expect(new Set(used)).toEqual(new Set(SETTINGS));
  const templates = readdirSync(join(root, "examples"), { recursive: true, withFileTypes: true }).filter(
    (entry) => entry.isFile() && entry.parentPath !== join(root, "examples"),
  );
  expect(templates.map(({ name }) => name).sort()).toEqual([
    "Dockerfile",
    "ecosystem.config.cjs",
    "gateway-task.xml",
    "gateway.service",
    "gateway.socket",
    "gateway.yaml",
    "org.example.gateway-standby.plist",
    "org.example.gateway.plist",
    "program.service",
  ]);
  const named = templates.flatMap(({ parentPath, name }) =>
    [...readFileSync(join(parentPath, name), "utf8").matchAll(/\b(STATE_DIRECTORY|GATEWAY_(?!LOCK)[A-Z_]+)\b/g)].map(
      ([match]) => match,
    ),
  );
  expect(SETTINGS).toEqual(expect.arrayContaining([...new Set(named)]));
});

it("supervised.mjs gives up on an owner that hangs, and says who that is, what it answered and how to see more", async () => {
  const [stateDir, port] = [temporaryDirectory(), String(await freePort())];
  const env = { ...process.env, STATE_DIRECTORY: stateDir, GATEWAY_PORT: port, GATEWAY_LOCK_SUPERVISOR: "systemd" };
  const owner = new TestProcess(process.execPath, [path("supervised.mjs")], { env });
  await owner.next("text");
  owner.child.kill("SIGSTOP");

  const { status, stderr } = spawnSync(process.execPath, [path("supervised.mjs")], {
    env: { ...env, GATEWAY_RETRY_LIMIT: "0" },
    encoding: "utf8",
  });

  expect(status).toBe(78);
  const [first, second, ...more] = stderr.trimEnd().split("\n");
  expect(first).toMatch(/^gateway: .* did not become healthy after 0ms$/);
  expect(second).toContain(`  pid ${owner.pid} owns http://127.0.0.1:${port} (connected, but no answer within 1000ms`);
  expect(second).toContain(`: gateway-lock status --state-dir ${stateDir}`);
  expect(more).toEqual([]);
});

describe("systemd", () => {
  const analyze = (...args: string[]) => spawnSync("systemd-analyze", args, { encoding: "utf8" });
  const itAnalyzed = itWhere(analyze("--version").status === 0, "needs systemd-analyze");

  itAnalyzed("systemd has nothing to say against the services and the socket", () => {
    const folder = temporaryDirectory();
    const units = ["gateway.service", "gateway.socket", "program.service"];
    for (const unit of units) {
      // It looks whether the programs are there.
      const text = read(`systemd/${unit}`).replace(/\/usr\/bin\/(node|gateway-lock)/, process.execPath);
      writeFileSync(join(folder, unit), text);
    }

    const { status, stdout, stderr } = analyze("verify", "--man=no", ...units.map((unit) => join(folder, unit)));

    expect(`${stdout}${stderr}`).toBe("");
    expect(status).toBe(0);
  });

  itAnalyzed("the service can do little beside its work: an exposure of less than 2 of 10", () => {
    const { status, stdout } = analyze("security", "--offline=yes", "--threshold=20", path("systemd/gateway.service"));
    console.log(stdout.trim().split("\n").at(-1));
    expect(status).toBe(0);
  });

  it("the socket is the address that the program asks for", () => {
    expect(read("systemd/gateway.socket")).toContain("\nListenStream=127.0.0.1:18789\n");
    expect(read("supervised.mjs")).toMatch(/"127\.0\.0\.1",\n.*18789/);
  });
});

describe("launchd", () => {
  /** Those of launchd.plist(5) that we use; a misspelt one would be ignored. */
  const KEYS = [
    "Label",
    "ProgramArguments",
    "WorkingDirectory",
    "EnvironmentVariables",
    "RunAtLoad",
    "KeepAlive",
    "ExitTimeOut",
    "StandardOutPath",
    "StandardErrorPath",
  ];
  const parse = (name: string) => byPython("plistlib.load(open(path, 'rb'))", path(`launchd/${name}`));

  itWithPython("one starts again what did not succeed, the other everything, and lets it wait", () => {
    const leaving = parse("org.example.gateway.plist");
    const standby = parse("org.example.gateway-standby.plist");
    expect(Object.keys(leaving)).toEqual(KEYS);
    expect(leaving).toMatchObject({
      Label: "org.example.gateway",
      RunAtLoad: true,
      KeepAlive: { SuccessfulExit: false },
    });
    expect(leaving.ProgramArguments).toEqual([
      expect.stringMatching(/^\/.*node$/),
      expect.stringMatching(/^\/.*\/supervised\.mjs$/),
    ]);
    const { STATE_DIRECTORY } = leaving.EnvironmentVariables;
    expect(standby).toEqual({
      ...leaving,
      Label: "org.example.gateway-standby",
      EnvironmentVariables: { STATE_DIRECTORY, GATEWAY_ON_DUPLICATE: "standby" },
      KeepAlive: true,
    });
  });
});

describe("a Windows task", () => {
  const NAMESPACE = "{http://schemas.microsoft.com/windows/2004/02/mit/task}";

  itWithPython(
    "is a task by Microsoft's schema, starts every minute unless it runs, and says who starts the gateway",
    () => {
      const elements: [string, string | null][] = byPython(
        "[(e.tag, e.text) for e in xml.parse(path).iter()]",
        path("windows/gateway-task.xml"),
      );
      expect(elements.filter(([tag]) => !tag.startsWith(NAMESPACE))).toEqual([]);
      const text = new Map(elements.map(([tag, text]) => [tag.slice(NAMESPACE.length), text?.trim() ?? ""]));
      expect([...text.keys()]).toEqual(
        expect.arrayContaining(["Task", "Triggers", "Principals", "Settings", "Actions"]),
      );
      expect(Object.fromEntries(text)).toMatchObject({
        Interval: "PT1M",
        MultipleInstancesPolicy: "IgnoreNew",
        ExecutionTimeLimit: "PT0S",
        Command: "%SystemRoot%\\System32\\cmd.exe",
      });
      // With /s, cmd takes off the first quote and the last one, and leaves the others alone.
      const [, line = ""] = /^\/d \/s \/c "(.*)"$/.exec(text.get("Arguments") ?? "") ?? [];
      const [supervisor, stateDirectory, start] = line.split(" && ");
      expect(supervisor).toBe('set "GATEWAY_LOCK_SUPERVISOR=schtasks"');
      expect(stateDirectory).toMatch(/^set "STATE_DIRECTORY=.*"$/);
      expect(start).toMatch(/^".*\\node\.exe" supervised\.mjs$/);
    },
  );
});

/** A health check of a container tells a gateway that is well from one that hangs, or is gone. */
async function expectToTell([program, ...args]: string[]): Promise<void> {
  const { bin } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  expect(program).toBe("node_modules/.bin/gateway-lock");
  const cli = join(root, bin["gateway-lock"]);
  const [stateDir, port] = [temporaryDirectory(), await freePort()];
  const here = args.map((arg) => arg.replace("18789", String(port)).replace(/^\/var\/lib\/gateway.*/, stateDir));
  const check = () => spawnSync(process.execPath, [cli, ...here], { encoding: "utf8" });
  const settings = { STATE_DIRECTORY: stateDir, GATEWAY_HOST: "0.0.0.0", GATEWAY_PORT: String(port) };
  const gateway = new TestProcess(process.execPath, [path("supervised.mjs")], { env: { ...process.env, ...settings } });
  await gateway.next("text");

  expect(check()).toMatchObject({ status: 0, stderr: "" });
  gateway.child.kill("SIGSTOP");
  expect(check()).toMatchObject({ status: 1, stderr: "" });
  await gateway.kill();
  expect(check()).toMatchObject({ status: 1, stderr: "" });
}

describe("Docker", () => {
  itWithTools("a linter has nothing to say against the Dockerfile", async () => {
    const { validate } = await installed().module("dockerfile-utils/lib/main.js");
    expect(validate(read("docker/Dockerfile"))).toEqual([]);
  });

  it("the HEALTHCHECK tells a gateway that is well from others", async () => {
    const [, command = ""] = /^HEALTHCHECK .*\\\n +CMD (\[.*\])$/m.exec(read("docker/Dockerfile")) ?? [];
    await expectToTell(JSON.parse(command));
  });
});

describe("Kubernetes", () => {
  /** The paths of what nobody looked at: the validators of kubernetes-models let names pass that they do not know. */
  function watched(value: Parsed, unseen: Set<string>, path = ""): Parsed {
    if (typeof value !== "object" || value === null) return value;
    for (const key of Object.keys(value)) unseen.add(`${path}/${key}`);
    return new Proxy(value, {
      get: (target, key) => {
        unseen.delete(`${path}/${String(key)}`);
        return typeof key === "string" && Object.hasOwn(target, key)
          ? watched(target[key], unseen, `${path}/${key}`)
          : target[key];
      },
    });
  }

  async function documents(): Promise<Parsed[]> {
    const { parseAllDocuments } = (await installed().module("yaml/dist/index.js")).default;
    return parseAllDocuments(read("kubernetes/gateway.yaml")).map((document: Parsed) => {
      expect(document.errors).toEqual([]);
      return document.toJS();
    });
  }

  itWithTools(
    "the manifest is valid by the schemas of Kubernetes, and has no field that they do not know",
    async () => {
      const [deployment, claim] = await documents();
      for (const [name, document] of [
        ["IoK8sApiAppsV1Deployment", deployment],
        ["IoK8sApiCoreV1PersistentVolumeClaim", claim],
      ]) {
        const { validate } = await installed().module(`kubernetes-models/_schemas/${name}.js`);
        const unseen = new Set<string>();
        expect({ ok: validate(watched(document, unseen)), errors: validate.errors }).toEqual({
          ok: true,
          errors: null,
        });
        expect([...unseen].filter((path) => !path.includes("abels/"))).toEqual([]);
      }
    },
  );

  itWithTools("there are never two pods at a time, and all three probes ask the gateway itself", async () => {
    const [{ spec }] = await documents();
    expect(spec).toMatchObject({ replicas: 1, strategy: { type: "Recreate" } });
    expect(spec.template.metadata.labels).toEqual(spec.selector.matchLabels);
    const [{ startupProbe, livenessProbe, readinessProbe }] = spec.template.spec.containers;
    for (const { exec } of [startupProbe, livenessProbe, readinessProbe]) {
      expect(exec.command).toEqual(startupProbe.exec.command);
    }
    await expectToTell(startupProbe.exec.command);
  });
});

itWhere(canUnshareNet, "no network namespaces")(
  "profiles.mjs runs side by side with another profile, and each of five overlaps is refused with a reason of its own",
  () => {
    // Its ports are real: in a network of its own it meets nobody else's.
    const command = ["sh", "-ec", 'ip link set lo up; exec "$@"', "sh", process.execPath, path("demo-profiles.mjs")];
    const { stdout, stderr, status } = spawnSync("unshare", ["--user", "--map-root-user", "--net", ...command], {
      encoding: "utf8",
    });
    expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
    const told = (what: string) =>
      expect(stdout).toMatch(
        new RegExp(`would share ${what}.*\\n.*already listening.*\\n.*pid \\d+ .*\\n +exit code 75\\n`),
      );
    expect(stdout).toMatch(/18791: "browser control of main"\n.*25511: "browser control of rescue"/);
    for (const what of ["a config", "a state directory", "a workspace", "the port", "most of its derived ports"])
      told(what);
    expect(stdout).toMatch(/third: pid \d+ owns ws:\/\/127\.0\.0\.1:29469/);
  },
);
