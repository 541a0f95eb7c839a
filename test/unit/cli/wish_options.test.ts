import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { describe, expect, it } from "vitest";
import { MAX_PROVISIONING_BYTES, NO_PROVISIONING } from "../../../src/agent/provisioning.ts";
import {
  addBootOptions,
  addImageOptions,
  addMachineOptions,
  bootOptions,
  bootWishesOf,
  imageOptions,
  imageWishOf,
  machineOptions,
  readMachineWishes,
  readReference,
  requireNoDiskWishes,
} from "../../../src/cli/commands/wish_options.ts";
import { readOptions } from "../../../src/cli/invocation.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { failureOf, refusalOf } from "../../support/failures.ts";
import { randomWord } from "../../support/random_word.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const ENVIRONMENT = {
  isRoot: false,
  homeDirectory: "/home/x",
  variables: {},
  workingDirectory: "/here",
  processId: 1,
};
const UUID = "123E4567-E89B-42D3-A456-426614174000";

/** A command with every option, after it has read `argv`. */
function parsed(...argv: string[]): Command {
  const command = addMachineOptions(addBootOptions(addImageOptions(new Command("any"))));
  return command.exitOverride().parse(argv, { from: "user" });
}

const image = (...argv: string[]) => readOptions(parsed(...argv), imageOptions);
const boot = (...argv: string[]) => bootWishesOf(readOptions(parsed(...argv), bootOptions));
const machine = async (...argv: string[]) =>
  await readMachineWishes(readOptions(parsed(...argv), machineOptions), { workingDirectory: temporary() });

describe("readReference", () => {
  it.each([
    ["oci:layout:1", { transport: "oci", directory: "/here/layout", tag: "1" }],
    ["oci:../layout:1", { transport: "oci", directory: "/layout", tag: "1" }],
    ["oci:/abs/layout:1", { transport: "oci", directory: "/abs/layout", tag: "1" }],
    ["oci-archive:image.tar:1", { transport: "oci-archive", file: "/here/image.tar", tag: "1" }],
    ["docker://h.example/os/x:1", { transport: "docker", host: "h.example", repository: "os/x", tag: "1" }],
  ])("reads %s", (text, reference) => {
    expect(readReference(text, ENVIRONMENT)).toEqual(reference);
  });

  it("refuses what is no reference", () => {
    expect(refusalOf(() => readReference("debian", ENVIRONMENT)).code).toBe("REFERENCE_INVALID");
  });
});

describe("image options", () => {
  it("have their defaults; the architecture is the host's", async () => {
    const context = await openAgent(temporary(), { hostArchitecture: "arm64" });
    const reference = readReference("oci:/x:1", ENVIRONMENT);
    expect(imageWishOf(context, reference, image())).toEqual({
      reference,
      architecture: "arm64",
      variant: "virtualization",
      pull: "missing",
    });
    expect(
      imageWishOf(context, reference, image("--arch", "X86_64", "--variant", "metal", "--pull", "never")),
    )
      .toEqual({ reference, architecture: "amd64", variant: "metal", pull: "never" });
  });

  it.each([["--arch", "riscv64"], ["--arch", ""], ["--variant", "cloud"], ["--pull", "sometimes"]])(
    "refuse %s %j",
    (...argv) => {
      expect(refusalOf(() => image(...argv)).code).toBe("REQUEST_INVALID");
    },
  );
});

describe("boot options", () => {
  it("have their defaults, and keep every --append in its order", () => {
    expect(boot()).toEqual({ boot: "auto", firmware: "auto", cmdline: undefined, appends: [] });
    expect(
      boot("--boot", "uki", "--firmware", "bios", "--cmdline", "", "--append", "a=1", "--append", "b"),
    ).toEqual({ boot: "uki", firmware: "bios", cmdline: "", appends: ["a=1", "b"] });
    expect(boot().appends).toEqual([]);
  });

  it.each([["--boot", "pxe"], ["--firmware", "none"]])("refuse %s %j", (...argv) => {
    expect(refusalOf(() => boot(...argv)).code).toBe("REQUEST_INVALID");
  });
});

