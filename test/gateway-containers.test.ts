// Two containers with one state directory: one owner, and whoever is refused is told where that is instead of a pid that means nothing.

import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished } from "vitest";
import { canUnshareMount, hasStrace, isRoot, itWhere } from "./support/capabilities.ts";
import { canContain, startContained } from "./support/containers.ts";
import { diagnoseElsewhere, expectFault, expectFine, pick } from "./support/doctor.ts";
import { listenOn, recordOf, refusalOf } from "./support/gateways.ts";
import { type FixtureEvent, fixturePath, TestProcess } from "./support/processes.ts";
import { STATE_LOCK } from "./support/resources.ts";
import { freePort, temporaryDirectory } from "./support/temporary.ts";

const itContained = itWhere(canContain, "no container can be made of namespaces");

describe("containers with one state directory", () => {
  itContained(
    "have one owner, and the other one is told that it is in another pid namespace, on which host",
    async () => {
      const options = { stateDir: temporaryDirectory(), port: await freePort() };
      const owner = startContained("first", "gateway.mjs", options);
      const { owner: record } = await owner.next("acquired");
      await owner.next("serving");
      expect(record).toMatchObject({ pid: 1, hostname: "first" });

      const refused = await startContained("second", "gateway.mjs", options).next("refused", "acquired");
      expect(refused).toMatchObject({
        code: "ALREADY_RUNNING",
        message: "gateway already running (pid unknown); lock timeout after 0ms",
        owner: { hostname: "first", pidNamespace: record.pidNamespace },
      });
      expect(refused.cause.message).toContain(
        `a process that can't be seen from here has it, and with it the state directory ${options.stateDir}; ` +
          `the record is of an owner in another pid namespace (${record.pidNamespace}, host name first), a container say`,
      );
    },
  );

  itContained("is refused on the host too, which knows the owner by another number", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort() };
    const owner = startContained("first", "gateway.mjs", options);
    await owner.next("serving");
    // A stranger on the port that the owner has, in a network of its own, is not the owner.
    await listenOn(options.port);
    const error = await refusalOf({ ...options, port: await freePort() });
    expect(error).toMatchObject({ code: "ALREADY_RUNNING", owner: { pid: 1 } });
    expect(error.listener).toBeUndefined();
    const [, pid = "none"] = /\(pid (\w+)\)/.exec(error.message) ?? [];
    expect(readFileSync(`/proc/${pid}/status`, "utf8")).toMatch(/^NSpid:\t\d+\t1$/m);
    expect((error.cause as Error).message).toContain(`pid ${pid} has it`);
  });

  itContained(
    "have exactly one owner when all start at once, and another one at once when that is killed",
    async () => {
      const options = { stateDir: temporaryDirectory(), port: await freePort() };
      let contenders = Array.from({ length: 6 }, (_, index) => startContained(`c${index}`, "gateway-contender.mjs"));
      await Promise.all(contenders.map((contender) => contender.next("loaded")));
      while (contenders.length > 0) {
        for (const contender of contenders) contender.send(JSON.stringify({ command: "acquire", options }));
        const ends = await Promise.all(contenders.map((contender) => contender.next("acquired", "refused")));
        expect(ends.filter(({ event }) => event === "acquired")).toHaveLength(1);
        for (const { code } of ends.filter(({ event }) => event === "refused")) expect(code).toBe("ALREADY_RUNNING");
        // The record that it leaves names pid 1, which is alive in every other container.
        const winner = ends.findIndex(({ event }) => event === "acquired");
        await contenders[winner]?.kill();
        contenders = contenders.filter((_, index) => index !== winner);
      }
    },
    60_000,
  );

  itContained("name nobody by the numbers of a /proc that is another pid namespace's", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort() };
    await startContained("first", "gateway.mjs", options).next("serving");
    // Without --mount-proc, a number there is the host's, and means somebody else in here, or nobody.
    const command = [process.execPath, fixturePath("gateway.mjs"), JSON.stringify(options)];
    const blind = new TestProcess("unshare", [
      // Root as itself may look at all of them; another user's user namespace hides them anyway.
      ...(isRoot ? [] : ["--user", "--map-root-user"]),
      ...["--pid", "--fork", "--kill-child", "--net", ...command],
    ]);
    const refused = await blind.next("refused", "acquired");
    expect(refused).toMatchObject({ code: "ALREADY_RUNNING", message: expect.stringContaining("(pid unknown)") });
    expect(refused.cause.message).toContain("a process that can't be seen from here has it");
  });

  itContained(
    "that share pids and not the network do not take a stranger on the owner's port for the owner",
    async () => {
      const options = { stateDir: temporaryDirectory(), port: await freePort() };
      const command = [process.execPath, fixturePath("gateway.mjs"), JSON.stringify(options)];
      const network = ["--user", "--map-root-user", "--net", "sh", "-ec", 'ip link set lo up; exec "$@"', "sh"];
      const owner = new TestProcess("unshare", [...network, ...command]);
      await owner.next("serving");
      await listenOn(options.port);
      const error = await refusalOf({ ...options, port: await freePort() });
      expect(error).toMatchObject({ code: "ALREADY_RUNNING", owner: { pid: owner.pid } });
      expect(error.message).toContain(`(pid ${owner.pid})`);
      expect(error.listener).toBeUndefined();
    },
  );

  itContained("without a loopback interface get no busy port from that", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort() };
    await startContained("first", "gateway.mjs", options).next("serving");
    const command = [process.execPath, fixturePath("gateway.mjs"), JSON.stringify(options)];
    const down = new TestProcess("unshare", [
      ...["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", ...command],
    ]);
    expect(await down.next("refused", "acquired")).toMatchObject({ code: "ALREADY_RUNNING" });
  });

  itContained("are told apart by what is mounted, not by paths", async () => {
    const [stateDir, there, port] = [temporaryDirectory(), temporaryDirectory(), await freePort()];
    const mount = `mount --bind "${stateDir}" "${there}"`;
    const owner = startContained("first", "gateway.mjs", { stateDir: there, port }, mount);
    await owner.next("serving");
    const same = startContained("second", "gateway.mjs", { stateDir, port });
    expect(await same.next("refused", "acquired")).toMatchObject({ code: "ALREADY_RUNNING" });
    const other = startContained("third", "gateway.mjs", { stateDir: there, port });
    expect(await other.next("refused", "acquired")).toMatchObject({ event: "acquired" });
  });
});

