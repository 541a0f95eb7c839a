/**
 * Many pulls from a registry whose every fifth answer is faulty. Each must end with the right bytes or a right error, the
 * cache must never hold anything wrong, and what came in vain must be at most 5 % and 1 MiB for each fault, for each image
 * by itself. Arguments: number of pulls (300), seed. Prints one line of figures, and exits 1 when something does not hold.
 */
import { randomInt } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { type ErrorCode, ShimError, toShimError } from "../../src/errors.ts";
import { randomBlob } from "../support/blobs.ts";
import { type Answer, cutAfter, respond, type SeenRequest } from "../support/fault_server.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { type OsImage, osImage, randomInitramfs, randomKernel } from "../support/os_image.ts";
import { isRight, serveImage, withPulls } from "../support/pull_kit.ts";

const MIB = 1024 * 1024;
const [pullsText = "300", seedText = String(randomInt(2 ** 31))] = process.argv.slice(2);
const random = randomFrom(Number(seedText));

/** At the pace of a network: what is in the kernel's buffers when a client gives up would count as sent for nothing. */
function paced(answer: Answer): Answer {
  return answer.flatMap((step) => {
    if (!("send" in step) || typeof step.send === "string" || step.send.length <= PACE_BYTES) return [step];
    const { send } = step;
    return Array.from({ length: Math.ceil(send.length / PACE_BYTES) }, (_none, i) => [
      { send: send.subarray(i * PACE_BYTES, (i + 1) * PACE_BYTES) },
      { waitMs: PACE_MS },
    ]).flat();
  });
}

/** The same faults for the same seed. Mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}

type Fault = {
  readonly name: string;
  /** Whether there is anything that it could spoil; default yes. */
  readonly isFor?: (answer: Answer, request: SeenRequest) => boolean;
  readonly apply: (answer: Answer, request: SeenRequest) => Answer;
};

const PACE_BYTES = 256 * 1024;
const PACE_MS = 3;
/** What each fault may cost. */
const FAULT_BYTES = MIB;
/** Every sixth image has a layer that costs more than faults may. */
const LARGE_EVERY = 6;

const bodyOf = (answer: Answer): Uint8Array => {
  const step = answer[1];
  return step !== undefined && "send" in step && typeof step.send !== "string" ? step.send : new Uint8Array();
};
const withBody = (answer: Answer, body: Uint8Array): Answer => {
  const [first] = answer;
  return first === undefined ? [] : [first, { send: body }];
};
const cutAt = (answer: Answer) => Math.floor(bodyOf(answer).length * random());

const FAULTS: readonly Fault[] = [
  { name: "reset", apply: (answer) => cutAfter(answer, cutAt(answer), "reset") },
  { name: "close", apply: (answer) => cutAfter(answer, cutAt(answer), "close") },
  { name: "stall", apply: (answer) => cutAfter(answer, cutAt(answer), "hang") },
  { name: "silence", apply: () => [{ hang: true }] },
  { name: "no answer", apply: () => [{ reset: true }] },
  { name: "500", apply: () => respond(500) },
  { name: "503", apply: () => respond(503) },
  { name: "429", apply: () => respond(429, { headers: { "Retry-After": "0" } }) },
  { name: "404", apply: () => respond(404) },
  { name: "garbage", apply: () => [{ send: "HTPP/9 hello\r\n\r\n" }, { close: true }] },
  {
    name: "captive portal",
    apply: () => respond(200, { headers: { "Content-Type": "text/html" }, body: "<p>" }),
  },
  {
    name: "flipped byte",
    // Nobody can tell which byte of a blob is wrong, so it costs the whole blob: only those that it may cost.
    isFor: (answer, { headers }) =>
      headers.range === undefined && bodyOf(answer).length > 0 && bodyOf(answer).length <= FAULT_BYTES,
    apply: (answer) => {
      const body = Uint8Array.from(bodyOf(answer));
      const at = cutAt(answer);
      body[at] = (body[at] ?? 0) ^ 0x40;
      return withBody(answer, body);
    },
  },
  {
    name: "wrong range",
    isFor: (answer, { headers }) => headers.range !== undefined && bodyOf(answer).length > 1,
    // The next byte and those after it, as if they were the ones asked for but for the head.
    apply: (answer, { headers }) => {
      const body = bodyOf(answer).subarray(1, 1 + FAULT_BYTES / 4);
      const first = Number(/[0-9]+/.exec(headers.range ?? "")?.[0]) + 1;
      const range = `bytes ${first}-${first + body.length - 1}/*`;
      return respond(206, { headers: { "Content-Range": range }, body });
    },
  },
];

