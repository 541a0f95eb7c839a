import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { BootshimClient } from "../../../src/api/client.ts";
import { codeOf } from "../../support/failures.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
let server: Server | undefined;
afterEach(() => void server?.close());

/** A service that says these bytes to whoever calls, and is gone. */
async function breaking(words: string): Promise<BootshimClient> {
  const socketPath = join(temporary(), "s");
  server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => socket.write(words, () => socket.destroy()));
  });
  await new Promise<void>((resolve) => server?.listen(socketPath, resolve));
  return new BootshimClient({ socketPath });
}

const HEAD = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: ";

describe("BootshimClient, when the service breaks off", () => {
  it("before it answers: IO_ERROR", async () => {
    expect(await codeOf((await breaking("")).version())).toBe("IO_ERROR");
  });

  it("in the middle of an answer: IO_ERROR", async () => {
    const client = await breaking(`${HEAD}application/json\r\n\r\n5\r\n{"ver\r\n`);
    expect(await codeOf(client.version())).toBe("IO_ERROR");
  });

  it("in the middle of events: they end, and what was whole was given", async () => {
    const event = 'id: 7\nevent: image.pulled\ndata: {"reference":"a.example/b:1"}\n\n';
    const client = await breaking(
      `${HEAD}text/event-stream\r\n\r\n${event.length.toString(16)}\r\n${event}\r\n9\r\nid: 8\neve\r\n`,
    );
    const seen = [];
    for await (const each of client.events()) seen.push(each);
    expect(seen).toEqual([{ id: 7, type: "image.pulled", data: { reference: "a.example/b:1" } }]);
  });

  it("is not there at all: IO_ERROR with what to do", async () => {
    const client = new BootshimClient({ socketPath: join(temporary(), "none") });
    await expect(client.version()).rejects.toMatchObject({
      code: "IO_ERROR",
      details: { remedy: "start it: bootshim serve" },
    });
  });
});