describe("machine options", () => {
  it("have their defaults", async () => {
    expect(await machine()).toEqual({
      uuid: null,
      diskSizeBytes: null,
      diskFormat: "auto",
      clone: "auto",
      memoryMib: 1024,
      cpus: 1,
      acceleration: "auto",
      network: { kind: "user" },
      tpm: false,
      secureBoot: false,
      hugepages: false,
      dataDisks: [],
      provisioning: NO_PROVISIONING,
    });
  });

  it("are read with their units", async () => {
    expect(
      await machine(
        ...["--disk-size", "20GiB", "--memory", "1.5G", "--cpus", "16", "--accel", "tcg"],
        ...["--network", "lab", "--uuid", UUID, "--disk-format", "raw", "--clone", "copy"],
      ),
    ).toEqual({
      uuid: UUID.toLowerCase(),
      diskSizeBytes: 20 * 2 ** 30,
      diskFormat: "raw",
      clone: "copy",
      memoryMib: 1536,
      cpus: 16,
      acceleration: "tcg",
      network: { kind: "network", name: "lab" },
      tpm: false,
      secureBoot: false,
      hugepages: false,
      dataDisks: [],
      provisioning: NO_PROVISIONING,
    });
    expect((await machine("--network", "bridge:br0")).network).toEqual({ kind: "bridge", name: "br0" });
    expect(await machine("--tpm", "--secure-boot", "--hugepages")).toMatchObject({
      tpm: true,
      secureBoot: true,
      hugepages: true,
    });
    expect((await machine("--network", "none")).network).toEqual({ kind: "none" });
  });

  it("read the files they name, relative to the working directory, and pipes", async () => {
    const word = randomWord();
    await writeFile(join(temporary(), "user-data"), word);
    const { provisioning } = await machine("--user-data", "user-data", "--metadata", "/proc/self/comm");
    expect(provisioning).toEqual({
      ignition: null,
      userData: new Uint8Array(new TextEncoder().encode(word)),
      metadata: expect.any(Uint8Array),
    });
    expect((await failureOf(machine("--ignition", "absent"))).code).toBe("REQUEST_INVALID");
    await writeFile(join(temporary(), "large"), new Uint8Array(MAX_PROVISIONING_BYTES + 1));
    expect((await failureOf(machine("--ignition", "large"))).code).toBe("LIMIT_EXCEEDED");
  });

  it("ask for data disks by size and serial", async () => {
    const { dataDisks } = await machine("--data-disk", "1GiB", "--data-disk", "512MiB,scratch-2");
    expect(dataDisks).toEqual([
      { sizeBytes: 2 ** 30, serial: "data1" },
      { sizeBytes: 2 ** 29, serial: "scratch-2" },
    ]);
  });

  it.each([
    [["--memory", "0"], 'Cannot use --memory "0": 0 bytes, must be a positive multiple of 1 MiB'],
    [["--memory", "1.0001GiB"], 'Cannot use --memory "1.0001GiB": 1073849198 bytes, must be a positive'],
    [
      ["--memory", "512MB"],
      'Cannot use --memory "512MB": 512000000 bytes, must be a positive multiple of 1 MiB',
    ],
    [["--memory", "lots"], 'Cannot use --memory "lots": must be a size'],
    [["--disk-size", "-1"], 'Cannot use --disk-size "-1": must be a size'],
    [["--cpus", "0"], 'Cannot use --cpus "0": must be a whole number from 1'],
    [["--cpus", "1.5"], 'Cannot use --cpus "1.5": must be a whole number from 1'],
    [["--cpus", "1e3"], 'Cannot use --cpus "1e3": must be a whole number from 1'],
    [["--disk-format", "vmdk"], 'Cannot run "any": option disk-format: '],
    [["--clone", "hardlink"], 'Cannot run "any": option clone: '],
    [["--accel", "xen"], 'Cannot run "any": option accel: '],
    [["--network", ""], 'Cannot run "any": option network: '],
    [["--uuid", "1234"], 'Cannot run "any": option uuid: '],
  ])("refuse %j", async (argv, message) => {
    const refusal = await failureOf(machine(...argv));
    expect([refusal.code, refusal.message.slice(0, message.length)]).toEqual(["REQUEST_INVALID", message]);
  });
});

describe("wishes for a disk where there is no machine", () => {
  it.each([["--disk-size", "1GiB"], ["--disk-format", "raw"], ["--clone", "copy"]])(
    "%s is refused by its name",
    async (...argv) => {
      const wishes = await machine(...argv);
      const refusal = refusalOf(() => requireNoDiskWishes(wishes, "name one"));
      expect(refusal).toEqual({
        code: "REQUEST_INVALID",
        message: `Cannot use ${argv[0]}: without a machine there is no disk to make`,
        details: { remedy: "name one" },
      });
    },
  );

  it("others are not", async () => {
    requireNoDiskWishes(await machine("--clone", "auto", "--memory", "2GiB"), "name one");
  });
});
