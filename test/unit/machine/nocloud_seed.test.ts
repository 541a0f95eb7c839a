import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { renderNoCloudSeed } from "../../../src/machine/nocloud_seed.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const hasXorriso = spawnSync("xorriso", ["-version"]).status === 0;

describe("renderNoCloudSeed", () => {
  it.skipIf(!hasXorriso && process.env["CI"] !== "true")(
    "makes a volume named cidata, of which another program reads the very files",
    async () => {
      const image = join(temporary(), "seed.iso");
      const files = {
        "meta-data": new Uint8Array(randomBytes(2048)),
        "user-data": new Uint8Array(randomBytes(5000)),
      };
      await writeFile(
        image,
        renderNoCloudSeed([
          { name: "user-data", bytes: files["user-data"] },
          { name: "meta-data", bytes: files["meta-data"] },
        ]),
      );
      const run = (...argv: string[]) =>
        spawnSync("xorriso", ["-indev", image, ...argv], { encoding: "utf8" });
      expect(run("-pvd_info").stdout).toMatch(/^Volume Id *: *cidata$/mi);
      for (const [name, bytes] of Object.entries(files)) {
        const out = join(temporary(), name);
        const { status, stderr } = run("-osirrox", "on", "-extract", `/${name}`, out);
        expect({ status, said: status === 0 ? "" : stderr }).toEqual({ status: 0, said: "" });
        expect(new Uint8Array(await readFile(out))).toEqual(bytes);
      }
    },
  );

  it("gives equal bytes for equal files, in whole sectors, whatever their order", () => {
    const one = { name: "meta-data", bytes: new Uint8Array([1]) } as const;
    const other = { name: "user-data", bytes: new Uint8Array() } as const;
    const seed = renderNoCloudSeed([one, other]);
    expect(renderNoCloudSeed([other, one])).toEqual(seed);
    expect(seed.length % 2048).toBe(0);
  });
});