/** A shell's command that mounts an overlay at `$1/merged`. In the list of lower layers, a colon of a path has a backslash. */
const OVERLAY = `lower=$(printf %s "$1/lower" | sed 's/:/\\\\:/g')
  mount -t overlay overlay -o "lowerdir=$lower,upperdir=$1/upper,workdir=$1/work,userxattr" "$1/merged"`;
const IN_NAMESPACE = ["--user", "--map-root-user", "--mount", "sh", "-ec", `${OVERLAY}; shift; exec "$@"`, "sh"];

function makeLayers(root: string): void {
  for (const name of ["upper", "work", "merged"]) mkdirSync(join(root, name));
  mkdirSync(join(root, "lower/state/locks"), { recursive: true, mode: 0o700 });
}

/** The kernel leaves a directory in `work` that its owner may not read either, so that only root could remove what is around it. */
function clearLayers(root: string): void {
  const left = join(root, "work/work");
  if (existsSync(left)) chmodSync(left, 0o700);
}

/** `makeLayers` for one test, after which the directory around them can be removed. */
function layersIn(root: string): void {
  makeLayers(root);
  onTestFinished(() => clearLayers(root));
}

const canOverlay: boolean = (() => {
  if (!canUnshareMount) return false;
  const root = mkdtempSync(join(tmpdir(), "gateway-lock-can-"));
  try {
    makeLayers(root);
    return spawnSync("unshare", [...IN_NAMESPACE, root, "true"], { stdio: "ignore" }).status === 0;
  } finally {
    clearLayers(root);
    rmSync(root, { recursive: true, force: true });
  }
})();
const itOverlaid = itWhere(canOverlay, "no overlay can be mounted");