/** What a fault that does not pass may be told as. */
const RIGHT_ERRORS: ReadonlySet<ErrorCode> = new Set([
  "REGISTRY_UNAVAILABLE",
  "REGISTRY_TIMEOUT",
  "REGISTRY_RATE_LIMITED",
  "REGISTRY_NOT_FOUND",
  "REGISTRY_PROTOCOL",
  "MEDIA_TYPE_UNSUPPORTED",
  "CONTENT_SIZE_MISMATCH",
  "CONTENT_DIGEST_MISMATCH",
]);

const totals = { right: 0, errors: 0, faults: 0, sentBytes: 0, usefulBytes: 0, allowedBytes: 0 };
const codes = new Map<string, number>();
const breaches: string[] = [];
let answers = 0;

function newImage(isLarge: boolean): OsImage {
  return osImage({
    kernel: randomKernel(),
    initramfs: randomInitramfs(),
    rootfs: randomBlob(isLarge ? between(16 * MIB, 64 * MIB) : between(MIB / 4, 3 * MIB)).bytes,
  });
}

const between = (least: number, most: number) => least + Math.floor(random() * (most - least));

function faultFor(answer: Answer, request: SeenRequest): Fault | undefined {
  const possible = FAULTS.filter(({ isFor }) => isFor?.(answer, request) ?? true);
  return possible[Math.floor(random() * possible.length)];
}

/** One image, pulled into a store of its own until it is there; each pull counts. */
async function pullUntilThere(directory: string, { left, isLarge }: { left: number; isLarge: boolean }) {
  const root = join(directory, "root");
  const image = newImage(isLarge);
  const blobs = [image.manifest, image.config, ...Object.values(image.layers)];
  const wholeBytes = blobs.reduce((sum, { bytes }) => sum + bytes.length, 0);
  let pulls = 0;
  let faults = 0;
  const script = (request: SeenRequest): Answer => {
    const answer = serveImage(request, image);
    if (++answers % 5 !== 0) return paced(answer);
    const fault = faultFor(answer, request);
    if (fault === undefined) return paced(answer);
    faults += 1;
    return paced(fault.apply(answer, request));
  };
  const limits = {
    // Large ones in one piece, or in pieces over several connections.
    plainBlobBytes: isLarge ? (random() < 0.5 ? 64 * MIB : 4 * MIB) : MIB,
    segmentBytes: isLarge ? 2 * MIB : MIB / 4,
    stallTimeoutMs: 250,
    headersTimeoutMs: 250,
  };
  await withPulls({ root, script, limits }, async ({ pull, server }) => {
    for (let isThere = false; !isThere && pulls < left;) {
      pulls += 1;
      try {
        isThere = await isRight(await pull(), image);
        if (!isThere) breaches.push(`pull ${pulls} of ${root} gave wrong bytes`);
        totals.right += 1;
      } catch (error) {
        const { code } = toShimError(error);
        if (!(error instanceof ShimError) || !RIGHT_ERRORS.has(code)) breaches.push(String(error));
        codes.set(code, (codes.get(code) ?? 0) + 1);
        totals.errors += 1;
      }
      breaches.push(...layoutProblems(root, { partials: "any", areRecordsAhead: true }));
    }
    const allowedBytes = wholeBytes * 1.05 + faults * FAULT_BYTES;
    // Some images are not there at the end of a run: they need not have come whole, which only makes the bound easier.
    if (server.sentBytes > allowedBytes) {
      breaches.push(
        `an image of ${wholeBytes} bytes cost ${server.sentBytes} bytes with ${faults} faults, ` +
          `allowed are ${Math.floor(allowedBytes)}`,
      );
    }
    totals.faults += faults;
    totals.sentBytes += server.sentBytes;
    totals.usefulBytes += wholeBytes;
    totals.allowedBytes += allowedBytes;
  });
  return pulls;
}

const startedMs = performance.now();
for (let left = Number(pullsText), images = 0; left > 0; images++) {
  const directory = await mkdtemp(join(tmpdir(), "bootshim-chaos-"));
  try {
    left -= await pullUntilThere(directory, { left, isLarge: images % LARGE_EVERY === 0 });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
if (totals.sentBytes > totals.allowedBytes) breaches.push("too much came in vain");
for (const breach of breaches.slice(0, 20)) console.error(`chaos: ${breach}`);
console.log(JSON.stringify({
  seed: Number(seedText),
  pulls: totals.right + totals.errors,
  right: totals.right,
  errors: Object.fromEntries(codes),
  faults: totals.faults,
  answers,
  sentMib: Math.round(totals.sentBytes / MIB),
  usefulMib: Math.round(totals.usefulBytes / MIB),
  allowedMib: Math.round(totals.allowedBytes / MIB),
  seconds: Math.round((performance.now() - startedMs) / 1000),
  breaches: breaches.length,
}));
process.exit(breaches.length > 0 ? 1 : 0);
