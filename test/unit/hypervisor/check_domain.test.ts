import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShimError } from "../../../src/errors.ts";
import type { ErrorCode } from "../../../src/errors.ts";
import { checkDomainDefinition } from "../../../src/hypervisor/check_domain.ts";
import type { DomainDefinition, DomainDisk } from "../../../src/hypervisor/domain_definition.ts";
import { arbitraryDomain } from "./arbitrary_domain.ts";

const none = { kind: "none" } as const;
const bios = { kind: "bios" } as const;
const uefi = {
  kind: "uefi",
  loaderPath: "/l",
  loaderFormat: "raw",
  nvramPath: "/n",
  nvramFormat: "raw",
  secureBoot: false,
} as const;
const kernel = {
  mode: "kernel",
  firmware: none,
  kernelPath: "/k",
  initramfsPath: "/i",
  cmdline: "quiet",
} as const;
const disk: DomainDisk = { path: "/d", format: "raw", readOnly: false, serial: null, backing: null };

const domain: DomainDefinition = {
  name: "vm-1",
  uuid: "0d5c9b0e-6e1f-4a8e-9d2c-3b7f1a2e4c55",
  architecture: "amd64",
  acceleration: "tcg",
  memoryMib: 1,
  hugepages: false,
  cpus: 1,
  tpm: false,
  boot: kernel,
  disks: [disk],
  ignitionPath: null,
  network: { kind: "network", name: "default", macAddress: "52:54:00:01:02:03", tapName: "default" },
  consoleLogPath: "/c",
  runtimeDirectory: null,
  keepOwnership: true,
};

function codeOf(change: Partial<DomainDefinition>): ErrorCode | "accepted" {
  try {
    checkDomainDefinition({ ...domain, ...change });
    return "accepted";
  } catch (error) {
    if (!(error instanceof ShimError)) throw error;
    // One line, whatever the value was: it goes to logs and terminals.
    expect(error.message).not.toMatch(/\p{Cc}/u);
    return error.code;
  }
}

/** By name, as a test's title must not carry them to the terminal either. */
const unusableText: readonly (readonly [string, string])[] = [
  ["NUL", "\0"],
  ["newline", "\n"],
  ["carriage return", "\r"],
  ["tab", "\t"],
  ["escape", "\u001b[2J"],
  ["DEL", "\u007f"],
  ["C1 control", "\u009b2J"],
  ["lone high surrogate", "\ud800"],
  ["lone low surrogate", "\udc00x"],
  ["U+FFFE", "\ufffe"],
  ["U+FFFF", "\uffff"],
];

