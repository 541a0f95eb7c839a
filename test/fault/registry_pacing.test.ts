import { describe, expect, it } from "vitest";
import { ShimError } from "../../src/errors.ts";
import { OCI_MANIFEST } from "../../src/image/media_type.ts";
import { Registries } from "../../src/registry/registries.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { randomBlob, randomManifest } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import { respond, serveRange, startFaultServer } from "../support/fault_server.ts";
import { randomWord } from "../support/random_word.ts";
import { QUICK, withRegistry } from "../support/registry_client_kit.ts";
import { collect } from "../support/streams.ts";

const { bytes, descriptor } = randomManifest();
const manifest = respond(200, { headers: { "Content-Type": OCI_MANIFEST }, body: bytes });
const blob = randomBlob(1000);

/** When each request arrived, from the first one on. */
function clock(): { readonly arrivedMs: number[]; tick(): void } {
  const arrivedMs: number[] = [];
  return { arrivedMs, tick: () => arrivedMs.push(performance.now()) };
}

describe("a host that asks for patience", () => {
  it.each([429, 503])(
    "RP33 RP35 %i with Retry-After is asked again, not before it wants to be",
    async (status) => {
      const { arrivedMs, tick } = clock();
      const told: unknown[] = [];
      await withRegistry((_request, count) => {
        tick();
        return count === 0 ? respond(status, { headers: { "Retry-After": "1" } }) : manifest;
      }, async ({ client, server }) => {
        const document = await client.resolve("latest", { onWait: (wait) => told.push(wait) });
        expect(document.descriptor).toEqual(descriptor);
        expect(server.requests).toHaveLength(2);
        expect((arrivedMs[1] ?? 0) - (arrivedMs[0] ?? 0)).toBeGreaterThanOrEqual(999);
        const code = status === 429 ? "REGISTRY_RATE_LIMITED" : "REGISTRY_UNAVAILABLE";
        expect(told).toEqual([{ code, delayMs: 1000 }]);
      });
    },
  );

  it("RP33 is left alone by all other requests, too, whatever they ask and on whose behalf", async () => {
    const { arrivedMs, tick } = clock();
    await using server = await startFaultServer((request, count) => {
      tick();
      if (count === 0) return respond(429, { headers: { "Retry-After": "1" } });
      return request.path.includes("/blobs/") ? serveRange(request, blob.bytes) : manifest;
    });
    await using other = await startFaultServer(() => manifest);
    await using registries = new Registries({ limits: QUICK });
    const clientOf = (host: string, repository: string) =>
      new RegistryClient({ host, repository, registries });
    const limited = clientOf(server.host, "os/demo").resolve("latest");
    while (arrivedMs.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    // The answer is read when something else could be done on its connection.
    await new Promise((resolve) => setTimeout(resolve, 100));
    const others = [
      clientOf(server.host, "os/other").resolve("latest"),
      collect(clientOf(server.host, "os/demo").openBlob(blob.descriptor)),
    ];
    expect((await clientOf(other.host, "os/demo").resolve("latest")).descriptor).toEqual(descriptor);
    await Promise.all([limited, ...others]);
    expect(arrivedMs).toHaveLength(4);
    for (const each of arrivedMs.slice(1)) expect(each - (arrivedMs[0] ?? 0)).toBeGreaterThanOrEqual(999);
  });

  it("RP33 RP49 for ever is REGISTRY_RATE_LIMITED after 3 requests, and tells when to come back", async () => {
    const answer = respond(429, { headers: { "Retry-After": "0" } });
    await withRegistry(() => answer, async ({ client, server }) => {
      const failure = await failureOf(client.resolve("latest"));
      expect([failure.code, failure.retryable]).toEqual(["REGISTRY_RATE_LIMITED", true]);
      expect(failure.details["retryAfterMs"]).toBe(0);
      expect(server.requests).toHaveLength(3);
    });
  });

  it.each<[string, string | string[]]>([
    ["-1", "-1"],
    ["nothing", ""],
    ["garbage", "soon"],
    ["a fraction", "0.5"],
    ["two values", ["60", "60"]],
    ["a date in the past", "Wed, 21 Oct 2015 07:28:00 GMT"],
    ["a date that is none", "Wed, 99 Foo 2015 07:28:00 GMT"],
  ])("RP34 Retry-After of %s is as good as none", async (_name, value) => {
    await withRegistry(
      (_request, count) => count === 0 ? respond(429, { headers: { "Retry-After": value } }) : manifest,
      async ({ client, server }) => {
        expect((await client.resolve("latest")).descriptor).toEqual(descriptor);
        expect(server.requests).toHaveLength(2);
      },
    );
  });

  it("RP33 RP50 is not waited for beyond the time there is: the reason is told, not the lack of time", async () => {
    await withRegistry(
      () => respond(429, { headers: { "Retry-After": "1000000000" } }),
      async ({ client, server }) => {
        const deadline = new AbortController();
        const told = Promise.withResolvers<number>();
        const failure = failureOf(client.resolve("latest", {
          signal: deadline.signal,
          onWait: ({ delayMs }) => told.resolve(delayMs),
        }));
        // RP34: however much is asked for, a minute is the most.
        expect(await told.promise).toBe(60_000);
        deadline.abort(new ShimError("REGISTRY_TIMEOUT", "Cannot go on: time is up"));
        expect((await failure).code).toBe("REGISTRY_RATE_LIMITED");
        expect((await failure).details["retryAfterMs"]).toBe(60_000);
        expect(server.requests).toHaveLength(1);
      },
    );
  });
});

describe("a registry's warnings", () => {
  it("RP42 are told once each, escaped and cut, and change nothing", async () => {
    const word = randomWord();
    const values = [
      `299 - "${word} is \\"old\\""`,
      `299 - "${word} is \\"old\\""`,
      // Eight-bit control characters are all that a header can hold of them.
      `299 - "red \u009b31m words"`,
      `299 - "${"x".repeat(9000)}"`,
      '110 - "Response is Stale"',
      "nonsense",
    ];
    const told: string[] = [];
    await using server = await startFaultServer(() =>
      respond(200, { headers: { "Content-Type": OCI_MANIFEST, "Warning": values }, body: bytes })
    );
    await using registries = new Registries({ limits: QUICK, onWarning: (message) => told.push(message) });
    const client = new RegistryClient({ host: server.host, repository: "os/demo", registries });
    for (let i = 0; i < 3; i += 1) {
      expect((await client.resolve("latest")).descriptor).toEqual(descriptor);
    }
    const from = `registry "${server.host}" warns: `;
    expect(told).toHaveLength(3);
    expect(told[0]).toBe(`${from}${word} is "old"`);
    expect(told[1]).toMatch(/ warns: red [ -~]*\\u\{9b\}31m words$/);
    expect(told[2]?.endsWith("x…")).toBe(true);
    // Of one answer, and all of it together.
    expect(Buffer.byteLength(told.map((message) => message.slice(from.length)).join(""))).toBe(4096);
  });

  it.each<[string, readonly string[]]>([
    ["1 MB in one", [`299 - "${"x".repeat(1_000_000)}"`]],
    ["1 MB in one, all of it escaped", [`299 - "${'\\"'.repeat(500_000)}"`]],
    ["1 MB in many", Array.from({ length: 250 }, () => `299 - "${"x".repeat(4000)}"`)],
  ])("RP42 %s are told once, in 4096 bytes, and change nothing", async (_name, values) => {
    const told: string[] = [];
    await using server = await startFaultServer(() =>
      respond(200, { headers: { "Content-Type": OCI_MANIFEST, "Warning": values }, body: bytes })
    );
    await using registries = new Registries({ limits: QUICK, onWarning: (message) => told.push(message) });
    const client = new RegistryClient({ host: server.host, repository: "os/demo", registries });
    for (let i = 0; i < 2; i += 1) {
      expect((await client.resolve("latest")).descriptor).toEqual(descriptor);
    }
    expect(told).toHaveLength(1);
    const words = told[0]?.slice(`registry "${server.host}" warns: `.length) ?? "";
    expect(words).toMatch(/^[x"]{4000,}…?$/);
    expect(Buffer.byteLength(words)).toBeLessThanOrEqual(4096);
  });
});
