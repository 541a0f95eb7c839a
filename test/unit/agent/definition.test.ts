import { randomUUID } from "node:crypto";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { XMLParser } from "fast-xml-parser";
import { describe, expect, it } from "vitest";
import { definitionOfImage, definitionOfMachine } from "../../../src/agent/definition.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { bytesWith, ESP_GUID, gptDisk } from "../../support/disk_bytes.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
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
