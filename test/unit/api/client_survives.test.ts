import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { BootshimClient, type ClientOptions } from "../../../src/api/client.ts";
import { failureOf } from "../../support/failures.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

const socketPath = () => join(temporary(), "s");
const clientOf = (options?: ClientOptions) => new BootshimClient({ socketPath: socketPath() }, options);

/** A service that answers so. */
async function answering(handler: Handler): Promise<void> {
  server = createServer(handler);
  await new Promise<void>((resolve) => server?.listen(socketPath(), resolve));
}

const ID = "3f1f2c1e-0a0b-4c0d-8e0f-101112131415";
const RESULT = {
  reference: "a.example/b:1",
  digest: `sha256:${"0".repeat(64)}`,
  manifestDigest: `sha256:${"0".repeat(64)}`,
  architecture: "amd64",
  variant: "virtualization",
  cached: true,
  transferredBytes: 0,
  layers: [],
  boot: {
    mode: "disk",
    firmware: "uefi",
    ...{ kernel: null, initramfs: null, uki: null, iso: null },
    cmdline: "",
    reason: "",
    modes: [],
    hasSurprise: true,
  },
  machine: null,
  surprise: 1,
};
const PROGRESS = { phase: "pulling", doneBytes: 1, totalBytes: 2, layers: [], surprise: [1] };
const OPERATION = {
  id: ID,
  kind: "prepare",
  startedAt: "2026-01-02T03:04:05Z",
  subject: { reference: "a.example/b:1" },
  progress: PROGRESS,
};

function tell(response: ServerResponse, status: number, value: object): void {
  const type = status < 400 ? "application/json" : "application/problem+json";
  response.writeHead(status, { "content-type": type }).end(JSON.stringify(value));
}

function refuse(response: ServerResponse, status: number, code: string, details: object = {}): void {
  const problem = { type: "about:blank", title: "x", status, detail: "x", code, retryable: false, details };
  tell(response, status, { ...problem, surprise: { deep: true } });
}

function stream(response: ServerResponse, progress: object): ServerResponse {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write(`id: 1\nevent: operation.progress\ndata: ${JSON.stringify({ progress })}\n\n`);
  return response;
}

describe("BootshimClient with a newer service", () => {
  it("lets fields pass that it does not know: in documents, in what is inside them, in progress and problems", async () => {
    await answering(({ url }, response) => {
      if (url === "/v1/prepare") tell(response, 202, { ...OPERATION, state: "running", surprise: null });
      else if (url?.endsWith("/events")) {
        stream(response, PROGRESS).end();
      } else if (url === `/v1/operations/${ID}`) {
        tell(response, 200, { ...OPERATION, state: "succeeded", result: RESULT, surprise: null });
      } else if (url === "/v1/version") tell(response, 200, { version: "9", surprise: 1 });
      else refuse(response, 409, "IN_USE", { by: "vm-1" });
    });
    const seen: unknown[] = [];
    const done = await clientOf().prepare({ reference: "a.example/b:1" }, {
      onProgress: (progress) => seen.push(progress),
    });
    expect(done).toEqual(RESULT);
    expect(seen).toEqual([PROGRESS]);
    expect(await clientOf().version()).toMatchObject({ version: "9" });
    expect(await failureOf(clientOf().release("vm-1"))).toMatchObject({
      code: "IN_USE",
      details: { by: "vm-1" },
    });
  });

  it("does not take another program for it", async () => {
    await answering((_request, response) => tell(response, 200, { hello: 1 }));
    expect((await failureOf(clientOf().version())).code).toBe("INTERNAL");
  });
});

describe("BootshimClient when its service goes away", () => {
  it("says that the same may be asked again", async () => {
    expect(await failureOf(clientOf().version())).toMatchObject({ code: "IO_ERROR", retryable: true });
    expect(await failureOf(clientOf({ patienceMs: 100 }).prepare({ reference: "a.example/b:1" })))
      .toMatchObject(
        { code: "IO_ERROR", retryable: true },
      );
  });

  it("waits for it before it begins, for as long as it was told", async () => {
    const prepared = clientOf({ patienceMs: 10_000 }).prepare({ reference: "a.example/b:1" });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await answering((_request, response) => tell(response, 200, RESULT));
    expect(await prepared).toEqual(RESULT);
  });

  it("stops waiting when its caller does", async () => {
    const signal = AbortSignal.timeout(100);
    const given = clientOf().prepare({ reference: "a.example/b:1" }, { signal });
    expect((await failureOf(given)).code).toBe("CANCELLED");
  });

  it("opens the events again when they break off, however often", async () => {
    let opened = 0;
    await answering(({ url }, response) => {
      if (url?.endsWith("/events")) {
        opened += 1;
        stream(response, PROGRESS);
        setTimeout(() => response.destroy(), 20);
      } else if (opened < 4) tell(response, 200, { ...OPERATION, state: "running" });
      else tell(response, 200, { ...OPERATION, state: "succeeded", result: RESULT });
    });
    expect(await clientOf({ patienceMs: 300 }).follow(ID)).toEqual(RESULT);
    expect(opened).toBe(4);
  });

  it.each([
    ["knows nothing of the operation", 404, "OPERATION_NOT_FOUND", {}],
    ["is ending", 503, "BUSY", { isServiceEnding: true }],
    ["ended what it was at", 499, "CANCELLED", { isServiceEnding: true }],
  ])("prepares again when the service %s, followed or not", async (_what, status, code, details) => {
    let begun = 0;
    await answering(({ url, headers }, response) => {
      const isBegin = url === "/v1/prepare";
      const isFollowed = headers["prefer"] !== undefined;
      if (isBegin) begun += 1;
      if (begun < 3 && !(isBegin && isFollowed && code !== "BUSY")) refuse(response, status, code, details);
      else if (isBegin && isFollowed) tell(response, 202, { ...OPERATION, state: "pending" });
      else if (url?.endsWith("/events")) stream(response, PROGRESS).end();
      else if (isBegin) tell(response, 200, RESULT);
      else tell(response, 200, { ...OPERATION, state: "succeeded", result: RESULT });
    });
    for (const options of [{ onProgress: () => {} }, {}]) {
      begun = 0;
      expect(await clientOf().prepare({ reference: "a.example/b:1" }, options)).toEqual(RESULT);
      expect(begun).toBe(3);
    }
  });

  it("tells whoever follows only that the operation is forgotten", async () => {
    await answering((_request, response) => refuse(response, 404, "OPERATION_NOT_FOUND"));
    expect((await failureOf(clientOf().follow(ID))).code).toBe("OPERATION_NOT_FOUND");
  });

  it("takes what was cancelled by somebody for what it is", async () => {
    await answering((_request, response) => refuse(response, 499, "CANCELLED"));
    expect((await failureOf(clientOf().prepare({ reference: "a.example/b:1" }))).code).toBe("CANCELLED");
  });
});
