import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { ShimError } from "../../src/errors.ts";
import { OCI_MANIFEST } from "../../src/image/media_type.ts";
import { respond, type Script } from "../support/fault_server.ts";
import { randomBlob, randomManifest } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import { withRegistry } from "../support/registry_client_kit.ts";
import { streamOf } from "../support/streams.ts";

/** A registry that takes every upload. */
const takeAll: Script = ({ method, path }) =>
  method === "POST"
    ? respond(202, { headers: { Location: `${path}session?_state=a%20b%2Bc` } })
    : respond(201);

describe("RegistryClient.hasBlob", () => {
  it("asks with HEAD: 200 is yes, 404 is no, all else is an error", async () => {
    const { descriptor } = randomBlob(1000);
    const statuses = [200, 404, 403];
    await withRegistry((_request, count) => respond(statuses[count] ?? 500), async ({ client, server }) => {
      expect(await client.hasBlob(descriptor)).toBe(true);
      expect(await client.hasBlob(descriptor)).toBe(false);
      expect((await failureOf(client.hasBlob(descriptor))).code).toBe("REGISTRY_DENIED");
      const asked = server.requests.map(({ method, path }) => `${method} ${path}`);
      expect(asked).toEqual(Array(3).fill(`HEAD /v2/os/demo/blobs/${descriptor.digest}`));
    });
  });
});

describe("RegistryClient.pushBlob", () => {
  it("posts, then puts the bytes in one piece where a relative Location says, its own parameters untouched", async () => {
    const { bytes, descriptor } = randomBlob(100_000);
    await withRegistry(takeAll, async ({ client, server }) => {
      await client.pushBlob(descriptor, () => streamOf(bytes.subarray(0, 12_345), bytes.subarray(12_345)));
      const [post, put] = server.requests;
      expect([post?.method, post?.path]).toEqual(["POST", "/v2/os/demo/blobs/uploads/"]);
      expect([put?.method, put?.path]).toEqual([
        "PUT",
        `/v2/os/demo/blobs/uploads/session?_state=a%20b%2Bc&digest=sha256%3A${descriptor.digest.slice(7)}`,
      ]);
      expect(put?.headers["content-length"]).toBe("100000");
      expect(put?.headers["content-type"]).toBe("application/octet-stream");
      expect(put?.body).toEqual(bytes);
    });
  });

  it("RP35 starts anew with a fresh stream after a 503", async () => {
    const { bytes, descriptor } = randomBlob(100_000);
    let opened = 0;
    const open = () => {
      opened += 1;
      return streamOf(bytes);
    };
    await withRegistry(
      (request, count) => count === 1 ? respond(503) : takeAll(request, count),
      async ({ client, server }) => {
        await client.pushBlob(descriptor, open);
        expect(opened).toBe(2);
        expect(server.requests.map(({ method }) => method)).toEqual(["POST", "PUT", "POST", "PUT"]);
        expect(server.requests[3]?.body).toEqual(bytes);
      },
    );
  });

  it.each([-1, 1])("a source with %i bytes more than its descriptor is CONTENT_SIZE_MISMATCH", async (by) => {
    const { bytes, descriptor } = randomBlob(100_000);
    const wrong = by > 0 ? new Uint8Array([...bytes, 1]) : bytes.subarray(0, by);
    await withRegistry(takeAll, async ({ client, server }) => {
      expect((await failureOf(client.pushBlob(descriptor, () => streamOf(wrong)))).code).toBe(
        "CONTENT_SIZE_MISMATCH",
      );
      expect(server.requests.filter(({ method }) => method === "POST")).toHaveLength(1);
    });
  });

  it("a source that fails ends the upload with its own error", async () => {
    const { bytes, descriptor } = randomBlob(100_000);
    const broken = new ShimError("IO_ERROR", `Cannot read ${randomBytes(4).toString("hex")}`);
    const open = () => {
      let isFirst = true;
      return new ReadableStream<Uint8Array>({
        pull(controller) {
          if (isFirst) controller.enqueue(bytes.subarray(0, 10));
          else controller.error(broken);
          isFirst = false;
        },
      });
    };
    await withRegistry(takeAll, async ({ client }) => {
      expect(await failureOf(client.pushBlob(descriptor, open))).toBe(broken);
    });
  });

  it.each([
    ["missing", {}, "REGISTRY_PROTOCOL"],
    ["a file", { Location: "file:///tmp/x" }, "REDIRECT_REFUSED"],
  ])("RP30 an upload whose Location is %s sends no byte", async (_name, headers, code) => {
    const { bytes, descriptor } = randomBlob(1000);
    await withRegistry(() => respond(202, { headers }), async ({ client, server }) => {
      expect((await failureOf(client.pushBlob(descriptor, () => streamOf(bytes)))).code).toBe(code);
      expect(server.requests).toHaveLength(1);
    });
  });

  it("is CANCELLED by its signal, and lets go of the source", async () => {
    const { descriptor } = randomBlob(1000);
    const stop = new AbortController();
    let isReleased = false;
    const open = () =>
      new ReadableStream<Uint8Array>({
        pull() {
          setTimeout(() => stop.abort(), 50);
          return new Promise(() => {});
        },
        cancel() {
          isReleased = true;
        },
      });
    await withRegistry(takeAll, async ({ client }) => {
      expect((await failureOf(client.pushBlob(descriptor, open, { signal: stop.signal }))).code).toBe(
        "CANCELLED",
      );
      expect(isReleased).toBe(true);
    });
  });
});

describe("RegistryClient.pushDocument", () => {
  it("puts the very bytes with their type under the name", async () => {
    const document = randomManifest();
    const headers = { "Docker-Content-Digest": document.descriptor.digest };
    await withRegistry(() => respond(201, { headers }), async ({ client, server }) => {
      await client.pushDocument(document, "v1");
      const [put] = server.requests;
      expect([put?.method, put?.path]).toEqual(["PUT", "/v2/os/demo/manifests/v1"]);
      expect(put?.headers["content-type"]).toBe(OCI_MANIFEST);
      expect(put?.body).toEqual(document.bytes);
    });
  });

  it("RP06 another digest in the answer is CONTENT_DIGEST_MISMATCH", async () => {
    const headers = { "Docker-Content-Digest": randomManifest().descriptor.digest };
    await withRegistry(() => respond(201, { headers }), async ({ client }) => {
      expect((await failureOf(client.pushDocument(randomManifest(), "v1"))).code).toBe(
        "CONTENT_DIGEST_MISMATCH",
      );
    });
  });

  it("follows no redirect", async () => {
    await withRegistry(() => respond(307, { headers: { Location: "/x" } }), async ({ client, server }) => {
      expect((await failureOf(client.pushDocument(randomManifest(), "v1"))).code).toBe("REGISTRY_PROTOCOL");
      expect(server.requests).toHaveLength(1);
    });
  });
});
