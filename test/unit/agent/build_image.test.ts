import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { buildImage, type BuildPart } from "../../../src/agent/build_image.ts";
import type { Descriptor } from "../../../src/image/descriptor.ts";
import { parseImageIndex } from "../../../src/image/image_index.ts";
import { parseImageManifest } from "../../../src/image/image_manifest.ts";
import type { Architecture, Variant } from "../../../src/image/platform.ts";
import { parseReference } from "../../../src/image/reference.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { randomKernel } from "../../support/os_image.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

/** An entry of the index, with the annotations of its manifest. */
type Entry = { readonly entry: Descriptor; readonly annotations: Readonly<Record<string, string>> };

async function buildIndex(
  platforms: readonly (readonly [Architecture, Variant])[],
): Promise<readonly Entry[]> {
  const context = await openAgent(join(temporary(), "root"));
  const parts: BuildPart[] = [];
  for (const [architecture, variant] of platforms) {
    const path = join(temporary(), `${architecture}-${variant}`);
    await writeFile(path, randomKernel());
    parts.push({ architecture, variant, commandLine: undefined, files: new Map([["kernel", path]]) });
  }
  const { reference } = await buildImage(context, parseReference("127.0.0.1:1/os/built:1"), parts);
  const built = await context.content.findReference(reference);
  if (!built) throw new Error("The image is not in the cache");
  const index = built.descriptor;
  const read = async (descriptor: Descriptor) => (await context.content.readDocument(descriptor)).bytes;
  const entries: Entry[] = [];
  for (const entry of parseImageIndex(await read(index), index).entries) {
    entries.push({ entry, annotations: parseImageManifest(await read(entry), entry).annotations });
  }
  return entries;
}

type Reader = (entries: readonly Entry[], architecture: string) => Entry | undefined;

/** The published command-line tool, and providers of virtual machines: the first that fits the platform. */
const byPlatform: Reader = (entries, architecture) =>
  entries.find(({ entry: { platform } }) =>
    platform?.os === "linux" && platform.architecture === architecture
  );
/** skopeo and podman: the same, and no variant where none was asked for. */
const asContainer: Reader = (entries, architecture) =>
  entries.find(({ entry: { platform } }) =>
    platform?.os === "linux" && platform.architecture === architecture && (platform.variant ?? "") === ""
  );
/** The network boot of metal machines: a canonical name, else the first of the architecture. */
const byCname: Reader = (entries, architecture) =>
  entries.find(({ entry: { annotations } }) =>
    annotations["cname"]?.startsWith("metal_pxe") && annotations["architecture"] === architecture
  ) ?? entries.find(({ entry: { platform } }) => platform?.architecture === architecture);
/** Whoever follows the specification: each manifest's own annotations. */
const bySpecification = (variant: Variant): Reader => (entries, architecture) =>
  entries.find(({ annotations }) =>
    annotations["variant"] === variant && annotations["architecture"] === architecture
  );

describe("an index that build makes", () => {
  it.each<[string, Reader, Variant]>([
    ["one that knows no variant", byPlatform, "virtualization"],
    ["a container tool", asContainer, "virtualization"],
    ["one that looks for metal's canonical name", byCname, "metal"],
    [
      "one that follows the specification, for virtual machines",
      bySpecification("virtualization"),
      "virtualization",
    ],
    ["one that follows the specification, for metal", bySpecification("metal"), "metal"],
  ])("is read rightly by %s", async (_name, reader, variant) => {
    const entries = await buildIndex([
      ["arm64", "metal"],
      ["arm64", "virtualization"],
      ["amd64", "metal"],
      ["amd64", "virtualization"],
    ]);
    for (const architecture of ["amd64", "arm64"]) {
      expect(reader(entries, architecture)?.annotations).toMatchObject({ architecture, variant });
    }
  });

  it("is read rightly by each of them when it holds what it wants only", async () => {
    const entries = await buildIndex([["amd64", "metal"]]);
    for (const reader of [byPlatform, asContainer, byCname, bySpecification("metal")]) {
      expect(reader(entries, "amd64")?.annotations["variant"]).toBe("metal");
    }
  });
});
