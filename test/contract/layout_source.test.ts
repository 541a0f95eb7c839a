import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LayoutSource } from "../../src/content/layout_source.ts";
import { writeForeignLayout } from "../support/foreign_layout.ts";
import { imageSourceSuite } from "./image_source_suite.ts";

imageSourceSuite("LayoutSource", {
  notFound: "IMAGE_NOT_FOUND",
  publish: async ({ tag, document, untagged, config, layer }) => {
    const directory = await mkdtemp(join(tmpdir(), "bootshim-layout-"));
    await writeForeignLayout(directory, {
      entries: [{ ...document, tag }],
      blobs: [untagged, config, layer],
    });
    return { source: await LayoutSource.open(directory), close: () => rm(directory, { recursive: true }) };
  },
});
