/** What comes with the service for systemd is what systemd understands, and the service what it is told there. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { startService } from "../support/service.ts";

const run = promisify(execFile);

it("units are without a fault for systemd", async () => {
  const folder = await mkdtemp(join(tmpdir(), "bootshim-units-"));
  try {
    const paths = [];
    for (const name of ["bootshim.service", "bootshim.socket"]) {
      const text = await readFile(join("packaging", name), "utf8");
      // The program itself is installed elsewhere, or not at all.
      await writeFile(join(folder, name), text.replace("/usr/bin/bootshim", "/bin/true"));
      paths.push(join(folder, name));
    }
    const { stdout, stderr } = await run("systemd-analyze", ["verify", ...paths]);
    expect(stdout + stderr).toBe("");
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

it("the unit's command logs each request as a line of JSON", async () => {
  const unit = await readFile("packaging/bootshim.service", "utf8");
  const [, flags = ""] = /^ExecStart=\/usr\/bin\/bootshim serve (.*)$/m.exec(unit) ?? [];
  const root = await mkdtemp(join(tmpdir(), "bootshim-unit-root-"));
  const service = await startService({ root, argv: flags.split(" ") });
  try {
    const { headers } = await service.ask("/healthz");
    const lines = service.said().split("\n").filter((line) => line.includes(String(headers["x-request-id"])));
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({ level: "INFO" });
  } finally {
    expect(await service.stop()).toBe(0);
    await rm(root, { recursive: true, force: true });
  }
});
