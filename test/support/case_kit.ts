/**
 * One case to survive, as a row of a table: how a registry misbehaves, what a pull must say, and what the cache must hold
 * afterwards, byte by byte. S0: what it held before; where a layer was refused, the image's others may have begun. S1: that,
 * and the beginning of the layer, which the next pull continues. S2: the image, whole.
 */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { pullImage } from "../../src/agent/pull_image.ts";
import { type ErrorCode, ShimError } from "../../src/errors.ts";
import { Registries } from "../../src/registry/registries.ts";
import { openAgent } from "./agent_kit.ts";
import { type Blob, randomBlob } from "./blobs.ts";
import { type Certificate, TestAuthority } from "./certificates.ts";
import {
  type Answer,
  cutAfter,
  type FaultServer,
  type Script,
  type SeenRequest,
  startFaultServer,
} from "./fault_server.ts";
import { layoutProblems } from "./layout_checker.ts";
import { namedNetwork, PRIVATE_ADDRESS, PUBLIC_ADDRESS } from "./named_network.ts";
import { type OsImage, osImage, randomInitramfs, randomKernel } from "./os_image.ts";
import { isRight, serveImage, treeOf } from "./pull_kit.ts";
import { QUICK } from "./registry_client_kit.ts";
import { MEMORY_DIRECTORY } from "./temporary_directory.ts";

const NAMES = {
  "registry.example.com": [PUBLIC_ADDRESS],
  "cdn.other.example": [PUBLIC_ADDRESS],
  "inside.example.com": ["127.0.0.1"],
  "intranet.example.com": [PRIVATE_ADDRESS],
};
export const ROOTFS_BYTES = 200_000;
/** What comes before a script breaks the rootfs off. */
export const CAME_BYTES = 150_000;
/** What may be lost of that: the part of a block that was not written yet. */
const BLOCK_BYTES = 64 * 1024;
export const LOGIN = { username: "robot", password: "the robot's password" };

export type CaseRig = {
  readonly image: OsImage;
  /** What a registry that is well answers. */
  readonly serve: (request: SeenRequest) => Answer;
  /** `cdn.other.example:PORT`, where storage is. */
  readonly storage: string;
  /** A port of this host where somebody listens who must not be asked. */
  readonly localPort: number;
};

export type PullCase = {
  readonly registry: (rig: CaseRig) => Script;
  readonly storage?: (rig: CaseRig) => Script;
  readonly ends: readonly ["S0" | "S1", ErrorCode] | readonly ["S2"];
  readonly isTls?: boolean;
  /** Where the user is logged in, by the registry's port; default: nowhere. */
  readonly loginAt?: (port: number) => string;
  /** Is given what changes the password in the user's file. */
  readonly onLogin?: (change: (password: string) => Promise<void>) => void;
  /** Looks at what was asked for. */
  readonly heard?: (heard: { registry: FaultServer; storage: FaultServer; files: string }) => void;
};

export const isRootfs = ({ path }: SeenRequest, { image }: CaseRig): boolean =>
  path.endsWith(image.layers.rootfs?.descriptor.digest ?? "none");
export const isManifest = ({ path }: SeenRequest): boolean => path.includes("/manifests/");

/** Answers for the manifest as told, and for all else as it should. */
export const onManifest =
  (answer: (request: SeenRequest, count: number, rig: CaseRig) => Answer) => (rig: CaseRig): Script => {
    let count = 0;
    return (request) => isManifest(request) ? answer(request, count++, rig) : rig.serve(request);
  };

/** The same for the rootfs. */
export const onRootfs =
  (answer: (request: SeenRequest, count: number, rig: CaseRig) => Answer) => (rig: CaseRig): Script => {
    let count = 0;
    return (request) => isRootfs(request, rig) ? answer(request, count++, rig) : rig.serve(request);
  };

/** Cuts the rootfs off, and then answers as told. */
export const onResume = (answer: (request: SeenRequest, count: number, rig: CaseRig) => Answer) =>
  onRootfs((request, count, rig) =>
    count === 0 ? cutAfter(rig.serve(request), CAME_BYTES, "close") : answer(request, count - 1, rig)
  );

export const newCaseImage = (): OsImage =>
  osImage({
    kernel: randomKernel(),
    initramfs: randomInitramfs(),
    rootfs: randomBlob(ROOTFS_BYTES).bytes,
  });

/**
 * Gives the file a cache that holds an image already.
 *
 * @returns runs a row on it
 */
