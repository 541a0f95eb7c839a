/** Many machines of one image at once, in a process of their own, whose memory is measured. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { startScript } from "../support/child_script.ts";
import { machineProblems } from "../support/machine_checker.ts";
import { publishRootfs, randomRootfs } from "../support/machine_wish.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

it("CO17: 200 machines are prepared side by side with less than 256 MiB of memory, each with a disk of its own", async () => {
  const layout = join(temporary(), "layout");
  const root = join(temporary(), "root");
  await publishRootfs(layout, randomRootfs(64 * 1024 * 1024));
  const script = startScript("many_machines_script.ts", [root, `oci:${layout}:1`, "200"]);
  let output = "";
  for await (const chunk of script.stdout) output += chunk;
  expect(await script.exited).toBe(0);
  const { peakRssMib, ...times } = JSON.parse(output);
  // How long it takes is told, not judged: others run here, too. That nobody waits far longer than others is.
  console.log("200 machines:", JSON.stringify(times));
  expect(times.worstMs / times.meanMs).toBeLessThan(3);
  expect(peakRssMib).toBeLessThan(256);
  expect(await readdir(join(root, "machines"))).toHaveLength(200);
  expect(machineProblems(root)).toEqual([]);
  const disks = await Promise.all(
    (await readdir(join(root, "machines"))).map((id) => stat(join(root, "machines", id, "disk.qcow2"))),
  );
  expect(Math.max(...disks.map(({ blocks }) => blocks * 512))).toBeLessThanOrEqual(64 * 1024);
});
