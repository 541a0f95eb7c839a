/** The cache while it is used: what operations need is not collected under their hands. */
import { readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { AgentContext } from "../../../src/agent/agent_context.ts";
import { collectCache } from "../../../src/agent/collect_cache.ts";
import { prepare } from "../../../src/agent/prepare.ts";
import { pullImage } from "../../../src/agent/pull_image.ts";
import { removeImage } from "../../../src/agent/remove_image.ts";
import { tagImage } from "../../../src/agent/images.ts";
import { NO_PROVISIONING } from "../../../src/agent/provisioning.ts";
import { parseReference } from "../../../src/image/reference.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { layoutProblems } from "../../support/layout_checker.ts";
import { osImage, publishLayout, randomInitramfs, randomKernel } from "../../support/os_image.ts";
import { randomWord } from "../../support/random_word.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const WISH = {
  architecture: "amd64",
  variant: "virtualization",
  pull: "missing",
  boot: "auto",
  firmware: "auto",
  cmdline: undefined,
  appends: [],
  machine: null,
} as const;
const rootOf = () => join(temporary(), "root");

async function publish(label = "layout") {
  const image = osImage({ kernel: randomKernel(), initramfs: randomInitramfs() }, {
    commandLine: `word=${randomWord()}`,
    variant: "kvm",
  });
  const published = await publishLayout(join(temporary(), label), [image]);
  return {
    ...published,
    blobs: [published.index, image.manifest, image.config, ...Object.values(image.layers)],
  };
}

/** Collects with all severity before every call into the store, as another process might. */
function collectingContext(
  context: AgentContext,
  other: AgentContext,
): { context: AgentContext; count: () => number } {
  let count = 0;
  const wrap = (content: AgentContext["content"]): AgentContext["content"] =>
    new Proxy(content, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key, target);
        if (typeof value !== "function") return value;
        if (key === "underLease") {
          return (lease: Parameters<typeof content.underLease>[0]) => wrap(target.underLease(lease));
        }
        if (
          ![
            "locateBlob",
            "hasBlob",
            "readDocument",
            "ingestBytes",
            "settle",
            "setReference",
            "withMissing",
          ].includes(String(key))
        ) {
          return value.bind(target);
        }
        return async (...args: unknown[]) => {
          count += 1;
          await collectCache(other, { isDryRun: false, maxBytes: 0 });
          return await Reflect.apply(value, target, args);
        };
      },
    });
  return { context: { ...context, content: wrap(context.content) }, count: () => count };
}

describe("leases", () => {
  it("CO10 CO11 a collection between any two steps of a pull and a prepare takes nothing of it", async () => {
    const { reference, name, blobs } = await publish();
    const other = await openAgent(rootOf());
    const { context, count } = collectingContext(await openAgent(rootOf()), other);
    for (const repeat of ["cold", "warm"]) {
      const document = await prepare(context, { ...WISH, reference });
      expect([repeat, document.reference]).toEqual([repeat, name]);
      for (const { descriptor } of blobs) expect(await other.content.hasBlob(descriptor)).toBe(true);
      expect(layoutProblems(rootOf())).toEqual([]);
    }
    expect(count()).toBeGreaterThan(9);
    // Nothing holds it any more.
    expect(await readdir(join(rootOf(), "leases"))).toEqual([]);
    await collectCache(other, { isDryRun: false, maxBytes: 0 });
    for (const { descriptor } of blobs) expect(await other.content.hasBlob(descriptor)).toBe(false);
  });

  it("CO11 naming an image once more is safe from a collection, too", async () => {
    const { reference } = await publish();
    const other = await openAgent(rootOf());
    await pullImage(other, { ...WISH, reference });
    const { context } = collectingContext(other, other);
    const target = parseReference(`127.0.0.1:1/os/${randomWord()}:1`);
    const outcome = await tagImage(context, reference, target).then(() => "named", (error) => error.code);
    expect(["named", "IMAGE_NOT_FOUND"]).toContain(outcome);
    expect(layoutProblems(rootOf())).toEqual([]);
  });

  it("a failed pull leaves no lease", async () => {
    const context = await openAgent(rootOf());
    const reference = parseReference(`127.0.0.1:1/os/${randomWord()}:1`);
    await expect(pullImage(context, { ...WISH, reference, pull: "never" })).rejects.toThrow("pulling is");
    expect(await readdir(join(rootOf(), "leases"))).toEqual([]);
  });
});

