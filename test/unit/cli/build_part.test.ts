import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readBuildPart } from "../../../src/cli/commands/build_part.ts";
import { failureOf } from "../../support/failures.ts";
import { randomWord } from "../../support/random_word.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

function read(text: string) {
  return readBuildPart(text, {
    isRoot: false,
    homeDirectory: "/home/nobody",
    variables: {},
    workingDirectory: temporary(),
    processId: 1,
  });
}

async function filesOf(text: string): Promise<Record<string, string>> {
  return Object.fromEntries((await read(text)).files);
}

describe("readBuildPart", () => {
  it("reads one manifest; paths are taken relative to the working directory", async () => {
    const line = `console=ttyS0 word=${randomWord()}\n`;
    await writeFile(join(temporary(), "cmdline"), line);
    expect(
      await read("arch=aarch64,variant=baremetal,kernel=vmlinuz,initramfs=/abs/initrd,cmdline=./cmdline"),
    )
      .toEqual({
        architecture: "arm64",
        variant: "metal",
        commandLine: line,
        files: new Map([["kernel", join(temporary(), "vmlinuz")], ["initramfs", "/abs/initrd"]]),
      });
  });

  it("is for virtualization and has no command line unless told", async () => {
    expect(await read("arch=amd64,iso=/x")).toEqual({
      architecture: "amd64",
      variant: "virtualization",
      commandLine: undefined,
      files: new Map([["iso", "/x"]]),
    });
  });

  it("keeps files in the fixed order of roles, however they were given", async () => {
    const { files } = await read("iso=/i,uki=/u,squashfs=/s,initramfs=/n,kernel=/k,rootfs=/r,arch=amd64");
    expect([...files.keys()]).toEqual(["rootfs", "kernel", "initramfs", "squashfs", "uki", "iso"]);
  });

  it.each([
    ["arch=amd64,rootfs=/a=b", { rootfs: "/a=b" }],
    ["arch=amd64,rootfs=/a,,b", { rootfs: "/a,b" }],
    ["arch=amd64,rootfs=/a,,,kernel=/k", { rootfs: "/a,", kernel: "/k" }],
    ["arch=amd64,rootfs=/a,,,,b", { rootfs: "/a,,b" }],
    ["arch=amd64,rootfs=/a,,kernel=/k", { rootfs: "/a,kernel=/k" }],
  ])("reads %s", async (text, files) => {
    expect(await filesOf(text)).toEqual(files);
  });

  it.each([
    ["", '"" is not one of arch= variant= cmdline= rootfs='],
    ["rootfs=/r", "it has no arch=, must name the architecture"],
    [
      "arch=amd64",
      "it names no file, must name at least one of rootfs, kernel, initramfs, squashfs, uki, iso",
    ],
    ["arch=amd64,cmdline=/c", "it names no file"],
    ["arch=amd64,disk=/r", '"disk=/r" is not one of'],
    ["arch=amd64,rootfs", '"rootfs" is not one of'],
    ["arch=amd64,rootfs=/r,", '"" is not one of'],
    ["arch=amd64,toString=/r", '"toString=/r" is not one of'],
    ["arch=amd64,rootfs=/r,rootfs=/s", "rootfs= stands twice"],
    ["arch=amd64,rootfs=", "rootfs= is empty, must have a value"],
    ["arch=,rootfs=/r", "arch= is empty, must have a value"],
  ])("refuses %j", async (text, why) => {
    const { code, message } = await failureOf(read(text));
    expect([code, message.startsWith(`Cannot use --config ${JSON.stringify(text)}: ${why}`)]).toEqual([
      "REQUEST_INVALID",
      true,
    ]);
  });

  it.each([["arch=riscv64,rootfs=/r"], ["arch=amd64,variant=cloud,rootfs=/r"]])(
    "refuses an unknown word: %s",
    async (text) => {
      expect((await failureOf(read(text))).code).toBe("REQUEST_INVALID");
    },
  );

  it("names a command line file that cannot be read", async () => {
    const { code, message } = await failureOf(read("arch=amd64,kernel=/k,cmdline=nowhere"));
    expect(code).toBe("REQUEST_INVALID");
    expect(message).toContain(`Cannot read command line file "${join(temporary(), "nowhere")}": ENOENT`);
  });
});
