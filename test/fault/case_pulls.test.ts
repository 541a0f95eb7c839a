/** Cases of the registry protocol, as whole pulls: the code, and the cache before and after, byte by byte. */
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { listTags } from "../../src/agent/list_registry.ts";
import { parseReference } from "../../src/image/reference.ts";
import { openAgent } from "../support/agent_kit.ts";
import { bootshim } from "../support/bootshim_command.ts";
import {
  CAME_BYTES,
  type CaseRig,
  isRootfs,
  onManifest,
  onResume,
  onRootfs,
  type PullCase,
  ROOTFS_BYTES,
  usePullCases,
} from "../support/case_kit.ts";
import {
  type Answer,
  cutAfter,
  head,
  respond,
  type SeenRequest,
  startFaultServer,
} from "../support/fault_server.ts";
import { treeOf } from "../support/pull_kit.ts";
import { failureOf, refusalOf } from "../support/failures.ts";
import { MEMORY_DIRECTORY, useTemporaryDirectory } from "../support/temporary_directory.ts";

const run = usePullCases();

const redirect = (location: string | readonly string[]) => respond(307, { headers: { Location: location } });
const toStorage = (path: string) => (_request: SeenRequest, _count: number, { storage }: CaseRig) =>
  redirect(`http://${storage}${path}`);
const partOf = ({ image }: CaseRig, first: number, end = ROOTFS_BYTES) =>
  image.layers.rootfs?.bytes.subarray(first, end) ?? new Uint8Array();
/** A 206 with the bytes that were asked for, under another head. */
const labelled = (headers: Readonly<Record<string, string | readonly string[]>>): PullCase => ({
  registry: onResume((_request, _count, rig) => respond(206, { headers, body: partOf(rig, CAME_BYTES) })),
  ends: ["S1", "REGISTRY_PROTOCOL"],
});
const manifestHead = (
  { image }: CaseRig,
  more: Readonly<Record<string, string | readonly string[]>> = {},
) => ({
  "Content-Type": image.manifest.descriptor.mediaType,
  ...more,
});
const manifestAs = (
  more: Readonly<Record<string, string | readonly string[]>>,
  ends: PullCase["ends"],
): PullCase => ({
  registry: onManifest((_request, _count, rig) =>
    respond(200, { headers: manifestHead(rig, more), body: rig.image.manifest.bytes })
  ),
  ends,
});
const refusing = (status: number, body: string): PullCase["registry"] =>
  onManifest(() => respond(status, { body }));
const location = (
  value: string | readonly string[],
  code: "REDIRECT_REFUSED" | "REGISTRY_PROTOCOL",
): PullCase => ({
  registry: onRootfs(() => redirect(value)),
  ends: ["S0", code],
});
const malformed = (send: string): PullCase => ({
  registry: onManifest(() => [{ send }, { close: true }]),
  ends: ["S0", "REGISTRY_PROTOCOL"],
});
const coded = (coding: string): PullCase => ({
  registry: onRootfs((_request, _count, rig) =>
    respond(200, { headers: { "Content-Encoding": coding }, body: partOf(rig, 0) })
  ),
  ends: ["S0", "REGISTRY_PROTOCOL"],
});
/** The registry redirects each time anew, and the storage cuts the rootfs off once and then refuses so many of them. */
const refusingStorage = (refusals: number, ends: PullCase["ends"], ranges: readonly string[]): PullCase => ({
  registry: onRootfs((_request, count, { storage }) => redirect(`http://${storage}/b?signature=${count}`)),
  storage: (rig) => ({ headers }, count) => {
    if (count > 0 && count <= refusals) return respond(403, { body: "<Code>AccessDenied</Code>" });
    const path = rig.image.layers.rootfs?.descriptor.digest ?? "";
    const answer = rig.serve({ headers, path } as SeenRequest);
    return count === 0 ? cutAfter(answer, CAME_BYTES, "close") : answer;
  },
  ends,
  heard: ({ storage }) => {
    expect(storage.requests.map(({ path }) => path)).toEqual(ranges.map((_, i) => `/b?signature=${i}`));
    expect(storage.requests.map(({ headers }) => headers["range"] ?? "all")).toEqual(ranges);
  },
});
const onceBefore = (answer: Answer): PullCase => ({
  registry: onRootfs((request, count, rig) => count === 0 ? answer : rig.serve(request)),
  ends: ["S2"],
});
const encoder = new TextEncoder();
const HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n";
/** What is asked for of a rootfs that was cut off. */
const REST = `bytes=${CAME_BYTES}-${ROOTFS_BYTES - 1}`;
const WRONG_DIGEST = `sha256:${"0".repeat(64)}`;

