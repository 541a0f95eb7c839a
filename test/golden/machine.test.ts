import { spawnSync } from "node:child_process";
import * as fs from "node:fs/promises";
import * as os from "node:os";
import * as path from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { renderDomainXml } from "../../src/hypervisor/domain_xml/domain.ts";
import { renderQemuCommand } from "../../src/hypervisor/qemu_command/command.ts";
import { quoteShell } from "../../src/hypervisor/qemu_command/shell.ts";
import { MACHINE_SHAPES } from "./machine_shapes.ts";

/*
 * Regenerate with UPDATE_GOLDEN=1, then read the diff of test/golden/files line by line: each change there is a change
 * to machines that users have.
 */
const shouldUpdate = process.env["UPDATE_GOLDEN"] === "1";
const FILES = fileURLToPath(new URL("files/", import.meta.url));

// virt-xml-validate is a script around xmllint, which is another package (libxml2-utils).
const hasValidator = ["virt-xml-validate", "xmllint"].every((tool) =>
  spawnSync(tool, ["--version"]).status === 0
);
// Missing here means skipped; missing where it counts (CI) lets the tests below run and fail.
const shouldValidate = hasValidator || process.env["CI"] === "true";

let directory: string;
beforeAll(async () => {
  directory = await fs.mkdtemp(path.join(os.tmpdir(), "bootshim-golden-"));
});
afterAll(() => fs.rm(directory, { recursive: true, force: true }));

async function expectGolden(name: string, text: string): Promise<void> {
  const file = path.join(FILES, name);
  if (shouldUpdate) await fs.writeFile(file, text);
  expect(text).toBe(await fs.readFile(file, "utf8"));
}

async function validate(xml: string): Promise<{ status: number | null; said: string }> {
  const file = path.join(directory, "domain.xml");
  await fs.writeFile(file, xml);
  const { status, stdout, stderr, error } = spawnSync("virt-xml-validate", [file, "domain"], {
    encoding: "utf8",
  });
  return { status, said: `${stdout}${stderr}${error ? String(error) : ""}` };
}

describe.each(Object.entries(MACHINE_SHAPES))("machine shape %s", (name, definition) => {
  it("renderDomainXml gives the golden XML", () => expectGolden(`${name}.xml`, renderDomainXml(definition)));

  it("renderQemuCommand gives the golden command", () =>
    expectGolden(`${name}.sh`, `${quoteShell(renderQemuCommand(definition))}\n`));

  it.skipIf(!shouldValidate)("renderDomainXml gives what libvirt's schema accepts", async () => {
    const { status, said } = await validate(renderDomainXml(definition));
    expect(said).toMatch(/ validates$/m);
    expect(status).toBe(0);
  });
});

it("every golden file belongs to a machine shape", async () => {
  const expected = Object.keys(MACHINE_SHAPES).flatMap((name) => [`${name}.xml`, `${name}.sh`]);
  expect((await fs.readdir(FILES)).sort()).toEqual(expected.sort());
});

it.skipIf(!shouldValidate)("virt-xml-validate refuses what the schema does not know", async () => {
  const xml = renderDomainXml(Object.values(MACHINE_SHAPES)[0]!).replace(
    "<on_crash>destroy",
    "<on_crash>dance",
  );
  expect((await validate(xml)).status).not.toBe(0);
});
