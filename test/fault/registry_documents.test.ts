import { randomBytes } from "node:crypto";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { parseImageManifest } from "../../src/image/image_manifest.ts";
import { DOCUMENT_TYPES, OCI_INDEX, OCI_MANIFEST } from "../../src/image/media_type.ts";
import { Registries } from "../../src/registry/registries.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { chunk, cutAfter, head, respond, respondChunked, startFaultServer } from "../support/fault_server.ts";
import { blobOf, randomManifest } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import { withRegistry } from "../support/registry_client_kit.ts";

const MAX_DOCUMENT_BYTES = 4 * 1024 * 1024;
const manifestHeaders = { "Content-Type": OCI_MANIFEST };

describe("RegistryClient.resolve", () => {
  it("gives bytes, computed digest and type, and asks once for the documents it can read", async () => {
    const { bytes, descriptor } = randomManifest();
    await withRegistry(
      () => respond(200, { headers: manifestHeaders, body: bytes }),
      async ({ client, server }) => {
        expect(await client.resolve("stable-1")).toEqual({ descriptor, bytes });
        expect(server.requests).toHaveLength(1);
        const [request] = server.requests;
        expect(request?.method).toBe("GET");
        expect(request?.path).toBe("/v2/os/demo/manifests/stable-1");
        expect(request?.headers.accept?.split(", ")).toEqual(DOCUMENT_TYPES);
        expect(request?.headers.accept).toContain("application/vnd.ironcore.image.artifacts.v1+json");
        expect(request?.headers["accept-encoding"]).toBe("identity");
        expect(request?.headers.authorization).toBeUndefined();
      },
    );
  });

  it("RP01 a missing manifest is REGISTRY_NOT_FOUND within a second and is not asked for again", async () => {
    const word = randomBytes(8).toString("hex");
    const body = JSON.stringify({ errors: [{ code: "MANIFEST_UNKNOWN", message: `no ${word}` }] });
    await withRegistry(
      () => respond(404, { headers: { "Content-Type": "application/json" }, body }),
      async ({ client, server }) => {
        const startedAt = performance.now();
        const failure = await failureOf(client.resolve("nothing"));
        expect(performance.now() - startedAt).toBeLessThan(1000);
        expect(failure.code).toBe("REGISTRY_NOT_FOUND");
        expect(failure.message).toBe(
          `Cannot fetch manifest "nothing" of "${server.host}/os/demo": ` +
            `registry answered 404 (MANIFEST_UNKNOWN: no ${word})`,
        );
        expect(failure.details).toEqual({
          status: 404,
          errors: [{ code: "MANIFEST_UNKNOWN", message: `no ${word}` }],
          remedy: "check the repository's name and the tag or digest",
        });
        expect(server.requests).toHaveLength(1);
      },
    );
  });

  it.each([
    ["HTML", "<html><script>x</script></html>"],
    ["nothing", ""],
    ["invalid JSON", '{"errors":['],
    ["JSON of another shape", '{"errors":{"code":7}}'],
    ["control characters", "\u001b]0;owned\u0007\u001b[2J\r\n\u0000\u202e"],
    ["control characters in JSON", JSON.stringify({ errors: [{ code: "\u001b[2J", message: "\u202e\n" }] })],
  ])("RP02 a 418 with %s keeps its code and shows printable characters only", async (_name, body) => {
    await withRegistry(() => respond(418, { body }), async ({ client }) => {
      const failure = await failureOf(client.resolve("latest"));
      expect(failure.code).toBe("REGISTRY_PROTOCOL");
      expect(failure.details.status).toBe(418);
      expect(failure.message).toMatch(/^[\x20-\x7e]+$/);
    });
  });

  it("RP02 an endless error body is read up to 64 KiB and left", async () => {
    const read = new Uint8Array(randomBytes(64 * 1024 + 1));
    await withRegistry(
      // Whoever wants more than 64 KiB waits for it, and that is told as another failure.
      () => [{ send: head(403, { "Content-Length": "100000000" }) }, { send: read }, { hang: true }],
      async ({ client, server }) => {
        const startMs = performance.now();
        const failure = await failureOf(client.resolve("latest"));
        expect([failure.code, failure.details.status]).toEqual(["REGISTRY_DENIED", 403]);
        expect(failure.message.length).toBeLessThan(4096);
        expect(server.requests).toHaveLength(1);
        expect(performance.now() - startMs).toBeLessThan(10_000);
      },
      { stallTimeoutMs: 30_000, rateWindowMs: 30_000 },
    );
  });

  it.each(["text/html; charset=utf-8", "application/json", "", "application/vnd.oci.image.config.v1+json"])(
    "RP03 a 200 of type %j is MEDIA_TYPE_UNSUPPORTED",
    async (contentType) => {
      await withRegistry(
        () => respond(200, { headers: { "Content-Type": contentType }, body: "<html>log in</html>" }),
        async ({ client }) => {
          expect((await failureOf(client.resolve("latest"))).code).toBe("MEDIA_TYPE_UNSUPPORTED");
        },
      );
    },
  );

  it("RP04 the type served, not the body's word, is the descriptor's, so the parser finds the contradiction", async () => {
    const { bytes, descriptor } = randomManifest();
    const artifacts = "application/vnd.ironcore.image.artifacts.v1+json";
    await withRegistry(
      () => respond(200, { headers: { "Content-Type": artifacts }, body: bytes }),
      async ({ client }) => {
        const document = await client.resolve("latest");
        expect(document.descriptor.mediaType).toBe(artifacts);
        expect(() => parseImageManifest(document.bytes, document.descriptor)).toThrow(
          expect.objectContaining({ code: "MANIFEST_INVALID" }),
        );
        expect((await failureOf(client.fetchDocument(descriptor))).code).toBe("MEDIA_TYPE_UNSUPPORTED");
      },
    );
  });

  it("RP05 parameters and case of Content-Type are ignored", async () => {
    const { bytes, descriptor } = randomManifest();
    const contentType = `${OCI_MANIFEST.replace("manifest", "Manifest")} ; charset=utf-8`;
    await withRegistry(
      () => respond(200, { headers: { "Content-Type": contentType }, body: bytes }),
      async ({ client }) => {
        expect((await client.resolve("latest")).descriptor).toEqual(descriptor);
      },
    );
  });

  it.each(["sha256", "sha512"])(
    "RP06 a wrong %s in Docker-Content-Digest is CONTENT_DIGEST_MISMATCH",
    async (name) => {
      const stated = `${name}:${randomBytes(name === "sha256" ? 32 : 64).toString("hex")}`;
      const headers = { ...manifestHeaders, "Docker-Content-Digest": stated };
      await withRegistry(
        () => respond(200, { headers, body: randomManifest().bytes }),
        async ({ client, server }) => {
          expect((await failureOf(client.resolve("latest"))).code).toBe("CONTENT_DIGEST_MISMATCH");
          expect(server.requests).toHaveLength(1);
        },
      );
    },
  );

  it.each(["sha256:../../x", `sha256:${"0".repeat(64)}`])(
    "RP06 a wrong Docker-Content-Digest is told and ignored where the user says so; the digest is computed: %s",
    async (stated) => {
      const { bytes, descriptor } = randomManifest();
      const headers = { ...manifestHeaders, "Docker-Content-Digest": stated };
      await using server = await startFaultServer(() => respond(200, { headers, body: bytes }));
      const told: string[] = [];
      await using registries = new Registries({
        ignoredDigestHeaders: [server.host],
        onWarning: (message) => told.push(message),
      });
      const client = new RegistryClient({ host: server.host, repository: "os/demo", registries });
      for (let i = 0; i < 2; i += 1) expect((await client.resolve("latest")).descriptor).toEqual(descriptor);
      expect(told).toEqual([
        `the Docker-Content-Digest of "${server.host}/os/demo" is wrong, and is ignored as configured`,
      ]);
      // What was asked for by its digest is still that, or nothing.
      const other = randomManifest().descriptor;
      expect((await failureOf(client.resolve(other.digest))).code).toBe("CONTENT_DIGEST_MISMATCH");
    },
  );

  it("RP06 a Docker-Content-Digest that is no digest is REGISTRY_PROTOCOL", async () => {
    const headers = { ...manifestHeaders, "Docker-Content-Digest": "sha256:../../x" };
    await withRegistry(() => respond(200, { headers, body: "{}" }), async ({ client }) => {
      expect((await failureOf(client.resolve("latest"))).code).toBe("REGISTRY_PROTOCOL");
    });
  });

  it("RP07 a digest answered with other bytes is CONTENT_DIGEST_MISMATCH, whatever the header claims", async () => {
    const wanted = randomManifest();
    const other = randomManifest();
    const headers = { ...manifestHeaders, "Docker-Content-Digest": wanted.descriptor.digest };
    await withRegistry(
      (_request, count) =>
        respond(200, { headers: count === 0 ? manifestHeaders : headers, body: other.bytes }),
      async ({ client }) => {
        expect(other.bytes.length).toBe(wanted.bytes.length);
        expect((await failureOf(client.resolve(wanted.descriptor.digest))).code).toBe(
          "CONTENT_DIGEST_MISMATCH",
        );
        expect((await failureOf(client.fetchDocument(wanted.descriptor))).code).toBe(
          "CONTENT_DIGEST_MISMATCH",
        );
      },
    );
  });

  it("RP08 RP09 asks with one GET and no HEAD", async () => {
    const { bytes, descriptor } = randomManifest();
    await withRegistry(
      ({ method }) =>
        method === "GET" ? respond(200, { headers: manifestHeaders, body: bytes }) : respond(405),
      async ({ client, server }) => {
        expect((await client.resolve("latest")).descriptor).toEqual(descriptor);
        expect(server.requests.map(({ method }) => method)).toEqual(["GET"]);
      },
    );
  });

  it.each([500, 502, 503, 504])("RP35 a passing %i is tried again", async (status) => {
    const { bytes, descriptor } = randomManifest();
    await withRegistry(
      (_request, count) =>
        count < 2 ? respond(status, { headers: { "Retry-After": "0" } }) : respond(200, {
          headers: manifestHeaders,
          body: bytes,
        }),
      async ({ client, server }) => {
        expect((await client.resolve("latest")).descriptor).toEqual(descriptor);
        expect(server.requests).toHaveLength(3);
      },
    );
  });

  it("RP35 RP49 a lasting 503 is REGISTRY_UNAVAILABLE after 3 requests at the server", async () => {
    await withRegistry(() => respond(503), async ({ client, server }) => {
      const failure = await failureOf(client.resolve("latest"));
      expect([failure.code, failure.retryable]).toEqual(["REGISTRY_UNAVAILABLE", true]);
      expect(server.requests).toHaveLength(3);
    });
  });

  it.each([
    [400, "REGISTRY_PROTOCOL"],
    [401, "REGISTRY_UNAUTHORIZED"],
    [403, "REGISTRY_DENIED"],
    [404, "REGISTRY_NOT_FOUND"],
    [405, "REGISTRY_PROTOCOL"],
    [406, "REGISTRY_PROTOCOL"],
    [410, "REGISTRY_PROTOCOL"],
    [413, "REGISTRY_PROTOCOL"],
    [451, "REGISTRY_PROTOCOL"],
  ])("RP36 %i is %s and is not tried again", async (status, code) => {
    await withRegistry(() => respond(status), async ({ client, server }) => {
      expect((await failureOf(client.resolve("latest"))).code).toBe(code);
      expect(server.requests).toHaveLength(1);
    });
  });

  it("tries again after a document that was cut, and never takes the part for the whole", async () => {
    const { bytes, descriptor } = randomManifest();
    const answer = respond(200, { headers: manifestHeaders, body: bytes });
    await withRegistry(
      (_request, count) => count === 0 ? cutAfter(answer, 20, "close") : answer,
      async ({ client }) => {
        expect((await client.resolve("latest")).descriptor).toEqual(descriptor);
      },
    );
    await withRegistry(() => cutAfter(answer, 20, "close"), async ({ client, server }) => {
      expect((await failureOf(client.resolve("latest"))).code).toBe("REGISTRY_UNAVAILABLE");
      expect(server.requests).toHaveLength(3);
    });
  });

  it("HM01 a declared 4 MiB and 1 byte is MANIFEST_TOO_LARGE before the body", async () => {
    const headers = { ...manifestHeaders, "Content-Length": String(MAX_DOCUMENT_BYTES + 1) };
    await withRegistry(() => [{ send: head(200, headers) }, { hang: true }], async ({ client }) => {
      expect((await failureOf(client.resolve("latest"))).code).toBe("MANIFEST_TOO_LARGE");
    });
  });

  it("HM01 an endless manifest is MANIFEST_TOO_LARGE and its connection is closed", async () => {
    const headers = { ...manifestHeaders, "Transfer-Encoding": "chunked" };
    const sendForever = chunk(new Uint8Array(64 * 1024).fill(0x20));
    await withRegistry(() => [{ send: head(200, headers) }, { sendForever }], async ({ client, server }) => {
      expect((await failureOf(client.resolve("latest"))).code).toBe("MANIFEST_TOO_LARGE");
      expect(server.requests).toHaveLength(1);
      // The kernel's own buffers come on top of what was read.
      expect(server.sentBytes).toBeLessThan(MAX_DOCUMENT_BYTES + 16 * 1024 * 1024);
    });
  });

  it("HM01 a document of exactly 4 MiB is read", async () => {
    const bytes = new Uint8Array(MAX_DOCUMENT_BYTES).fill(0x20);
    await withRegistry(
      () => respondChunked(200, { headers: manifestHeaders, body: bytes }),
      async ({ client }) => {
        expect((await client.resolve("latest")).descriptor).toEqual(
          blobOf(bytes, { mediaType: OCI_MANIFEST }).descriptor,
        );
      },
    );
  });

  it("HM01 a descriptor over 4 MiB sends no request", async () => {
    await withRegistry(() => respond(200), async ({ client, server }) => {
      const descriptor = { ...randomManifest().descriptor, sizeBytes: MAX_DOCUMENT_BYTES + 1 };
      expect((await failureOf(client.fetchDocument(descriptor))).code).toBe("MANIFEST_TOO_LARGE");
      expect(server.requests).toHaveLength(0);
    });
  });

  it("HM02 broken JSON is told as a wrong size or digest first, and as broken only when verified", async () => {
    const bytes = new TextEncoder().encode(`{"manifests":[${randomBytes(20).toString("hex")}`);
    const { descriptor } = blobOf(bytes, { mediaType: OCI_INDEX });
    await withRegistry(
      () => respond(200, { headers: { "Content-Type": OCI_INDEX }, body: bytes }),
      async ({ client }) => {
        expect(await client.fetchDocument(descriptor)).toEqual({ descriptor, bytes });
        const longer = { ...descriptor, sizeBytes: descriptor.sizeBytes + 1 };
        expect((await failureOf(client.fetchDocument(longer))).code).toBe("CONTENT_SIZE_MISMATCH");
        const { digest } = randomManifest().descriptor;
        expect((await failureOf(client.fetchDocument({ ...descriptor, digest }))).code).toBe(
          "CONTENT_DIGEST_MISMATCH",
        );
      },
    );
  });

  it.each(["br", "zstd", "gzip, gzip", "x-unknown"])(
    "RP40 a manifest with Content-Encoding %s is REGISTRY_PROTOCOL",
    async (coding) => {
      const headers = { ...manifestHeaders, "Content-Encoding": coding };
      await withRegistry(() => respond(200, { headers, body: "{}" }), async ({ client, server }) => {
        expect((await failureOf(client.resolve("latest"))).code).toBe("REGISTRY_PROTOCOL");
        expect(server.requests.map(({ headers }) => headers["accept-encoding"])).toEqual(["identity"]);
      });
    },
  );

  it.each(["gzip", "GZIP", "x-gzip"])(
    "RP41 a manifest that comes in %s although nobody asked is decoded, and its digest is of what it unpacks to",
    async (coding) => {
      const { descriptor, bytes } = randomManifest();
      const headers = {
        ...manifestHeaders,
        "Content-Encoding": coding,
        "Docker-Content-Digest": descriptor.digest,
      };
      await withRegistry(() => respond(200, { headers, body: gzipSync(bytes) }), async ({ client }) => {
        expect((await client.resolve("latest")).bytes).toEqual(bytes);
        expect(await client.fetchDocument(descriptor)).toEqual({ descriptor, bytes });
        const { digest } = randomManifest().descriptor;
        expect((await failureOf(client.resolve(digest))).code).toBe("CONTENT_DIGEST_MISMATCH");
      });
    },
  );

  it("RP41 RP40 a gzip bomb is MANIFEST_TOO_LARGE, broken gzip REGISTRY_PROTOCOL", async () => {
    const whole = gzipSync(new Uint8Array(4 * 1024 * 1024));
    const bodies: readonly (readonly [Uint8Array | string, string])[] = [
      [gzipSync(new Uint8Array(4 * 1024 * 1024 + 1)), "MANIFEST_TOO_LARGE"],
      [gzipSync(new Uint8Array(100 * 1024 * 1024)), "MANIFEST_TOO_LARGE"],
      [whole.subarray(0, whole.length - 9), "REGISTRY_PROTOCOL"],
      ["{}", "REGISTRY_PROTOCOL"],
    ];
    const headers = { ...manifestHeaders, "Content-Encoding": "gzip" };
    await withRegistry(
      (_request, count) => respond(200, { headers, body: bodies[count]?.[0] ?? "" }),
      async ({ client, server }) => {
        for (const [, code] of bodies) expect((await failureOf(client.resolve("latest"))).code).toBe(code);
        expect(server.requests).toHaveLength(bodies.length);
      },
    );
  });

  it.each(["../../x", "a/b", "a?b", "", ".", "a\r\nHost: x", "x".repeat(129), "sha256:zz", "sha1:aa"])(
    "sends nothing for the name %j",
    async (name) => {
      await withRegistry(() => respond(200), async ({ client, server }) => {
        await failureOf(client.resolve(name));
        expect(server.requests).toHaveLength(0);
      });
    },
  );

  it("is CANCELLED by its signal, before and during the request", async () => {
    await withRegistry(() => [{ hang: true }], async ({ client, server }) => {
      expect((await failureOf(client.resolve("latest", { signal: AbortSignal.abort() }))).code).toBe(
        "CANCELLED",
      );
      expect(server.requests).toHaveLength(0);
      const stop = new AbortController();
      const resolving = failureOf(client.resolve("latest", { signal: stop.signal }));
      setTimeout(() => stop.abort(), 50);
      expect((await resolving).code).toBe("CANCELLED");
    });
  });
});