const CASES: readonly (readonly [name: string, row: PullCase])[] = [
  ["RP02 HTML", { registry: refusing(418, "<html>"), ends: ["S0", "REGISTRY_PROTOCOL"] }],
  ["RP02 nothing", { registry: refusing(418, ""), ends: ["S0", "REGISTRY_PROTOCOL"] }],
  ["RP02 invalid JSON", { registry: refusing(403, '{"errors":['), ends: ["S0", "REGISTRY_DENIED"] }],
  ["RP02 control characters", {
    registry: refusing(404, "\u001b[2J\0\r"),
    ends: ["S0", "REGISTRY_NOT_FOUND"],
  }],
  ["RP02 100 MB", {
    registry: onManifest(() => [
      { send: head(403, { "Content-Length": "100000000" }) },
      { sendForever: new Uint8Array(65536) },
    ]),
    ends: ["S0", "REGISTRY_DENIED"],
  }],
  ["RP03 a captive portal", {
    registry: onManifest(() => respond(200, { headers: { "Content-Type": "text/html" }, body: "<p>" })),
    ends: ["S0", "MEDIA_TYPE_UNSUPPORTED"],
  }],
  [
    "RP04 another Content-Type than the body's",
    manifestAs({ "Content-Type": "application/vnd.docker.distribution.manifest.v2+json" }, [
      "S0",
      "MANIFEST_INVALID",
    ]),
  ],
  ["RP05 parameters of the Content-Type", {
    registry: onManifest((_request, _count, rig) =>
      respond(200, {
        headers: { "Content-Type": `${rig.image.manifest.descriptor.mediaType}; charset=utf-8` },
        body: rig.image.manifest.bytes,
      })
    ),
    ends: ["S2"],
  }],
  [
    "RP06 another digest in the head",
    manifestAs({ "Docker-Content-Digest": WRONG_DIGEST }, ["S0", "CONTENT_DIGEST_MISMATCH"]),
  ],
  ...[405, 404, 400].map((status) =>
    [`RP08 HEAD is ${status}`, {
      registry: onManifest((request, _count, rig) =>
        request.method === "HEAD" ? respond(status) : rig.serve(request)
      ),
      ends: ["S2"],
    }] as const
  ),
  ["RP09 HEAD is of another image", {
    registry: onManifest((request, _count, rig) =>
      request.method === "HEAD"
        ? respond(200, {
          headers: manifestHead(rig, { "Docker-Content-Digest": WRONG_DIGEST, "Content-Length": "7" }),
        })
        : rig.serve(request)
    ),
    ends: ["S2"],
  }],
  ["RP18 headers never come", {
    registry: onManifest(() => [{ hang: true }]),
    ends: ["S0", "REGISTRY_TIMEOUT"],
  }],
  ["RP18 headers never come for the rest of a layer", {
    registry: onResume(() => [{ hang: true }]),
    ends: ["S1", "REGISTRY_TIMEOUT"],
  }],
  ["RP19 a resume gets all of it", {
    registry: onResume((_request, _count, rig) => respond(200, { body: partOf(rig, 0) })),
    ends: ["S2"],
  }],
  ["RP20 a resume gets what begins later", {
    registry: onResume((_request, _count, rig) =>
      respond(206, {
        headers: { "Content-Range": `bytes ${CAME_BYTES + 1}-${ROOTFS_BYTES - 1}/${ROOTFS_BYTES}` },
        body: partOf(rig, CAME_BYTES + 1),
      })
    ),
    ends: ["S1", "REGISTRY_PROTOCOL"],
  }],
  ["RP20 a resume gets what begins earlier", {
    registry: onResume((_request, _count, rig) =>
      respond(206, {
        headers: { "Content-Range": `bytes ${CAME_BYTES - 1}-${ROOTFS_BYTES - 1}/${ROOTFS_BYTES}` },
        body: partOf(rig, CAME_BYTES - 1),
      })
    ),
    ends: ["S1", "REGISTRY_PROTOCOL"],
  }],
  ["RP21 no Content-Range", labelled({})],
  [
    "RP21 two of them",
    labelled({ "Content-Range": ["bytes 150000-199999/200000", "bytes 0-199999/200000"] }),
  ],
  ...[
    "bytes x-y/z",
    "bytes 150000-199999",
    "bytes 150000-199999/200001",
    "bytes 150000-199999/199999",
    "bytes */200000",
    "bytes 150000-149999/200000",
    "bytes 150000-200000/200000",
    "bytes 150000-99999999999999999999999/200000",
    "bytes -150000-199999/200000",
    "bytes 150000.0-199999/200000",
    "items 150000-199999/200000",
    "150000-199999/200000",
    "bytes 150000-160000/200000",
    "bytes 150000-160000/200000, 160001-199999/200000",
    "",
  ].map((value) => [`RP21 "${value}"`, labelled({ "Content-Range": value })] as const),
  [
    "RP22 multipart/byteranges",
    labelled({
      "Content-Type": "multipart/byteranges; boundary=x",
      "Content-Range": "bytes 150000-199999/200000",
    }),
  ],
  ["RP22 a 206 that nobody asked for", {
    registry: onRootfs((_request, _count, rig) =>
      respond(206, { headers: { "Content-Range": "bytes 0-199999/200000" }, body: partOf(rig, 0) })
    ),
    ends: ["S0", "REGISTRY_PROTOCOL"],
  }],
  ["RP25 storage elsewhere, which hears nothing of who we are", {
    registry: (rig) => (request) =>
      request.headers.authorization === undefined
        ? respond(401, { headers: { "WWW-Authenticate": "Basic realm=x" } })
        : isRootfs(request, rig)
        ? redirect(`http://${rig.storage}/v2/os/demo/blobs/${rig.image.layers.rootfs?.descriptor.digest}`)
        : rig.serve(request),
    loginAt: (port) => `registry.example.com:${port}`,
    ends: ["S2"],
    heard: ({ storage }) => {
      expect(storage.requests).toHaveLength(1);
      expect(Object.keys(storage.requests[0]?.headers ?? {})).not.toContain("authorization");
      expect(Object.keys(storage.requests[0]?.headers ?? {})).not.toContain("cookie");
    },
  }],
  ["RP26 a loop", {
    registry: onRootfs(({ path }) => redirect(path)),
    ends: ["S0", "REDIRECT_REFUSED"],
  }],
  ["RP26 a sixth hop", {
    registry: (rig) => (request) => {
      const hop = Number(/^\/hop([0-9])$/.exec(request.path)?.[1] ?? "0");
      return hop > 0 || isRootfs(request, rig) ? redirect(`/hop${hop + 1}`) : rig.serve(request);
    },
    ends: ["S0", "REDIRECT_REFUSED"],
  }],
  ["RP27 from https to http", {
    registry: onRootfs(toStorage("/b")),
    isTls: true,
    ends: ["S0", "REDIRECT_REFUSED"],
    heard: ({ storage }) => expect(storage.connections).toBe(0),
  }],
  ...[
    "127.0.0.1",
    "[::ffff:127.0.0.1]",
    "2130706433",
    "0177.1",
    "0x7f.1",
    "0.0.0.0",
    "inside.example.com",
  ]
    .map((host) =>
      [`RP28 to ${host}`, {
        registry: onRootfs((_request, _count, { localPort }) => redirect(`http://${host}:${localPort}/b`)),
        ends: ["S0", "REDIRECT_REFUSED"],
      }] as const
    ),
  ...["169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "192.168.1.1", "intranet.example.com"].map((host) =>
    [`RP28 to ${host}`, location(`http://${host}/b`, "REDIRECT_REFUSED")] as const
  ),
  ...["file:///etc/shadow", "data:text/plain,x", "unix:///run/x", "ftp://127.0.0.1/x"].map((value) =>
    [`RP30 to ${value}`, location(value, "REDIRECT_REFUSED")] as const
  ),
  ...["", "http://", "http://[::1", `/${"a".repeat(17 * 1024)}`, "/a\r b"].map((value, i) =>
    [`RP30 a Location that is none, ${i}`, location(value, "REGISTRY_PROTOCOL")] as const
  ),
  ["RP30 two Locations", location(["/a", "/b"], "REGISTRY_PROTOCOL")],
  ["RP30 no Location", { registry: onRootfs(() => respond(307)), ends: ["S0", "REGISTRY_PROTOCOL"] }],
  ["RP31 a signature that expires", {
    registry: onRootfs((_request, count, { storage }) => redirect(`http://${storage}/b?signature=${count}`)),
    storage: (rig) => {
      const used = new Set<string>();
      return ({ path, headers }) => {
        if (used.has(path)) return respond(403, { body: "<Code>AccessDenied</Code>" });
        used.add(path);
        const request = { headers, path: rig.image.layers.rootfs?.descriptor.digest ?? "" } as SeenRequest;
        const answer = rig.serve(request);
        return used.size > 1
          ? answer
          : [...answer.slice(0, 1), { send: partOf(rig, 0, CAME_BYTES) }, { close: true }];
      };
    },
    ends: ["S2"],
  }],
  [
    "RP31 a fresh redirect that is refused, too: one more is asked for",
    refusingStorage(1, ["S2"], ["all", REST, REST]),
  ],
  [
    "RP31 storage that refuses for good: one more redirect, and no other",
    refusingStorage(Infinity, ["S1", "REGISTRY_DENIED"], ["all", REST, REST]),
  ],
  ["RP32 the same host at another port, which hears nothing of who we are", {
    registry: (rig) => (request) =>
      request.headers.authorization === undefined
        ? respond(401, { headers: { "WWW-Authenticate": "Basic realm=x" } })
        : isRootfs(request, rig)
        ? redirect(`http://${rig.storage.replace(/^[^:]*/, "registry.example.com")}${request.path}`)
        : rig.serve(request),
    loginAt: (port) => `registry.example.com:${port}`,
    ends: ["S2"],
    heard: ({ storage }) =>
      expect(storage.requests.map(({ headers }) => headers.authorization)).toEqual([undefined]),
  }],
  ...["Thu, 01 Jan 1970 00:00:00 GMT", "-1", "", "soon", "0"].map((value) =>
    [
      `RP34 429 with Retry-After "${value}", once`,
      onceBefore(respond(429, { headers: { "Retry-After": value } })),
    ] as const
  ),
  ["RP34 429 with two of them, once", onceBefore(respond(429, { headers: { "Retry-After": ["0", "0"] } }))],
  ...[500, 502, 503, 504].map((status) =>
    [`RP35 ${status}, once`, onceBefore(respond(status, { headers: { "Retry-After": "0" } }))] as const
  ),
  ...([
    [400, "REGISTRY_PROTOCOL"],
    [401, "REGISTRY_UNAUTHORIZED"],
    [403, "REGISTRY_DENIED"],
    [404, "REGISTRY_NOT_FOUND"],
    [405, "REGISTRY_PROTOCOL"],
    [406, "REGISTRY_PROTOCOL"],
    [410, "REGISTRY_PROTOCOL"],
    [413, "REGISTRY_PROTOCOL"],
    [451, "REGISTRY_PROTOCOL"],
  ] as const).flatMap(([status, code]) => [
    [`RP36 ${status} for a manifest`, { registry: refusing(status, ""), ends: ["S0", code] }] as const,
    [`RP36 ${status} for a layer`, {
      registry: onRootfs(() => respond(status)),
      ends: ["S0", code],
    }] as const,
    [`RP36 ${status} for the rest of a layer`, {
      registry: onResume(() => respond(status)),
      ends: ["S1", code],
    }] as const,
  ]),
  ["RP37 an idle connection that closes as we send", onceBefore([{ close: true }])],
  ["RP37 one that is reset", onceBefore([{ reset: true }])],
  ["RP39 a bad status line", malformed("HTPP/9 hello\r\n\r\n")],
  ["RP39 a header over 16 KiB", malformed(`${HEAD}X-A: ${"a".repeat(17 * 1024)}\r\n\r\n`)],
  ["RP39 2,000 headers", malformed(`${HEAD}${"X-A: 123456789\r\n".repeat(2000)}\r\n`)],
  ["RP39 a folded header", malformed(`${HEAD}X-A: one\r\n two\r\nContent-Length: 2\r\n\r\n{}`)],
  [
    "RP39 a length and chunks",
    malformed(`${HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`),
  ],
  ["RP39 two lengths", malformed(`${HEAD}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello`)],
  ["RP39 a negative length", malformed(`${HEAD}Content-Length: -5\r\n\r\nhello`)],
  ["RP39 a bad chunk size", malformed(`${HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n`)],
  ...["gzip", "zstd", "br", "gzip, gzip, gzip, gzip, gzip, gzip"].map((coding) =>
    [`RP40 a layer in ${coding}`, coded(coding)] as const
  ),
  ["RP40 the rest of a layer in gzip", {
    registry: onResume((_request, _count, rig) =>
      respond(206, {
        headers: { "Content-Encoding": "gzip", "Content-Range": "bytes 150000-199999/200000" },
        body: gzipSync(partOf(rig, CAME_BYTES)),
      })
    ),
    ends: ["S1", "REGISTRY_PROTOCOL"],
  }],
  ["RP41 a manifest in gzip", {
    registry: onManifest((_request, _count, rig) =>
      respond(200, {
        headers: manifestHead(rig, { "Content-Encoding": "gzip" }),
        body: gzipSync(rig.image.manifest.bytes),
      })
    ),
    ends: ["S2"],
  }],
  [
    "RP42 warnings",
    manifestAs({ "Warning": ['299 - "old"', '299 - "old"', `299 - "${"x".repeat(9000)}"`, "nonsense"] }, [
      "S2",
    ]),
  ],
  ["RP42 a warning of 1 MB", manifestAs({ "Warning": `299 - "${"x".repeat(1_000_000)}"` }, ["S2"])],
  [
    "RP42 1 MB of warnings",
    manifestAs({ "Warning": Array.from({ length: 250 }, (_, i) => `299 - "${i}${"x".repeat(4000)}"`) }, [
      "S2",
    ]),
  ],
  [
    "RP42 RP39 a header over 16 KiB behind a warning of 1 MB",
    manifestAs({ "Warning": `299 - "${"x".repeat(1_000_000)}"`, "X-A": "a".repeat(17 * 1024) }, [
      "S0",
      "REGISTRY_PROTOCOL",
    ]),
  ],
  [
    "RP42 RP39 warnings without end",
    {
      registry: onManifest(() => [{ send: HEAD }, { sendForever: encoder.encode('Warning: 299 - "x"\r\n') }]),
      ends: ["S0", "REGISTRY_PROTOCOL"],
    },
  ],
  ["RP48 a connection that is reset at once", {
    registry: () => () => [{ reset: true }],
    ends: ["S0", "REGISTRY_UNAVAILABLE"],
  }],
];

