import { execFileSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openArchiveSource } from "../../src/content/archive_source.ts";
import { writeForeignLayout } from "../support/foreign_layout.ts";
import { imageSourceSuite } from "./image_source_suite.ts";

for (const format of ["gnu", "pax", "ustar"]) {
  imageSourceSuite(`an archive in tar's ${format} format`, {
    notFound: "IMAGE_NOT_FOUND",
    publish: async ({ tag, document, untagged, config, layer }) => {
      const work = await mkdtemp(join(tmpdir(), "bootshim-archive-"));
      const layout = join(work, "layout");
      await writeForeignLayout(layout, { entries: [{ ...document, tag }], blobs: [untagged, config, layer] });
      const archive = join(work, "image.tar");
      execFileSync("tar", [
        "--create",
        `--format=${format}`,
        `--file=${archive}`,
        `--directory=${layout}`,
        ".",
      ]);
      const source = await openArchiveSource(archive);
      const close = async () => {
        await source.close();
        await rm(work, { recursive: true });
      };
      return { source, close };
    },
  });
}