export function usePullCases(): (row: PullCase) => Promise<void> {
  let directory = "";
  let authority: TestAuthority;
  let certificate: Certificate;
  const template = () => join(directory, "template");
  let rows = 0;
  beforeAll(async () => {
    directory = await mkdtemp(join(MEMORY_DIRECTORY, "bootshim-cases-"));
    authority = await TestAuthority.make();
    certificate = await authority.issue({
      name: "registry",
      for: Object.keys(NAMES).map((name) => `DNS:${name}`),
    });
    const image = newCaseImage();
    await using server = await startFaultServer((request) => serveImage(request, image), {
      address: PUBLIC_ADDRESS,
    });
    await pull(template(), server, {});
  });
  afterAll(async () => {
    await authority?.[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  async function pull(
    root: string,
    server: FaultServer,
    { isTls = false, loginAt, onLogin }: Pick<PullCase, "isTls" | "loginAt" | "onLogin">,
  ): ReturnType<typeof pullImage> {
    const host = `registry.example.com:${server.port}`;
    const file = `${root}.auth.json`;
    const writeLogin = async (password: string) => {
      const auth = Buffer.from(`${LOGIN.username}:${password}`).toString("base64");
      const auths = loginAt === undefined ? {} : { [loginAt(server.port)]: { auth } };
      await writeFile(file, JSON.stringify({ auths }), { mode: 0o600 });
    };
    await writeLogin(LOGIN.password);
    onLogin?.(writeLogin);
    await using registries = new Registries({
      limits: { ...QUICK, headersTimeoutMs: 200, stallTimeoutMs: 200, connectTimeoutMs: 2000 },
      insecureHosts: isTls ? [] : [host],
      network: {
        ...namedNetwork(NAMES),
        ...(isTls ? { tls: new Map([[host, { authorities: [authority.file] }]]) } : {}),
      },
      authorization: { credentials: { files: [file] } },
    });
    const context = await openAgent(root, { registries });
    const reference = { transport: "docker", host, repository: "os/demo", tag: "1" } as const;
    return await pullImage(context, {
      architecture: "amd64",
      variant: "virtualization",
      pull: "always",
      reference,
    });
  }

  return async (row) => {
    const root = join(directory, `root-${rows++}`);
    execFileSync("cp", ["-a", template(), root]);
    const image = newCaseImage();
    const serve = (request: SeenRequest) => serveImage(request, image);
    await using local = await startFaultServer(serve);
    const stored: { script: Script } = { script: serve };
    await using storage = await startFaultServer((request, count) => stored.script(request, count), {
      address: PUBLIC_ADDRESS,
    });
    const rig = { image, serve, storage: `cdn.other.example:${storage.port}`, localPort: local.port };
    if (row.storage) stored.script = row.storage(rig);
    const registry = { script: row.registry(rig) };
    await using server = await startFaultServer((request, count) => registry.script(request, count), {
      address: PUBLIC_ADDRESS,
      ...(row.isTls ? { tls: certificate } : {}),
    });
    const before = await treeOf(root);
    const [state, code] = row.ends;
    const outcome = await pull(root, server, row).catch((error: unknown) => error);
    if (outcome instanceof ShimError) expect([state, outcome.code]).toEqual([state, code]);
    else if (outcome instanceof Error) throw outcome;
    else expect(["S2", undefined]).toEqual([state, code]);
    // Nobody may be led to this host, whatever else there is.
    expect(local.connections).toBe(0);
    row.heard?.({ registry: server, storage, files: await filesOf(root) });
    const partial = join(root, "ingest", `${keyOf(image.layers.rootfs)}.partial`);
    if (state !== "S2") await requireOnlyBegun(root, { image, before });
    if (state === "S0") return expect(existsSync(partial)).toBe(false);
    if (state === "S1") {
      const begun = await readFile(partial);
      expect(begun.length).toBeGreaterThan(CAME_BYTES - BLOCK_BYTES);
      expect(begun.equals(image.layers.rootfs?.bytes.subarray(0, begun.length) ?? new Uint8Array())).toBe(
        true,
      );
      registry.script = serve;
      const seen = server.requests.length;
      expect(await isRight(await pull(root, server, { isTls: row.isTls ?? false }), image)).toBe(true);
      const [again] = server.requests.slice(seen).filter((request) => isRootfs(request, rig));
      expect(Number(/^bytes=([0-9]+)-/.exec(again?.headers["range"] ?? "")?.[1])).toBeGreaterThan(
        CAME_BYTES - BLOCK_BYTES,
      );
    }
    expect(layoutProblems(root)).toEqual([]);
    for (const { descriptor, bytes } of Object.values(image.layers)) {
      const path = join(root, "images/blobs", ...descriptor.digest.split(":"));
      expect((await readFile(path)).equals(bytes)).toBe(true);
    }
  };
}

const keyOf = (blob: Blob | undefined): string => blob?.descriptor.digest.replace(":", "-") ?? "none";

/** What was there still is; what is new are the image's own layers, whole under their names or begun in `ingest/`. */
async function requireOnlyBegun(
  root: string,
  { image, before }: { readonly image: OsImage; readonly before: readonly string[] },
): Promise<void> {
  const after = await treeOf(root);
  expect(before.filter((line) => !after.includes(line))).toEqual([]);
  const keys = Object.values(image.layers).map(keyOf);
  const isOurs = (line: string) =>
    keys.some((key) =>
      [`ingest/${key}.`, `images/blobs/${key.replace("-", "/")} `, `verdicts/${key.replace("-", "/")}.json `]
        .some((place) => line.startsWith(place))
    );
  expect(after.filter((line) => !before.includes(line) && !isOurs(line))).toEqual([]);
  expect(layoutProblems(root, { partials: "any" })).toEqual([]);
}

/** All that the cache holds, in one text. */
async function filesOf(root: string): Promise<string> {
  const files = (await treeOf(root)).map((line) => line.split(" ", 1)[0] ?? "");
  const texts = await Promise.all(files.map((name) => readFile(join(root, name), "latin1").catch(() => "")));
  return texts.join("\n");
}
