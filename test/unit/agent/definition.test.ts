import { randomUUID } from "node:crypto";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { XMLParser } from "fast-xml-parser";
import { describe, expect, it } from "vitest";
import { definitionOfImage, definitionOfMachine } from "../../../src/agent/definition.ts";
import type { AgentContext } from "../../../src/agent/agent_context.ts";
import { parseMachineId } from "../../../src/machine/machine_id.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { bytesWith, ESP_GUID, gptDisk } from "../../support/disk_bytes.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { randomRecord } from "../../support/machine_kit.ts";
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
  machine: {
    id: "preview",
    uuid: null,
    diskSizeBytes: null,
    memoryMib: 256,
    cpus: 1,
    // Named, so that no QEMU is asked for it.
    acceleration: "tcg",
    network: { kind: "none" },
    tpm: false,
    secureBoot: false,
    hugepages: false,
  },
} as const;

function parse(domainXml: string) {
  const parser = new XMLParser({ ignoreAttributes: false, parseTagValue: false });
  return parser.parse(domainXml).domain;
}

describe("definitionOfImage", () => {
  it("speaks of the cached layers themselves, read-only, and makes no machine", async () => {
    const notes: string[] = [];
    const context = await openAgent(join(temporary(), "root"), { notes });
    const commandLine = `console=ttyS0 word=${randomWord()}`;
    const image = osImage(
      { kernel: randomKernel(), initramfs: randomInitramfs(), squashfs: bytesWith(4096, { 0: "hsqs" }) },
      {
        commandLine,
      },
    );
    const { reference } = await publishLayout(join(temporary(), "layout"), [image]);
    const pathOf = (role: keyof typeof image.layers) => {
      const layer = image.layers[role];
      if (!layer) throw new Error(`the image has no ${role}`);
      return context.content.blobPath(layer.descriptor.digest);
    };
    const { domainXml, qemuCommand } = await definitionOfImage(context, { ...WISH, reference }, {});
    const { os, devices, name } = parse(domainXml);
    expect([name, os.kernel, os.initrd, os.cmdline]).toEqual([
      "preview",
      pathOf("kernel"),
      pathOf("initramfs"),
      commandLine,
    ]);
    expect(devices.disk).toMatchObject({ source: { "@_file": pathOf("squashfs") }, readonly: "" });
    for (const role of ["kernel", "initramfs", "squashfs"] as const) {
      expect(qemuCommand.some((word) => word.includes(pathOf(role)))).toBe(true);
    }
    expect(notes).toEqual(["without a machine the disks are the cached layers, read-only"]);
    expect(await readdir(join(temporary(), "root/machines"))).toEqual([]);
  });

  it("gives the same text for the same image, with a UUID of its own, unless one is wished", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const [one, two] = await Promise.all(
      ["one", "two"].map((folder) =>
        publishLayout(join(temporary(), folder), [osImage({ kernel: randomKernel() })])
      ),
    );
    if (!one || !two) throw new Error("two images were published");
    const define = ({ reference }: typeof one, uuid: string | null = null) =>
      definitionOfImage(context, { ...WISH, reference, machine: { ...WISH.machine, uuid } }, {});
    const first = await define(one);
    expect(await define(one)).toEqual(first);
    const uuids = [parse(first.domainXml).uuid, parse((await define(two)).domainXml).uuid];
    for (const uuid of uuids) {
      expect(uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/);
    }
    expect(uuids[0]).not.toBe(uuids[1]);
    const wished = randomUUID();
    expect(parse((await define(one, wished)).domainXml).uuid).toBe(wished);
  });

  it("refuses UEFI, whose variable store must be a machine's, and says what to do", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const { reference, name } = await publishLayout(join(temporary(), "layout"), [
      osImage({ rootfs: gptDisk([ESP_GUID]) }),
    ]);
    const failure = await failureOf(definitionOfImage(context, { ...WISH, reference }, {}));
    expect([failure.code, failure.details]).toEqual(["BOOT_MODE_IMPOSSIBLE", {
      modes: expect.arrayContaining([expect.objectContaining({ mode: "disk", possible: true })]),
      remedy: `run: bootshim prepare ${name} --machine ID; then give that ID`,
    }]);
  });

  it("works from the cache alone", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const { reference } = await publishLayout(join(temporary(), "layout"), [
      osImage({ kernel: randomKernel() }),
    ]);
    const first = await definitionOfImage(context, { ...WISH, reference }, {});
    await rm(reference.directory, { recursive: true });
    expect(await definitionOfImage(context, { ...WISH, reference, pull: "never" }, {})).toEqual(first);
  });
});

describe("definitionOfMachine", () => {
  it("says that there is no such machine, and that no machine is called so", async () => {
    const context = await openAgent(join(temporary(), "root"));
    expect(await codeOf(definitionOfMachine(context, randomWord()))).toBe("MACHINE_NOT_FOUND");
    expect(await codeOf(definitionOfMachine(context, "../escape"))).toBe("REQUEST_INVALID");
  });
});

describe("definitionOfMachine of root's", () => {
  /** A machine as it lies on disk, with fragments as an earlier or this version stored them. */
  async function machineOf(context: AgentContext, fragments: { os: string; disks: string }) {
    const id = parseMachineId(`vm-${randomWord()}`);
    const place = context.machines.directoryOf(id);
    const [kernel, initramfs] = [join(temporary(), "kernel"), join(temporary(), "initramfs")];
    await writeFile(kernel, "the kernel");
    await writeFile(initramfs, "the initramfs");
    const document = {
      id,
      uuid: randomUUID(),
      directory: place,
      disks: [],
      nvram: null,
      domainXml: join(place, "domain.xml"),
      qemuCommand: ["qemu", "-kernel", kernel, "-initrd", initramfs, "-append", "-kernel /etc/shadow"],
    };
    const record = { ...randomRecord(id), uuid: document.uuid, writableFiles: [], document };
    await context.machines.create(id, async (directory) => {
      await writeFile(join(directory, "domain.xml"), "<domain/>");
      for (const [name, text] of Object.entries(fragments)) {
        await writeFile(join(directory, `${name}.xml`), text);
      }
      return record;
    });
    return { id, place };
  }
  const NOW = { os: "<os/>", disks: "<devices/>" };

  it("has copies of what boots once a fragment is to be merged, and not before", async () => {
    const context = { ...await openAgent(join(temporary(), "root")), isRoot: true };
    const { id, place } = await machineOf(context, NOW);
    await definitionOfMachine(context, id, { isMerged: false });
    expect(await readdir(place)).not.toContain("kernel");
    // The second finds them, and does not wait for whoever holds the machine
    await definitionOfMachine(context, id);
    await context.machines.hold(id, () => definitionOfMachine(context, id));
    expect(await readFile(join(place, "kernel"), "utf8")).toBe("the kernel");
    expect(await readFile(join(place, "initramfs"), "utf8")).toBe("the initramfs");
  });

  it.each([
    ["a disk without label", { ...NOW, disks: '<devices><disk><source file="/a"/></disk></devices>' }],
    [
      "the cached kernel",
      (root: string) => ({ ...NOW, os: `<os><kernel>${root}/images/blobs/a</kernel></os>` }),
    ],
  ])("says what fragments of an earlier version give away: %s", async (_what, stored) => {
    const notes: string[] = [];
    const root = join(temporary(), "root");
    const context = { ...await openAgent(root, { notes }), isRoot: true };
    const { id } = await machineOf(context, typeof stored === "function" ? stored(root) : stored);
    await definitionOfMachine(context, id);
    expect(notes).toEqual([expect.stringContaining('<seclabel type="none" model="dac"/>')]);
  });
});
