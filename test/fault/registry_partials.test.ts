/** What a failing transfer leaves behind, and what the next one asks for. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { randomBlob } from "../support/blobs.ts";
import { rejectionOf } from "../support/failures.ts";
import {
  cutAfter,
  respond,
  respondChunked,
  type Script,
  serveRange,
  type Step,
} from "../support/fault_server.ts";
import { type OsImage, osImage, randomInitramfs, randomKernel } from "../support/os_image.ts";
import { serveImage, withPulls } from "../support/pull_kit.ts";
import { withRegistry } from "../support/registry_client_kit.ts";
import { collect } from "../support/streams.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const KIB = 1024;
const LAYER_BYTES = 2_000_000;
const CAME_BYTES = 1_900_000;

type WantedImage = {
  readonly image: OsImage;
  readonly bytes: Uint8Array;
  /** What its layer's files in `ingest/` begin with. */
  readonly partial: string;
  readonly isLayer: (path: string) => boolean;
};

function newImage(): WantedImage {
  const image = osImage({
    kernel: randomKernel(),
    initramfs: randomInitramfs(),
    rootfs: randomBlob(LAYER_BYTES).bytes,
  });
  const layer = image.layers.rootfs;
  if (!layer) throw new Error("the image has no rootfs");
  const { digest } = layer.descriptor;
  return {
    image,
    bytes: layer.bytes,
    partial: digest.replace(":", "-"),
    isLayer: (path) => path.endsWith(digest),
  };
}

/** Fails once as `answer` says, and then goes on where it stopped. */
async function failsThenResumes(
  { image, partial, isLayer }: WantedImage,
  answer: (request: Parameters<Script>[0], count: number) => readonly Step[],
): Promise<string> {
  const root = join(temporary(), "root");
  let count = 0;
  let isWell = false;
  const script: Script = (request) =>
    isLayer(request.path) && !isWell ? answer(request, count++) : serveImage(request, image);
  let code = "";
  await withPulls({ root, script }, async ({ pull, server }) => {
    code = (await rejectionOf(pull())).code;
    expect((await readdir(join(root, "ingest"))).filter((name) => name.startsWith(partial))).toHaveLength(2);
    isWell = true;
    const before = server.requests.length;
    await pull();
    const [range = ""] = server.requests.slice(before).filter(({ path }) => isLayer(path)).map((
      { headers },
    ) => String(headers["range"]));
    const startByte = Number(/^bytes=([0-9]+)-/.exec(range)?.[1]);
    // Whole holes are kept.
    expect(startByte).toBeGreaterThan(CAME_BYTES - 8 * KIB);
    expect(startByte).toBeLessThanOrEqual(CAME_BYTES);
    expect(await readdir(join(root, "ingest"))).toEqual([]);
  });
  return code;
}

describe("a transfer that breaks, and is then refused", () => {
  it.each([
    [401, "REGISTRY_UNAUTHORIZED"],
    [403, "REGISTRY_DENIED"],
    [404, "REGISTRY_NOT_FOUND"],
    [410, "REGISTRY_PROTOCOL"],
    [451, "REGISTRY_PROTOCOL"],
    [503, "REGISTRY_UNAVAILABLE"],
  ])(
    "RP15 RP36 AU10 by %i: what came is continued when the registry says yes again, S1",
    async (status, code) => {
      const wanted = newImage();
      const got = await failsThenResumes(
        wanted,
        (request, count) =>
          count === 0 ? cutAfter(serveRange(request, wanted.bytes), CAME_BYTES, "close") : respond(status),
      );
      expect(got).toBe(code);
    },
  );

  it("RP12 because the registry has no more: what came is continued, S1", async () => {
    const wanted = newImage();
    const body = wanted.bytes.subarray(0, CAME_BYTES);
    const code = await failsThenResumes(
      wanted,
      (request, count) => count === 0 ? respondChunked(200, { body }) : serveRange(request, body),
    );
    expect(code).toBe("CONTENT_SIZE_MISMATCH");
  });
});

const ANSWER_PART_BYTES = 64 * KIB;

/** As a server that gives each connection only so much. */
function slowly(steps: readonly Step[]): Step[] {
  return steps.flatMap((step) => {
    if (!("send" in step) || typeof step.send === "string") return [step];
    const { send } = step;
    return Array.from({ length: Math.ceil(send.length / ANSWER_PART_BYTES) }, (_, index): Step[] => [
      { send: send.subarray(index * ANSWER_PART_BYTES, (index + 1) * ANSWER_PART_BYTES) },
      { waitMs: 10 },
    ]).flat();
  });
}

describe("a large blob over several connections", () => {
  const limits = { plainBlobBytes: 128 * KIB, segmentBytes: 128 * KIB, readAheadBytes: 2048 * KIB };

  it("takes as many after others were given up before their first byte was read", async () => {
    const blob = randomBlob(6 * 1024 * KIB);
    let open = 0;
    let most = 0;
    await withRegistry((request) => {
      open += 1;
      most = Math.max(most, open);
      const steps = slowly(serveRange(request, blob.bytes));
      setTimeout(() => open -= 1, 10 * steps.length / 2);
      return steps;
    }, async ({ client }) => {
      const fetch = async () => {
        open = most = 0;
        expect((await collect(client.openBlob(blob.descriptor))).length).toBe(blob.bytes.length);
        return most;
      };
      const before = await fetch();
      expect(before).toBeGreaterThan(2);
      for (let count = 0; count < 24; count++) await (await client.openBlob(blob.descriptor)).cancel();
      // Until the server has forgotten them, too.
      await wait(200);
      expect(await fetch()).toBeGreaterThanOrEqual(before - 1);
    }, limits);
  });

  it("RP24 that changes on the way is told, whichever connection saw it, before all of it has come", async () => {
    const sizeBytes = 16 * 1024 * KIB;
    const [one, other] = [randomBlob(sizeBytes), randomBlob(sizeBytes)];
    let count = 0;
    await withRegistry((request) => {
      const isChanged = count++ >= 8;
      const [head, ...rest] = serveRange(request, (isChanged ? other : one).bytes);
      if (!head || !("send" in head) || typeof head.send !== "string") throw new Error("no head");
      const tagged = { send: head.send.replace("\r\n", `\r\nETag: "${isChanged ? "two" : "one"}"\r\n`) };
      return [{ waitMs: 30 }, tagged, ...rest];
    }, async ({ client, server }) => {
      const { code, details } = await rejectionOf(collect(client.openBlob(one.descriptor)));
      expect([code, details["isChanged"]]).toEqual(["CONTENT_DIGEST_MISMATCH", true]);
      expect(server.sentBytes).toBeLessThan(sizeBytes / 2);
    }, limits);
  });
});
