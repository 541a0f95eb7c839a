/** Whole pulls from registries that ask who we are: what is in the cache afterwards. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { lstat, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { pullImage } from "../../src/agent/pull_image.ts";
import { Registries } from "../../src/registry/registries.ts";
import { openAgent } from "../support/agent_kit.ts";
import {
  type AuthorizingRegistry,
  authorizingRegistry,
  bearerChallenge,
  canary,
} from "../support/authorizing_registry.ts";
import { type Blob, blobOf, randomBlob } from "../support/blobs.ts";
import { failureOf } from "../support/failures.ts";
import {
  type Answer,
  cutAfter,
  respond,
  type SeenRequest,
  serveRange,
  startFaultServer,
} from "../support/fault_server.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { osImage, randomInitramfs, randomKernel } from "../support/os_image.ts";
import { QUICK } from "../support/registry_client_kit.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const directory = useTemporaryDirectory();
const WISH = { architecture: "amd64", variant: "virtualization", pull: "always" } as const;

/** Answers for one image, by tag `1` and by digests. */
function serveImage(image: ReturnType<typeof osImage>, manifest: Blob = image.manifest) {
  const blobs = [image.config, ...Object.values(image.layers)];
  return (request: SeenRequest): Answer => {
    if (request.path.includes("/manifests/")) {
      return respond(200, {
        headers: { "Content-Type": manifest.descriptor.mediaType },
        body: manifest.bytes,
      });
    }
    const blob = blobs.find(({ descriptor }) => request.path.endsWith(descriptor.digest));
    return blob === undefined ? respond(404) : serveRange(request, blob.bytes);
  };
}

const newImage = (rootfs = randomBlob(20_000).bytes) =>
  osImage({ kernel: randomKernel(), initramfs: randomInitramfs(), rootfs });

/** Every name under a root with its mode and content; lock files come and go. */
async function treeOf(root: string): Promise<readonly string[]> {
  const names = await readdir(root, { recursive: true });
  const lines = await Promise.all(
    names.filter((name) => !name.startsWith("locks/")).map(async (name) => {
      const status = await lstat(join(root, name));
      const content = status.isFile()
        ? createHash("sha256").update(await readFile(join(root, name))).digest("hex")
        : "";
      return `${name} ${status.mode.toString(8)} ${content}`;
    }),
  );
  return lines.sort();
}

type Rig = {
  readonly host: string;
  readonly pull: () => ReturnType<typeof pullImage>;
  readonly root: string;
};

/** An agent that is logged in at a scripted registry by a file of docker's. */
async function withPull(
  { script }: Pick<AuthorizingRegistry, "script">,
  body: (rig: Rig) => Promise<void>,
  { breakFile = () => {} }: { readonly breakFile?: (path: string) => void } = {},
): Promise<void> {
  await using server = await startFaultServer(script);
  const file = join(directory(), "config.json");
  const auth = Buffer.from(`robot:${canary()}`).toString("base64");
  await writeFile(file, JSON.stringify({ auths: { [server.host]: { auth } } }), { mode: 0o600 });
  breakFile(file);
  await using registries = new Registries({
    limits: QUICK,
    authorization: { credentials: { files: [file] } },
  });
  const root = join(directory(), "root");
  const context = await openAgent(root, { registries });
  const reference = { transport: "docker", host: server.host, repository: "os/demo", tag: "1" } as const;
  await body({ host: server.host, root, pull: () => pullImage(context, { ...WISH, reference }) });
}