describe("checkDomainDefinition", () => {
  it("gives an acceptable definition back as it is", () => {
    fc.assert(fc.property(arbitraryDomain, (drawn) => checkDomainDefinition(drawn) === drawn));
  });

  it.each([
    "",
    ".",
    "..",
    "-a",
    "a-",
    "A",
    "../x",
    "a/b",
    "a\n",
    "a b",
    "é",
    "a".repeat(65),
    "a".repeat(300),
  ])(
    "HI05 refuses machine id %j",
    (name) => expect(codeOf({ name })).toBe("REQUEST_INVALID"),
  );

  it.each(["a", "0", "a.b-c", "a".repeat(64)])("HI05 accepts machine id %j", (name) => {
    expect(codeOf({ name })).toBe("accepted");
  });

  it.each([
    "",
    domain.uuid.toUpperCase(),
    `{${domain.uuid}}`,
    domain.uuid.replaceAll("-", ""),
    `${domain.uuid}\n`,
  ])(
    "refuses uuid %j",
    (uuid) => expect(codeOf({ uuid })).toBe("REQUEST_INVALID"),
  );

  it.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 1e21])(
    "refuses %s as memory and as CPUs",
    (count) => {
      expect([codeOf({ memoryMib: count }), codeOf({ cpus: count })]).toEqual([
        "REQUEST_INVALID",
        "REQUEST_INVALID",
      ]);
    },
  );

  const badPaths: readonly (readonly [string, string])[] = [
    ...["", "/", "a", "-f", "--object=x", "json:{}", "nbd:localhost", "fat:/x"].map((path) =>
      [`"${path}"`, path] as const
    ),
    ...unusableText.map(([name, bad]) => [`with ${name}`, `/a${bad}b`] as const),
  ];
  it.each(badPaths)("HI01 HI03 HI06 refuses path %s wherever a path goes", (_name, path) => {
    const changes: Partial<DomainDefinition>[] = [
      { consoleLogPath: path },
      { ignitionPath: path },
      { runtimeDirectory: path },
      { boot: { ...kernel, kernelPath: path } },
      { boot: { ...kernel, initramfsPath: path } },
      { boot: { ...kernel, firmware: { ...uefi, loaderPath: path } } },
      { boot: { ...kernel, firmware: { ...uefi, nvramPath: path } } },
      { boot: { mode: "disk", firmware: { ...uefi, loaderPath: path } } },
      { boot: { mode: "disk", firmware: { ...uefi, nvramPath: path } } },
      { boot: { mode: "iso", firmware: bios, isoPath: path } },
      { boot: { mode: "iso", firmware: { ...uefi, loaderPath: path }, isoPath: "/i" } },
      { disks: [{ ...disk, path }] },
      { disks: [{ ...disk, format: "qcow2", backing: { path, format: "raw" } }] },
    ];
    expect(changes.map(codeOf)).toEqual(changes.map(() => "REQUEST_INVALID"));
  });

  it.each(unusableText)("HI01 refuses %s in a command line", (_name, bad) => {
    expect(codeOf({ boot: { ...kernel, cmdline: `a${bad}b` } })).toBe("CMDLINE_INVALID");
    expect(codeOf({ boot: { ...kernel, firmware: uefi, cmdline: `a${bad}b` } })).toBe("CMDLINE_INVALID");
  });

  it.each(["", "a".repeat(21), "a b", "a,b", "é", "a/b"])("refuses disk serial %j", (serial) => {
    expect(codeOf({ disks: [{ ...disk, serial }] })).toBe("REQUEST_INVALID");
  });

  it.each([..."," + "<>&\"'"])(
    "refuses %j in the Ignition path alone, which libvirt would spell otherwise",
    (mark) => {
      expect(codeOf({ ignitionPath: `/a${mark}b/ignition.json` })).toBe("REQUEST_INVALID");
      expect(codeOf({ consoleLogPath: `/a${mark}b/console.log` })).toBe("accepted");
    },
  );

  it.each(["", "-x", ".", "a/b", "a b", "a,b", "x".repeat(64)])("refuses network name %j", (name) => {
    expect(codeOf({ network: { kind: "network", name, macAddress: "52:54:00:01:02:03", tapName: "t" } }))
      .toBe(
        "REQUEST_INVALID",
      );
  });

  it.each(["", "52:54:00:01:02", "53:54:00:01:02:03", "52:54:00:0A:02:03"])(
    "refuses MAC address %j",
    (macAddress) => {
      expect(codeOf({ network: { kind: "network", name: "n", macAddress, tapName: "t" } })).toBe(
        "REQUEST_INVALID",
      );
    },
  );

  it("refuses a backing file below a raw disk, which has no way to name one", () => {
    expect(codeOf({ disks: [{ ...disk, backing: { path: "/b", format: "raw" } }] })).toBe("REQUEST_INVALID");
  });

  it("refuses more disks than vda to vdz", () => {
    const disks = (count: number) => ({ disks: Array.from({ length: count }, () => disk) });
    expect([codeOf(disks(26)), codeOf(disks(27))]).toEqual(["accepted", "REQUEST_INVALID"]);
  });

  it("refuses a disk boot without a disk, and BIOS where there is none", () => {
    const boot = { mode: "disk", firmware: bios } as const;
    const iso = { mode: "iso", firmware: bios, isoPath: "/i" } as const;
    expect([
      codeOf({ boot }),
      codeOf({ boot, disks: [] }),
      codeOf({ boot, architecture: "arm64" }),
      codeOf({ boot: iso, architecture: "arm64" }),
    ]).toEqual(["accepted", "BOOT_MODE_IMPOSSIBLE", "BOOT_MODE_IMPOSSIBLE", "BOOT_MODE_IMPOSSIBLE"]);
  });

  it("refuses a runtime directory whose sockets' paths the kernel would not take, and a TPM without one", () => {
    const directory = (length: number) => `/${"r".repeat(length - 1)}`;
    const codes = [
      codeOf({ runtimeDirectory: directory(107 - "/agent.sock".length) }),
      codeOf({ runtimeDirectory: directory(108 - "/agent.sock".length) }),
      codeOf({ runtimeDirectory: `/${"é".repeat(50)}` }),
      codeOf({ runtimeDirectory: "/r", tpm: true }),
      codeOf({ runtimeDirectory: null, tpm: true }),
    ];
    expect(codes).toEqual(["accepted", "REQUEST_INVALID", "REQUEST_INVALID", "accepted", "REQUEST_INVALID"]);
  });

  it("refuses Secure Boot where QEMU has none", () => {
    const boot = { mode: "disk", firmware: { ...uefi, secureBoot: true } } as const;
    expect([codeOf({ boot }), codeOf({ boot, architecture: "arm64" })]).toEqual([
      "accepted",
      "BOOT_MODE_IMPOSSIBLE",
    ]);
  });

  it("accepts a kernel and a CD without any disk, on either architecture", () => {
    const boots = [kernel, { ...kernel, firmware: uefi }, {
      mode: "iso",
      firmware: uefi,
      isoPath: "/i",
    }] as const;
    const codes = boots.flatMap((boot) =>
      (["amd64", "arm64"] as const).map((architecture) => codeOf({ boot, architecture, disks: [] }))
    );
    expect(codes).toEqual(codes.map(() => "accepted"));
    expect(codeOf({ boot: { mode: "iso", firmware: bios, isoPath: "/i" }, disks: [] })).toBe("accepted");
  });
});