describe("an overlay", () => {
  /** A gateway in a mount namespace with an overlay at `root`. */
  function startOver(root: string, options: object): TestProcess {
    const command = [process.execPath, fixturePath("gateway.mjs"), JSON.stringify(options)];
    return new TestProcess("unshare", [...IN_NAMESPACE, root, ...command]);
  }
  const beside = ({ pid }: TestProcess) => ["nsenter", "-t", `${pid}`, "--user", "--mount", "--preserve-credentials"];
  async function startBeside(owner: TestProcess, options: object): Promise<FixtureEvent> {
    const [nsenter = "", ...args] = beside(owner);
    const command = [process.execPath, fixturePath("gateway.mjs"), JSON.stringify(options)];
    return await new TestProcess(nsenter, [...args, ...command]).next("acquired", "refused");
  }

  itOverlaid("holds a lock on what lies in its lower layer, and still when that was copied up", async () => {
    const root = temporaryDirectory();
    layersIn(root);
    // As an image has it that was made of a used directory: its record names a process that is there.
    const leftover = join(root, "lower/state/locks", STATE_LOCK);
    writeFileSync(leftover, recordOf({ pid: process.pid, bootId: "an image's", port: 1 }), { mode: 0o600 });
    const options = { stateDir: join(root, "merged/state"), port: await freePort() };
    const owner = startOver(root, options);
    await owner.next("serving");
    const again = { ...options, port: await freePort() };
    expect(await startBeside(owner, again)).toMatchObject({ code: "ALREADY_LISTENING", listener: { pid: owner.pid } });
    // Its directory is copied up now, and its record a second time.
    owner.send('update {"copied":"up"}');
    await owner.next("done");
    expect(await startBeside(owner, again)).toMatchObject({ code: "ALREADY_LISTENING", listener: { pid: owner.pid } });
    owner.send("close");
    expect(await owner.next("lost", "done")).toMatchObject({ event: "done" });
    expect(readFileSync(leftover, "utf8")).toContain("an image's");
  });

  itOverlaid("of its own has a copy of its own: two containers of one image are two gateways", async () => {
    const [lower, one, two] = [temporaryDirectory(), temporaryDirectory(), temporaryDirectory()];
    for (const root of [one, two]) {
      layersIn(root);
      rmSync(join(root, "lower"), { recursive: true });
      mkdirSync(join(root, "lower"));
    }
    mkdirSync(join(lower, "state"));
    for (const root of [one, two]) {
      const gateway = new TestProcess("unshare", [
        ...["--user", "--map-root-user", "--mount", "sh", "-ec"],
        `mount --bind "$2" "$1/lower"; ${OVERLAY}; shift 2; exec "$@"`,
        ...["sh", root, lower, process.execPath, fixturePath("gateway.mjs")],
        JSON.stringify({ stateDir: join(root, "merged/state"), port: await freePort() }),
      ]);
      expect(await gateway.next("acquired", "refused")).toMatchObject({ event: "acquired" });
    }
  });

  itOverlaid("and a layer of it are locked apart, and the doctor says so", async () => {
    const root = join(temporaryDirectory(), "a layer: b");
    mkdirSync(root);
    layersIn(root);
    const options = { stateDir: join(root, "merged/state"), port: await freePort() };
    const owner = startOver(root, options);
    await owner.next("serving");
    const prefix = beside(owner);
    const merged = pick("filesystem", diagnoseElsewhere(options, { prefix }));
    expectFine(merged);
    expect(merged.evidence).toContain(
      "merged/state is on overlayfs, where a lock was tried and excludes, among those who",
    );

    for (const layer of ["upper/state", "lower/state"]) {
      const finding = pick("filesystem", diagnoseElsewhere({ ...options, stateDir: join(root, layer) }, { prefix }));
      expectFault(finding, `${layer} is a layer of the overlay at ${root}/merged`, /volume/);
    }
    // In the upper layer lies the owner's own record, which counts for somebody who sees its process; in the lower one there is nothing.
    const port = await freePort();
    expect(await startBeside(owner, { port, stateDir: join(root, "upper/state") })).toMatchObject({
      code: "ALREADY_LISTENING",
      owner: { pid: owner.pid },
      cause: { message: expect.stringContaining("is not locked") },
    });
    expect(await startBeside(owner, { port, stateDir: join(root, "lower/state") })).toMatchObject({
      event: "acquired",
    });
    expectFine(pick("filesystem", diagnoseElsewhere({ stateDir: temporaryDirectory() }, { prefix })));
    // A config alone in a layer is found too, whatever lies on the same device.
    const config = { ...options, stateDir: temporaryDirectory(), configPath: join(root, "upper/state/c.json") };
    expectFault(pick("filesystem", diagnoseElsewhere(config, { prefix })), "upper/state is a layer", /volume/);
  });
});