describe("a pull from a registry that asks who we are", () => {
  it("AU10 whose token ends while its layers come, each of which breaks: S2, by one more token", async () => {
    const image = newImage(randomBlob(3_000_000).bytes);
    const serve = serveImage(image);
    const cut = new Set<string>();
    const registry: AuthorizingRegistry = authorizingRegistry({
      serve: (request) => {
        if (!request.path.includes("/blobs/") || cut.has(request.path)) return serve(request);
        if (cut.size === 0) registry.tokens.clear();
        cut.add(request.path);
        return cutAfter(serve(request), 500, "reset");
      },
    });
    await withPull(registry, async ({ pull, root }) => {
      const { layers } = await pull();
      expect(layers).toHaveLength(3);
      for (const { role, path } of layers) {
        expect((await readFile(path)).equals(image.layers[role]?.bytes ?? new Uint8Array())).toBe(true);
      }
      expect(layoutProblems(root)).toEqual([]);
      expect(cut.size).toBeGreaterThanOrEqual(3);
      expect(registry.tokenRequests).toHaveLength(2);
    });
  });

  it("AU08 whose layer names another place in `urls`: that is never contacted, S0", async () => {
    await using elsewhere = await startFaultServer(() =>
      respond(401, { headers: { "WWW-Authenticate": bearerChallenge("http://x/token") } })
    );
    const image = newImage();
    const missing = randomBlob(5000);
    const document = JSON.parse(new TextDecoder().decode(image.manifest.bytes));
    document.layers[0] = {
      ...document.layers[0],
      digest: missing.descriptor.digest,
      size: 5000,
      urls: [`http://${elsewhere.host}/layer`, `http://user:word@${elsewhere.host}/layer`],
    };
    const manifest = blobOf(new TextEncoder().encode(JSON.stringify(document)), {
      mediaType: image.manifest.descriptor.mediaType,
    });
    const serve = serveImage(image, manifest);
    // Of the other layers nothing has come when one turns out to be missing: what had come would be kept.
    const others = Object.values(image.layers).map(({ descriptor }) => descriptor.digest);
    const serveNone = (request: SeenRequest): Answer =>
      others.some((digest) => request.path.endsWith(digest)) ? [{ hang: true }] : serve(request);
    await withPull(authorizingRegistry({ serve: serveNone }), async ({ pull, root }) => {
      const before = await treeOf(root);
      expect((await failureOf(pull())).code).toBe("REGISTRY_NOT_FOUND");
      expect(elsewhere.connections).toBe(0);
      expect(await treeOf(root)).toEqual(before);
    });
  });

  const serve = (request: SeenRequest) => serveImage(newImage())(request);
  it.each([
    [
      "AU03",
      "REALM_REFUSED",
      authorizingRegistry({ serve, challenge: () => bearerChallenge("https://x.example/t") }),
    ],
    ["AU02", "REGISTRY_PROTOCOL", authorizingRegistry({ serve, challenge: () => 'Bearer realm="' })],
    [
      "AU09",
      "REGISTRY_PROTOCOL",
      authorizingRegistry({ serve, answerToken: () => respond(200, { body: "<p>" }) }),
    ],
    ["AU11", "REGISTRY_DENIED", authorizingRegistry({ serve, password: "never" })],
    ["AU21", "REGISTRY_DENIED", authorizingRegistry({ serve: () => respond(403) })],
  ])("%s %s: S0", async (_id, code, registry) => {
    await withPull(registry, async ({ pull, root }) => {
      const before = await treeOf(root);
      const failure = await failureOf(pull());
      expect([failure.code, failure.retryable]).toEqual([code, false]);
      expect(registry.tokenRequests.length).toBeLessThanOrEqual(2);
      expect(await treeOf(root)).toEqual(before);
    });
  });

  it.each([
    ["a FIFO", (path: string) => `rm '${path}' && mkfifo -m 600 '${path}'`],
    ["no JSON", (path: string) => `echo '{' >'${path}'`],
    ["a link to itself", (path: string) => `rm '${path}' && ln -s '${path}' '${path}'`],
  ])("AU20 with a login file that is %s: CREDENTIALS_INVALID, S0", async (_name, script) => {
    const breakFile = (path: string) => void execFileSync("sh", ["-c", script(path)]);
    await withPull(authorizingRegistry({ serve }), async ({ pull, root }) => {
      const before = await treeOf(root);
      expect((await failureOf(pull())).code).toBe("CREDENTIALS_INVALID");
      expect(await treeOf(root)).toEqual(before);
    }, { breakFile });
  });
});
