import { expect, it } from "vitest";
import { startGateway } from "./support/processes.ts";
import { freePort, temporaryDirectory } from "./support/temporary.ts";

it("refuses a second gateway on the same state directory and port, and says who has it", async () => {
  const stateDir = temporaryDirectory();
  const port = await freePort();
  const owner = startGateway({ stateDir, port });
  await owner.next("serving");

  const refused = await startGateway({ stateDir, port }).next("refused");

  expect(refused).toMatchObject({
    name: "GatewayLockError",
    code: "ALREADY_LISTENING",
    message: `another gateway instance is already listening on ws://127.0.0.1:${port}`,
    exitCode: 75,
    retryable: true,
    owner: { pid: owner.pid },
    listener: { pid: owner.pid },
    cause: { code: "EAGAIN", message: expect.stringContaining(`pid ${owner.pid} has it`) },
  });
});
