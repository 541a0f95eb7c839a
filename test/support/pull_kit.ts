/** Whole pulls from a scripted registry, into a real store, and what the cache holds afterwards. */
import { createHash } from "node:crypto";
import { lstat, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { OperationOptions } from "../../src/agent/progress.ts";
import { type PulledImage, pullImage } from "../../src/agent/pull_image.ts";
import type { Digest } from "../../src/image/digest.ts";
import type { RegistryLimits } from "../../src/registry/limits.ts";
import { Registries } from "../../src/registry/registries.ts";
import { openAgent } from "./agent_kit.ts";
import {
  type Answer,
  type FaultServer,
  respond,
  type Script,
  type SeenRequest,
  serveRange,
  startFaultServer,
} from "./fault_server.ts";
import type { OsImage } from "./os_image.ts";
import { QUICK } from "./registry_client_kit.ts";

/** What a correct registry answers for one image, whatever the tag. */
export function serveImage(request: SeenRequest, { manifest, config, layers }: OsImage): Answer {
  if (request.path.includes("/manifests/")) {
    const { mediaType, digest } = manifest.descriptor;
    const headers = { "Content-Type": mediaType, "Docker-Content-Digest": digest };
    return respond(200, { headers, body: manifest.bytes });
  }
  const blob = [config, ...Object.values(layers)].find(({ descriptor }) =>
    request.path.endsWith(descriptor.digest)
  );
  return blob === undefined ? respond(404) : serveRange(request, blob.bytes);
}

/** Every name under a root with its mode and content; lock files come and go. */
export async function treeOf(root: string): Promise<readonly string[]> {
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

/** Whether the layers of a pulled image are, on disk, what was published. */
export async function isRight({ layers }: PulledImage, image: OsImage): Promise<boolean> {
  const same = await Promise.all(layers.map(async ({ role, path }) => {
    const { bytes } = image.layers[role] ?? {};
    return bytes !== undefined && (await readFile(path)).equals(bytes);
  }));
  return same.length === Object.keys(image.layers).length && same.every(Boolean);
}

export type PullRig = {
  readonly server: FaultServer;
  readonly root: string;
  readonly notes: readonly string[];
  readonly pull: (options?: OperationOptions) => Promise<PulledImage>;
};

/** Runs `body` with an agent whose registry answers as scripted. */
export async function withPulls(
  { root, script, limits = {}, digest }: {
    readonly root: string;
    readonly script: Script;
    readonly limits?: Partial<RegistryLimits>;
    /** Pulled by this; the tag `1` is a label then. */
    readonly digest?: Digest;
  },
  body: (rig: PullRig) => Promise<void>,
): Promise<void> {
  await using server = await startFaultServer(script);
  await using registries = new Registries({ limits: { ...QUICK, ...limits } });
  const notes: string[] = [];
  const context = await openAgent(root, { registries, notes });
  const tagged = { transport: "docker", host: server.host, repository: "os/demo", tag: "1" } as const;
  const reference = digest === undefined ? tagged : { ...tagged, digest };
  const wish = { architecture: "amd64", variant: "virtualization", pull: "always", reference } as const;
  await body({ server, root, notes, pull: (options) => pullImage(context, wish, options) });
}
