import { describe, expect, it } from "vitest";
import { OCI_INDEX, OCI_MANIFEST } from "../../src/image/media_type.ts";
import { parseDigest } from "../../src/image/digest.ts";
import { failureOf } from "../support/failures.ts";
import { type Answer, respond, type SeenRequest, startFaultServer } from "../support/fault_server.ts";
import { randomDigest } from "../support/image_documents.ts";
import { randomWord } from "../support/random_word.ts";
import { withRegistry } from "../support/registry_client_kit.ts";

const json = (value: unknown, headers: Record<string, string> = {}): Answer =>
  respond(200, { headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(value) });
const next = (target: string) => ({ Link: `<${target}>; rel="next"` });
const queryOf = (request: SeenRequest) => new URL(request.path, "http://r").searchParams;

describe("listTags", () => {
  it.each([
    ["relative to the host", (last: string) => `/v2/os/demo/tags/list?n=2&last=${last}`],
    ["relative to the page", (last: string) => `list?n=2&last=${last}`],
    ["a query alone", (last: string) => `?n=2&last=${last}`],
  ])("RP43 reads all pages, by Links %s, also when they are shorter than asked for", async (_name, link) => {
    const tags = Array.from({ length: 7 }, (_none, index) => `${randomWord()}-${index}`);
    await withRegistry((request) => {
      const start = tags.indexOf(queryOf(request).get("last") ?? "") + 1;
      const page = tags.slice(start, start + 2);
      const hasMore = start + 2 < tags.length;
      return json({ name: "os/demo", tags: page }, hasMore ? next(link(page.at(-1) ?? "")) : {});
    }, async ({ client, server }) => {
      expect(await client.listTags()).toEqual([...tags].sort());
      expect(server.requests.map(({ path }) => path.split("?")[0])).toEqual(
        Array(4).fill("/v2/os/demo/tags/list"),
      );
      expect(queryOf(server.requests[0]!).get("n")).toBe("1000");
    });
  });

  it("RP43 reads an absolute Link of its own origin, among other Links", async () => {
    await withRegistry((request, count) =>
      count === 0
        ? json({ tags: ["a"] }, {
          Link: `</v2/>; rel="prev", <http://${request.headers.host}/v2/os/demo/tags/list?last=a>; rel=next`,
        })
        : json({ tags: ["b", "a"] }), async ({ client }) => {
      expect(await client.listTags()).toEqual(["a", "b"]);
    });
  });

  it.each([[{ name: "os/demo", tags: null }], [{ name: "os/demo" }], [{ tags: [] }]])(
    "RP43 %j is no tags",
    async (body) => {
      await withRegistry(() => json(body), async ({ client }) => {
        expect(await client.listTags()).toEqual([]);
      });
    },
  );

  it("RP43 a Link to the page itself is LIMIT_EXCEEDED at once, pages without end at the cap", async () => {
    await withRegistry((request) => json({ tags: ["a"] }, next(request.path)), async ({ client, server }) => {
      expect((await failureOf(client.listTags())).code).toBe("LIMIT_EXCEEDED");
      expect(server.requests).toHaveLength(1);
    });
    await withRegistry(
      (_request, count) => json({ tags: [] }, next(`?last=${count}`)),
      async ({ client, server }) => {
        expect((await failureOf(client.listTags())).code).toBe("LIMIT_EXCEEDED");
        expect(server.requests).toHaveLength(200);
      },
    );
  }, 30_000);

  it("RP43 over 100,000 tags, and a page over 4 MiB, are LIMIT_EXCEEDED", async () => {
    const page = (count: number) =>
      json(
        { tags: Array.from({ length: 20_000 }, (_none, index) => `${count}-${index}`) },
        next(`?last=${count}`),
      );
    await withRegistry((_request, count) => page(count), async ({ client, server }) => {
      expect((await failureOf(client.listTags())).code).toBe("LIMIT_EXCEEDED");
      expect(server.requests).toHaveLength(6);
    });
    await withRegistry(() => json({ tags: ["a".repeat(5 * 1024 * 1024)] }), async ({ client }) => {
      expect((await failureOf(client.listTags())).code).toBe("LIMIT_EXCEEDED");
    });
  }, 30_000);

  it("RP44 a Link to another origin is REDIRECT_REFUSED, and nobody is asked there", async () => {
    await using other = await startFaultServer(() => json({ tags: ["stolen"] }));
    for (
      const target of [
        `http://${other.host}/v2/os/demo/tags/list?last=a`,
        `//${other.host}/v2/os/demo/tags/list`,
      ]
    ) {
      await withRegistry(() => json({ tags: ["a"] }, next(target)), async ({ client }) => {
        expect((await failureOf(client.listTags())).code).toBe("REDIRECT_REFUSED");
      });
    }
    expect(other.connections).toBe(0);
  });

  it.each([
    "/v2/os/other/tags/list?last=a",
    "/token?x=1",
    "/v2/os/demo/tags/list/../../blobs/x",
    "http://[::1",
  ])(
    "RP44 a Link to %s is REGISTRY_PROTOCOL",
    async (target) => {
      await withRegistry(() => json({ tags: ["a"] }, next(target)), async ({ client, server }) => {
        expect((await failureOf(client.listTags())).code).toBe("REGISTRY_PROTOCOL");
        expect(server.requests).toHaveLength(1);
      });
    },
  );

  it.each(["<html>", '{"tags":"a"}', '{"tags":[1]}', '{"tags":["\\u001b[31m"]}', '{"tags":["../x"]}', "[]"])(
    "%s is REGISTRY_PROTOCOL",
    async (body) => {
      await withRegistry(() => respond(200, { body }), async ({ client }) => {
        expect((await failureOf(client.listTags())).code).toBe("REGISTRY_PROTOCOL");
      });
    },
  );
});