it.concurrent.each(CASES)("%s", async (_name, row) => {
  await run(row);
});

describe("what asks a registry for no image", () => {
  const temporary = useTemporaryDirectory(MEMORY_DIRECTORY);

  it("RP44 a list of tags that goes on elsewhere: REDIRECT_REFUSED, nothing is asked there, S0", async () => {
    await using elsewhere = await startFaultServer(() => respond(200, { body: '{"tags":[]}' }));
    const link = `<http://${elsewhere.host}/v2/os/demo/tags/list?last=a>; rel="next"`;
    await using server = await startFaultServer(() =>
      respond(200, { headers: { Link: link }, body: '{"tags":["a"]}' })
    );
    const context = await openAgent(join(temporary(), "root"));
    const before = await treeOf(context.rootDirectory);
    const listing = listTags(context, { host: server.host, repository: "os/demo" });
    expect((await failureOf(listing)).code).toBe("REDIRECT_REFUSED");
    expect(elsewhere.connections).toBe(0);
    expect(await treeOf(context.rootDirectory)).toEqual(before);
    await context.registries.close();
  });

  it("RP46 references that are none: REFERENCE_INVALID before anything is asked, S0", async () => {
    await using server = await startFaultServer(() => respond(404));
    const root = join(temporary(), "root");
    await openAgent(root);
    const before = await treeOf(root);
    const { host } = server;
    const names = [
      ...[`${host}/OS/demo:1`, `${host}/os/../demo:1`, `${host}/os//demo:1`, `${host}/${"a".repeat(256)}:1`],
      ...[`${host}/os/demo:${"a".repeat(129)}`, `${host}/os/demo@sha256:${"A".repeat(64)}`],
      ...[`${host}/os/d\u00e9mo:1`, `${host}/os/demo:1\r\nX: y`, `user@${host}/os/demo:1`],
    ];
    for (const name of names) {
      expect([name, refusalOf(() => parseReference(name)).code]).toEqual([name, "REFERENCE_INVALID"]);
    }
    // By the real command, which would ask next.
    for (const name of [names[1] ?? "", names[5] ?? "", names[7] ?? ""]) {
      const { stderr } = await bootshim(["pull", name, "-o", "json"], { root });
      expect(JSON.parse(stderr)).toMatchObject({ error: { code: "REFERENCE_INVALID" } });
    }
    expect(server.connections).toBe(0);
    expect(await treeOf(root)).toEqual(before);
  });
});
