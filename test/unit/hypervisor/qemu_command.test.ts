import { spawnSync } from "node:child_process";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { renderQemuCommand } from "../../../src/hypervisor/qemu_command/command.ts";
import { quoteShell } from "../../../src/hypervisor/qemu_command/shell.ts";
import { arbitraryDomain } from "./arbitrary_domain.ts";

/** Every value that follows `option`; the arguments are pairs but for the two switches. */
function valuesOf(argv: readonly string[], option: string): string[] {
  return argv.flatMap((argument, index) => argv[index - 1] === option ? [argument] : []);
}

/** Strict: a property that a test does not know of must be looked at before it is let through. */
const blockNodeSchema = z.strictObject({
  "node-name": z.string(),
  driver: z.enum(["file", "raw", "qcow2"]),
  filename: z.string().optional(),
  file: z.string().optional(),
  backing: z.string().nullable().optional(),
  "read-only": z.boolean(),
  discard: z.literal("unmap").optional(),
});

function blockNodesOf(argv: readonly string[]): Map<string, z.infer<typeof blockNodeSchema>> {
  const nodes = valuesOf(argv, "-blockdev").map((json) => blockNodeSchema.parse(JSON.parse(json)));
  return new Map(nodes.map((node) => [node["node-name"], node]));
}

describe("renderQemuCommand", () => {
  it("HI07 is sandboxed, without defaults, without user configuration and without a probing option", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const argv = renderQemuCommand(domain);
      expect(argv).toContain("-nodefaults");
      expect(argv).toContain("-no-user-config");
      expect(valuesOf(argv, "-sandbox")).toEqual([
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
      ]);
      const options = new Set(argv.filter((argument) => /^-[a-z-]+$/.test(argument)));
      for (
        const probing of ["-drive", "-hda", "-cdrom", "-pflash", "-bios", "-monitor", "-qmp", "-readconfig"]
      ) {
        expect(options).not.toContain(probing);
      }
    }));
  });

  it("HI03 HD13 HD14 spells out every block node, exact path, format and backing", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const argv = renderQemuCommand(domain);
      const nodes = blockNodesOf(argv);
      const drives = valuesOf(argv, "-device").map((json) => JSON.parse(json)).filter((device) =>
        device.driver === "virtio-blk-pci"
      );
      const seen = drives.map((device) => {
        const top = nodes.get(device.drive)!;
        const below = typeof top.backing === "string" ? nodes.get(top.backing)! : null;
        // Nothing is left for QEMU to read from a header.
        expect([top, below].map((node) => node?.driver === "qcow2" ? node.backing !== undefined : true))
          .toEqual([true, true]);
        if (below) expect([below["read-only"], below.backing ?? null]).toEqual([true, null]);
        return {
          path: nodes.get(top.file!)?.filename,
          format: top.driver,
          readOnly: top["read-only"] && nodes.get(top.file!)?.["read-only"],
          serial: device.serial ?? null,
          backing: below ? { path: nodes.get(below.file!)?.filename, format: below.driver } : null,
        };
      });
      expect(seen).toEqual(domain.disks);
    }));
  });

  it("HI04 gives kernel, initramfs and command line untouched", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const { boot } = domain;
      fc.pre(boot.mode === "kernel");
      const argv = renderQemuCommand(domain);
      expect(argv[argv.indexOf("-kernel") + 1]).toBe(boot.kernelPath);
      const afterKernel = argv.slice(argv.indexOf("-kernel") + 2);
      const expected = [
        ...(boot.initramfsPath === null ? [] : ["-initrd", boot.initramfsPath]),
        ...(boot.cmdline === "" ? [] : ["-append", boot.cmdline]),
      ];
      expect(afterKernel.slice(0, expected.length)).toEqual(expected);
    }));
  });

  it("opens NVRAM for writing and the UEFI loader for reading", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const { boot } = domain;
      fc.pre(boot.firmware.kind === "uefi");
      const argv = renderQemuCommand(domain);
      const nodes = blockNodesOf(argv);
      const flash = /pflash0=([^,]+),pflash1=([^,]+)$/.exec(valuesOf(argv, "-machine")[0]!);
      const files = [flash?.[1], flash?.[2]].map((node) => nodes.get(nodes.get(node!)!.file!)!);
      expect(files.map((file) => [file.filename, file["read-only"]])).toEqual([
        [boot.firmware.loaderPath, true],
        [boot.firmware.nvramPath, false],
      ]);
    }));
  });

  it("HD16 attaches an ISO raw and read-only, as the first device to boot from, and only then a CD drive", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const { boot } = domain;
      const argv = renderQemuCommand(domain);
      const nodes = blockNodesOf(argv);
      const devices = valuesOf(argv, "-device").map((json) => JSON.parse(json));
      const seen = devices.filter(({ driver }) => driver === "scsi-cd").map(({ drive, bootindex }) => {
        const { driver, file, "read-only": readOnly } = nodes.get(drive)!;
        const { filename, "read-only": fileReadOnly } = nodes.get(file!)!;
        return { driver, filename, readOnly, fileReadOnly, bootindex };
      });
      const cdrom = { driver: "raw", readOnly: true, fileReadOnly: true, bootindex: 1 };
      expect(seen).toEqual(boot.mode === "iso" ? [{ ...cdrom, filename: boot.isoPath }] : []);
      const diskIndexes = devices.filter(({ driver }) => driver === "virtio-blk-pci").map(({ bootindex }) =>
        bootindex
      );
      const first = { kernel: undefined, disk: 1, iso: 2 }[boot.mode];
      expect(diskIndexes).toEqual(domain.disks.map((_disk, index) => index === 0 ? first : undefined));
    }));
  });

  it("HI03 doubles commas in the sockets' paths, and has no monitor and no agent without them", () => {
    const [domain] = fc.sample(arbitraryDomain, 1);
    const command = renderQemuCommand({ ...domain!, tpm: true, runtimeDirectory: "/run/a,b" });
    expect(valuesOf(command, "-chardev").slice(1)).toEqual([
      "socket,id=monitor,path=/run/a,,b/qmp.sock,server=on,wait=off",
      "socket,id=agent,path=/run/a,,b/agent.sock,server=on,wait=off",
      "socket,id=tpm,path=/run/a,,b/tpm.sock",
    ]);
    const without = renderQemuCommand({ ...domain!, tpm: false, runtimeDirectory: null });
    expect(without).not.toContain("-mon");
    expect(valuesOf(without, "-chardev")).toHaveLength(1);
  });

  it("HI04 doubles commas in the Ignition file's path", () => {
    const [domain] = fc.sample(arbitraryDomain, 1);
    const argv = renderQemuCommand({ ...domain!, ignitionPath: "/m/a,b.json" });
    expect(valuesOf(argv, "-fw_cfg")).toEqual(["name=opt/com.coreos/config,file=/m/a,,b.json"]);
  });
});

