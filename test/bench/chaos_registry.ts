/**
 * Many pulls from a registry whose every fifth answer is faulty. Each must end with the right bytes or a right error, the
 * cache must never hold anything wrong, and what came in vain must stay small. Arguments: number of pulls (300), seed.
 * Prints one line of figures, and exits 1 when something does not hold.
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
  readonly apply: (answer: Answer, request: SeenRequest) => Answer;
};

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
    apply: (answer) => {
      const body = Uint8Array.from(bodyOf(answer));
      const at = cutAt(answer);
      if (body.length > 0) body[at] = (body[at] ?? 0) ^ 0x40;
      return withBody(answer, body);
    },
  },
  {
    name: "wrong range",
    apply: (answer, { headers }) =>
      headers.range === undefined
        ? answer
        : respond(206, { headers: { "Content-Range": "bytes 1-2/3" }, body: bodyOf(answer) }),
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

function newImage(): OsImage {
  return osImage({
    kernel: randomKernel(),
    initramfs: randomInitramfs(),
    rootfs: randomBlob(1 + Math.floor(random() * 3 * MIB)).bytes,
  });
}

/** One image, pulled into a store of its own until it is there; each pull counts. */
async function pullUntilThere(directory: string, left: number): Promise<number> {
  const root = join(directory, "root");
  const image = newImage();
  const wholeBytes = Object.values(image.layers).reduce((sum, { bytes }) => sum + bytes.length, 0);
  let pulls = 0;
  let faults = 0;
  const script = (request: SeenRequest): Answer => {
    const answer = serveImage(request, image);
    if (++answers % 5 !== 0) return answer;
    const fault = FAULTS[Math.floor(random() * FAULTS.length)];
    faults += 1;
    return fault?.apply(answer, request) ?? answer;
  };
  const limits = { plainBlobBytes: MIB, segmentBytes: MIB / 4, stallTimeoutMs: 250, headersTimeoutMs: 250 };
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
    const allowedBytes = wholeBytes * 1.05 + faults * MIB + 64 * 1024 * pulls;
    totals.faults += faults;
    totals.sentBytes += server.sentBytes;
    totals.usefulBytes += wholeBytes;
    totals.allowedBytes += allowedBytes;
  });
  return pulls;
}

const startedMs = performance.now();
for (let left = Number(pullsText); left > 0;) {
  const directory = await mkdtemp(join(tmpdir(), "bootshim-chaos-"));
  try {
    left -= await pullUntilThere(directory, left);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
// 5 % and 1 MiB for each fault; documents and heads are small change.
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
