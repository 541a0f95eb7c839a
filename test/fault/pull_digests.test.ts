/** Whole pulls whose digests are unusual, or whose tag is: what is verified, stored and told. */
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { pullImage } from "../../src/agent/pull_image.ts";
import { fromDescriptor } from "../../src/image/descriptor.ts";
import { OCI_MANIFEST } from "../../src/image/media_type.ts";
import { parseReference } from "../../src/image/reference.ts";
import { Registries } from "../../src/registry/registries.ts";
import { openAgent } from "../support/agent_kit.ts";
import { type Blob, blobOf, randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import {
  type FaultServer,
  respond,
  type Script,
  serveRange,
  startFaultServer,
} from "../support/fault_server.ts";
import { writeForeignLayout } from "../support/foreign_layout.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { type OsImage, osImage, osIndex, randomInitramfs, randomKernel } from "../support/os_image.ts";
import { QUICK } from "../support/registry_client_kit.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
const root = () => join(directory(), "root");
const WISH = { architecture: "amd64", variant: "virtualization", pull: "always" } as const;

async function pull(reference: string, pullPolicy: "always" | "missing" = "always") {
  const registries = new Registries({ limits: QUICK });
  try {
    const context = await openAgent(root(), { registries });
    return await pullImage(context, { ...WISH, reference: parseReference(reference), pull: pullPolicy });
  } finally {
    await registries.close();
  }
}

type Published = { readonly root: Blob; readonly blobs: readonly Blob[] };

/** An index by sha512 of a manifest by sha512, whose configuration and layers are too. */
function sha512Image(): Published & { readonly layers: readonly Blob[] } {
  const encode = (json: unknown) => new TextEncoder().encode(JSON.stringify(json));
  const long = (bytes: Uint8Array, mediaType: string) => blobOf(bytes, { mediaType, algorithm: "sha512" });
  const layer = (role: string, bytes: Uint8Array) => long(bytes, `application/vnd.ironcore.image.${role}`);
  const layers = [
    layer("kernel", randomKernel()),
    layer("initramfs", randomInitramfs()),
    layer("rootfs", randomBlob(300_000).bytes),
  ];
  const config = long(encode({}), "application/vnd.ironcore.image.config.v1+json");
  const manifest = long(
    encode({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: fromDescriptor(config.descriptor),
      layers: layers.map(({ descriptor }) => fromDescriptor(descriptor)),
    }),
    OCI_MANIFEST,
  );
  const platform = { architecture: "amd64", os: "linux" };
  const index = osIndex([{
    manifest: { ...manifest, descriptor: { ...manifest.descriptor, platform } },
    config,
    layers: {},
  }]);
  return { root: index, blobs: [manifest, config, ...layers], layers };
}

/** What a registry answers that has these, and whatever tags `rootOf` gives. */
function serve(blobs: readonly Blob[], rootOf: (tag: string) => Blob | undefined): Script {
  return (request) => {
    const name = request.path.split("/").at(-1) ?? "";
    const blob = blobs.find(({ descriptor }) => descriptor.digest === name) ?? rootOf(name);
    if (blob === undefined) return respond(404);
    if (request.path.includes("/blobs/")) return serveRange(request, blob.bytes);
    return respond(200, { headers: { "Content-Type": blob.descriptor.mediaType }, body: blob.bytes });
  };
}

const blobsOf = (
  { manifest, config, layers }: OsImage,
): Blob[] => [manifest, config, ...Object.values(layers)];

describe("HM06 an image by sha512", () => {
  async function fromLayout({ root, blobs }: Published): Promise<string> {
    await writeForeignLayout(join(directory(), "layout"), { entries: [{ ...root, tag: "1" }], blobs });
    return `oci:${join(directory(), "layout")}:1`;
  }

  async function expectStored(layers: readonly Blob[], pulled: Awaited<ReturnType<typeof pull>>) {
    expect(pulled.layers.map(({ path }) => path)).toEqual(
      layers.map(({ descriptor: { digest } }) =>
        join(root(), "images/blobs/sha512", digest.slice("sha512:".length))
      ),
    );
    for (const [i, { path }] of pulled.layers.entries()) {
      expect((await readFile(path)).equals(layers[i]?.bytes ?? new Uint8Array())).toBe(true);
      // Nowhere under a name of the other kind.
      const other = createHash("sha256").update(await readFile(path)).digest("hex");
      await expect(stat(join(root(), "images/blobs/sha256", other))).rejects.toMatchObject({
        code: "ENOENT",
      });
    }
    expect(layoutProblems(root(), { areImagesWhole: true })).toEqual([]);
  }

  it("from a layout is stored under blobs/sha512, and is cached then", async () => {
    const image = sha512Image();
    const reference = await fromLayout(image);
    await expectStored(image.layers, await pull(reference));
    expect((await pull(reference, "missing")).transferredBytes).toBe(0);
  });

  it("from a registry is stored under blobs/sha512, and is cached then", async () => {
    const image = sha512Image();
    await using server = await startFaultServer(serve(image.blobs, () => image.root));
    const reference = `${server.host}/os/demo:1`;
    await expectStored(image.layers, await pull(reference));
    const before = server.requests.length;
    expect((await pull(reference, "missing")).transferredBytes).toBe(0);
    expect(server.requests.length).toBe(before);
  });

  it.each(["kernel", "manifest"])("with a %s of other bytes is refused, and leaves nothing", async (what) => {
    const image = sha512Image();
    const victim = what === "kernel" ? image.layers[0] : image.blobs[0];
    const wrong = new Uint8Array(victim?.bytes ?? []);
    // The last byte alone: whoever does not hash it all does not see it.
    wrong[wrong.length - 1] = (wrong.at(-1) ?? 0) ^ 1;
    const blobs = image.blobs.map((blob) => blob === victim ? { ...blob, bytes: wrong } : blob);
    await using server = await startFaultServer(serve(blobs, () => image.root));
    const failure = await failureOf(pull(`${server.host}/os/demo:1`));
    expect(failure.code).toBe("CONTENT_DIGEST_MISMATCH");
    expect(failure.message).toContain(victim?.descriptor.digest);
    expect(layoutProblems(root())).toEqual([]);
  });
});

describe("HM20 a tag", () => {
  const newImage = () =>
    osImage({ kernel: randomKernel(), initramfs: randomInitramfs(), rootfs: randomBlob(5000).bytes });

  /** By tag the first image until somebody asks for something by digest; from then on the second. */
  function movingTag(first: OsImage, second: OsImage) {
    const [older, newer] = [osIndex([first]), osIndex([second])];
    const blobs = [older, newer, ...blobsOf(first), ...blobsOf(second)];
    let isMoved = false;
    const byName = serve(blobs, () => isMoved ? newer : older);
    const script: Script = (request, count) => {
      isMoved ||= request.path.includes("sha256:");
      return byName(request, count);
    };
    return { script, older, newer };
  }

  const askedByTag = ({ requests }: FaultServer) =>
    requests.filter(({ path }) => path.endsWith("/manifests/1"));

  it("that moves during a pull is asked once: all that comes is of what it stood for then", async () => {
    const [first, second] = [newImage(), newImage()];
    const { script, older, newer } = movingTag(first, second);
    await using server = await startFaultServer(script);
    const reference = `${server.host}/os/demo:1`;
    const pulled = await pull(reference);
    expect(pulled.image.root.digest).toBe(older.descriptor.digest);
    expect(askedByTag(server)).toHaveLength(1);
    for (const { role, path } of pulled.layers) {
      expect((await readFile(path)).equals(first.layers[role]?.bytes ?? new Uint8Array())).toBe(true);
    }
    const foreign = blobsOf(second).map(({ descriptor }) => descriptor.digest);
    expect(server.requests.filter(({ path }) => foreign.some((digest) => path.endsWith(digest)))).toEqual([]);
    // It has moved by now, which the next one sees that asks.
    expect((await pull(reference, "missing")).image.root.digest).toBe(older.descriptor.digest);
    expect((await pull(reference)).image.root.digest).toBe(newer.descriptor.digest);
    expect(layoutProblems(root(), { areImagesWhole: true })).toEqual([]);
  });

  it("named like a digest of something else means what the registry says, and its own digest is told", async () => {
    const [image, other] = [newImage(), newImage()];
    const [index, claimed] = [osIndex([image]), osIndex([other])];
    const tag = claimed.descriptor.digest.replace(":", "-");
    const blobs = [index, claimed, ...blobsOf(image), ...blobsOf(other)];
    await using server = await startFaultServer(serve(blobs, (name) => name === tag ? index : undefined));
    const pulled = await pull(`${server.host}/os/demo:${tag}`);
    expect(pulled.image.root.digest).toBe(index.descriptor.digest);
    expect(server.requests[0]?.path).toBe(`/v2/os/demo/manifests/${tag}`);
    expect(layoutProblems(root(), { areImagesWhole: true })).toEqual([]);
    // Nor does the tag stand for that digest later.
    const byDigest = await pull(`${server.host}/os/demo@${claimed.descriptor.digest}`, "missing");
    expect(byDigest.image.root.digest).toBe(claimed.descriptor.digest);
    expect(byDigest.transferredBytes).toBeGreaterThan(0);
  });

  it("with a digest is a label: the digest decides, wherever the tag has moved", async () => {
    const [first, second] = [newImage(), newImage()];
    const { script, older } = movingTag(first, second);
    await using server = await startFaultServer(script);
    const pulled = await pull(`${server.host}/os/demo:1@${older.descriptor.digest}`);
    expect(pulled.image.root.digest).toBe(older.descriptor.digest);
    expect(askedByTag(server)).toEqual([]);
  });
});