function throughShell(argv: readonly string[]): string[] {
  // printf is the program: the shell splits and unquotes, printf prints what it was given.
  const { stdout, stderr, status } = spawnSync("sh", ["-c", quoteShell(["printf", "%s\\0", ...argv])], {
    encoding: "utf8",
  });
  expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
  return stdout.split("\0").slice(0, -1);
}

/** The first is no option, as printf would take it for one of its own. */
const anyArguments = fc.array(
  fc.oneof(
    fc.string({ unit: "binary" }).map((drawn) => drawn.replaceAll("\0", "")),
    fc.constantFrom(
      "",
      " ",
      "'",
      "''",
      "'\\''",
      "\\",
      "$(id)",
      "`id`",
      "~",
      "*",
      "#x",
      "a=b",
      "-x",
      "\n",
      "!!",
      "é",
    ),
  ),
  { minLength: 1, maxLength: 10 },
);

describe("quoteShell", () => {
  it("HI03 gives the shell exactly the arguments", () => {
    fc.assert(
      fc.property(anyArguments, (argv) => {
        expect(throughShell(argv)).toEqual(argv);
      }),
      { numRuns: 60 },
    );
  });

  it("HI03 gives the shell exactly a QEMU command", () => {
    fc.assert(
      fc.property(arbitraryDomain, (domain) => {
        const argv = renderQemuCommand(domain);
        expect(throughShell(argv)).toEqual(argv);
      }),
      { numRuns: 40 },
    );
  });

  it("puts each option with its value on a line of its own", () => {
    expect(quoteShell(["qemu", "-a", "-m", "1M", "-append", "a b"])).toBe(
      "qemu \\\n  -a \\\n  -m 1M \\\n  -append 'a b'",
    );
  });
});
