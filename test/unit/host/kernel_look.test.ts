import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openKernelLook } from "../../../src/host/kernel_look.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

function keepBusy(milliseconds: number): void {
  const endMs = performance.now() + milliseconds;
  while (performance.now() < endMs);
}

it("serves several at once", async () => {
  const look = await openKernelLook();
  if (!look) throw new Error("this host has no pipe");
  await Promise.all(Array.from({ length: 10 }, look));
  await look();
});

it("has what waits at the kernel served, however busy the loop is", async () => {
  const look = await openKernelLook();
  if (!look) throw new Error("this host has no pipe");
  const path = join(temporary(), "socket");
  const server = createServer().listen(path);
  await once(server, "listening");
  const client = connect(path);
  const [accepted] = await once(server, "connection") as [Socket];
  // The loop always has something to do.
  let isOver = false;
  const goRound = () => {
    keepBusy(0.1);
    if (!isOver) setImmediate(goRound);
  };
  goRound();
  const waits: number[] = [];
  for (let time = 0; time < 20; time++) {
    let hasCome = false;
    accepted.once("data", () => hasCome = true);
    let looks = 0;
    client.write("x");
    for (; !hasCome && looks < 100; looks++) await look();
    waits.push(looks);
  }
  isOver = true;
  client.destroy();
  server.close();
  expect(Math.max(...waits)).toBeLessThanOrEqual(2);
});