describe("what is no layer, though it looks like one", () => {
  const found = (script: string, root: string, stateDir: string) =>
    pick(
      "filesystem",
      diagnoseElsewhere(
        { stateDir, port: 1 },
        {
          prefix: [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-ec",
            `${script}; shift; exec "$@"`,
            "sh",
            root,
          ],
        },
      ),
    );

  itOverlaid("a volume that is mounted inside a layer, which the overlay does not show", async () => {
    const root = temporaryDirectory();
    layersIn(root);
    mkdirSync(join(root, "lower/volume"));
    const script = `mount -t tmpfs none "$1/lower/volume"; mkdir -m 700 "$1/lower/volume/state"; ${OVERLAY}`;
    expectFine(found(script, root, join(root, "lower/volume/state")));
  });

  itOverlaid("what lies on another filesystem, while the layer is the whole of its own", async () => {
    const root = temporaryDirectory();
    layersIn(root);
    expectFine(found(`mount -t tmpfs none "$1/lower"; ${OVERLAY}`, root, temporaryDirectory()));
  });

  itOverlaid("an overlay over its own lower layer", async () => {
    const root = temporaryDirectory();
    layersIn(root);
    const script = `mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work,userxattr" "$1/lower"`;
    expectFine(found(script, root, join(root, "lower/state")));
  });

  itOverlaid("while a layer that is mounted elsewhere is one, by that name too", async () => {
    const [root, elsewhere] = [temporaryDirectory(), temporaryDirectory()];
    layersIn(root);
    const script = `mount --bind "$1/lower/state" "${elsewhere}"; ${OVERLAY}`;
    expectFault(found(script, root, elsewhere), `${elsewhere} is a layer of the overlay at ${root}/merged`, /volume/);
  });
});

itWhere(canContain && hasStrace, "needs strace")(
  "a directory that a virtual machine's host shares is refused",
  async () => {
    // What statfs(2) says on Docker Desktop, in f_type, the first field.
    const FAKEOWNER = "636a656a00000000";
    const strace = [
      "-f",
      "-qq",
      "-o",
      "/dev/null",
      "-e",
      "trace=statfs",
      "-e",
      `inject=statfs:poke_exit=@arg2=${FAKEOWNER}`,
    ];
    const options = JSON.stringify({ stateDir: temporaryDirectory(), port: await freePort() });
    const gateway = new TestProcess("strace", [...strace, process.execPath, fixturePath("gateway.mjs"), options]);
    const refused = await gateway.next("refused", "acquired");
    expect(refused).toMatchObject({ code: "LOCK_UNSUPPORTED" });
    expect(refused.message).toContain("(fakeowner)");
  },
);
