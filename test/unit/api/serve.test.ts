import { join } from "node:path";
import { expect, it, vi } from "vitest";
import { serve } from "../../../src/api/serve.ts";
import { mainLoop } from "../../../src/host/main_loop.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

it("shares the main loop, by a look that is sure to ask the kernel", async () => {
  const context = await openAgent(join(temporary(), "root"));
  const serveOthers = vi.spyOn(mainLoop, "serveOthers");
  const stop = new AbortController();
  await serve(context, {
    socket: { path: join(temporary(), "s"), mode: 0o600, groupId: null },
    callers: { allowedUserIds: null },
    listen: null,
    http: { headersTimeoutMs: 1000, requestTimeoutMs: 1000, idleTimeoutMs: 1000, maxConnections: 4 },
    maxRunning: 1,
    maxPending: 1,
    collectEveryMs: null,
    version: "0",
    checkReference: () => {},
  }, { signal: stop.signal, onReady: () => stop.abort(), onAccess: () => {} });
  expect(serveOthers.mock.calls).toEqual([[expect.any(Function)]]);
});