describe("listReferrers", () => {
  const digest = parseDigest(randomDigest());
  const entry = (artifactType: string | undefined, mediaType = OCI_MANIFEST) => ({
    mediaType,
    digest: randomDigest(),
    size: 7,
    ...(artifactType === undefined ? {} : { artifactType }),
  });
  const index = (manifests: unknown, headers: Record<string, string> = {}) =>
    json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }, { "Content-Type": OCI_INDEX, ...headers });

  it("RP45 filters by itself, whether the registry did or not", async () => {
    const [signature, sbom, old] = [
      entry("application/signature"),
      entry("application/sbom"),
      entry(undefined, "application/old"),
    ];
    await withRegistry(() => index([signature, sbom, old]), async ({ client, server }) => {
      expect(await client.listReferrers(digest, { artifactType: "application/sbom" })).toEqual([
        { artifactType: "application/sbom", digest: sbom.digest, sizeBytes: 7 },
      ]);
      expect((await client.listReferrers(digest)).map(({ artifactType }) => artifactType)).toEqual([
        "application/signature",
        "application/sbom",
        "application/old",
      ]);
      expect(server.requests[0]?.path).toBe(`/v2/os/demo/referrers/${digest}`);
    });
  });

  it("RP45 a registry without the list has it under a tag made of the digest", async () => {
    const known = entry("application/sbom");
    await withRegistry(
      (request) => request.path.includes("/referrers/") ? respond(404) : index([known]),
      async ({ client, server }) => {
        expect(await client.listReferrers(digest)).toHaveLength(1);
        expect(server.requests[1]?.path).toBe(`/v2/os/demo/manifests/${digest.replace(":", "-")}`);
      },
    );
  });

  it.each<[string, Answer]>([
    ["is missing", respond(404)],
    ["is no index", respond(200, { headers: { "Content-Type": OCI_MANIFEST }, body: "{}" })],
  ])("RP45 nothing refers to an image when that tag %s", async (_name, answer) => {
    await withRegistry(
      (request) => request.path.includes("/referrers/") ? respond(404) : answer,
      async ({ client }) => expect(await client.listReferrers(digest)).toEqual([]),
    );
  });

  it("RP45 over 10,000 entries on many pages, or 100,000 on one, are LIMIT_EXCEEDED", async () => {
    const many = (count: number) => Array.from({ length: count }, () => entry("application/x"));
    const page = many(2_000);
    await withRegistry(
      (_request, count) => index(page, next(`?page=${count}`)),
      async ({ client, server }) => {
        expect((await failureOf(client.listReferrers(digest))).code).toBe("LIMIT_EXCEEDED");
        expect(server.requests).toHaveLength(6);
      },
    );
    const huge = many(100_000);
    await withRegistry(() => index(huge), async ({ client }) => {
      expect((await failureOf(client.listReferrers(digest))).code).toBe("LIMIT_EXCEEDED");
    });
  }, 30_000);

  it("RP45 RP44 a Link to another origin is REDIRECT_REFUSED", async () => {
    await withRegistry(() => index([], next("http://other.example/v2/")), async ({ client }) => {
      expect((await failureOf(client.listReferrers(digest))).code).toBe("REDIRECT_REFUSED");
    });
  });

  it.each([[[{ mediaType: "x", digest: "sha256:zz", size: 1 }]], [[{ digest: randomDigest(), size: 1 }]], [
    "x",
  ]])(
    "entries %j are REGISTRY_PROTOCOL",
    async (manifests) => {
      await withRegistry(() => index(manifests), async ({ client }) => {
        expect((await failureOf(client.listReferrers(digest))).code).toBe("REGISTRY_PROTOCOL");
      });
    },
  );
});