describe("room for a pull", () => {
  it("is made of what nobody needs, asked for all missing layers together", async () => {
    const { reference } = await publish();
    const context = await openAgent(rootOf());
    const asked: number[] = [];
    let isCollected = false;
    const content = new Proxy(context.content, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key, target);
        if (key === "underLease") return () => content;
        if (key === "requireRoom") {
          return (bytes: number) => {
            asked.push(bytes);
            return isCollected ? Promise.resolve() : target.requireRoom(Number.MAX_SAFE_INTEGER);
          };
        }
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    const collector = new Proxy(context.collector, {
      get: (target, key) => {
        if (key !== "collect") return Reflect.get(target, key, target);
        return (...args: Parameters<typeof target.collect>) => {
          isCollected = true;
          return target.collect(...args);
        };
      },
    });
    const pulled = await pullImage({ ...context, content, collector }, { ...WISH, reference });
    const sum = pulled.layers.reduce((bytes, layer) => bytes + layer.descriptor.sizeBytes, 0);
    expect([asked, isCollected]).toEqual([[sum, sum], true]);
  });

  it("is made of least recently used images within a budget, and says so", async () => {
    const notes: string[] = [];
    const cacheBudget = { maxBytes: 1, keepFreeBytes: null, minAgeMs: null };
    const context = await openAgent(rootOf(), { notes, cacheBudget });
    const [first, second] = [await publish("first"), await publish("second")];
    await pullImage(context, { ...WISH, reference: first.reference });
    await pullImage(context, { ...WISH, reference: second.reference });
    expect(notes).toEqual([`image "${first.name}" was given up to make room`]);
    expect((await context.content.references()).map((each) => each.name)).toEqual([second.name]);
    for (const { descriptor } of second.blobs) expect(await context.content.hasBlob(descriptor)).toBe(true);
  });

  it("a collection that cannot be done does not stop a pull that fits", async () => {
    const notes: string[] = [];
    const cacheBudget = { maxBytes: 1, keepFreeBytes: null, minAgeMs: null };
    const context = await openAgent(rootOf(), { notes, cacheBudget });
    const [first, second] = [await publish("first"), await publish("second")];
    await pullImage(context, { ...WISH, reference: first.reference });
    await rm(context.content.blobPath(first.index.descriptor.digest));
    await pullImage(context, { ...WISH, reference: second.reference });
    expect(notes).toEqual([expect.stringContaining("nothing could be freed in the cache")]);
  });
});

describe("a machine", () => {
  it("DC25 keeps its image, which cannot be removed until it is released", async () => {
    const { reference, blobs } = await publish();
    const context = await openAgent(rootOf());
    const id = `vm-${randomWord()}`;
    const machine = {
      id,
      uuid: null,
      diskSizeBytes: null,
      diskFormat: "auto",
      clone: "auto",
      acceleration: "tcg",
      memoryMib: 64,
      cpus: 1,
      hugepages: false,
      tpm: false,
      secureBoot: false,
      network: { kind: "none" },
      dataDisks: [],
      provisioning: NO_PROVISIONING,
    } as const;
    await prepare(context, { ...WISH, reference, machine });
    const error = await failureOf(removeImage(context, { reference }));
    expect([error.code, error.details["machines"]]).toEqual(["IN_USE", [id]]);
    await collectCache(context, { isDryRun: false, maxBytes: 0 });
    for (const { descriptor } of blobs) expect(await context.content.hasBlob(descriptor)).toBe(true);
    const { machines } = await context.machines.list();
    expect(machines).toHaveLength(1);
    await writeFile(join(rootOf(), "machines", id, "machine.json"), "{");
    expect(await codeOf(collectCache(context, { isDryRun: false, maxBytes: 0 }))).toBe(
      "CACHE_LAYOUT_INVALID",
    );
    for (const { descriptor } of blobs) expect(await context.content.hasBlob(descriptor)).toBe(true);
  });
});
