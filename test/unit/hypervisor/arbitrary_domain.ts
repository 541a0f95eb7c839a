import fc from "fast-check";
import type {
  DomainBoot,
  DomainDefinition,
  DomainDisk,
  DomainNetwork,
  UefiFirmware,
} from "../../../src/hypervisor/domain_definition.ts";

/** What a path and a command line may hold: any text of one line, rich in what shells, XML and QEMU's options mark. */
const text = fc.array(
  fc.oneof(
    fc.constantFrom(..."<>&\"',=$`\\;|*?[]{}~#!: -", ",,", "]]>", "&amp;", "</cmdline>", "--", "é", "😀"),
    fc.string({ unit: "grapheme-ascii", minLength: 1, maxLength: 6 }),
  ),
  { maxLength: 12 },
).map((pieces) => pieces.join(""));

const filePath = text.map((rest) => `/x${rest}`);
const format = fc.constantFrom("raw", "qcow2");
const hex = (length: number) =>
  fc.array(fc.constantFrom(..."0123456789abcdef"), { minLength: length, maxLength: length })
    .map((digits) => digits.join(""));

const disk: fc.Arbitrary<DomainDisk> = fc.record({
  path: filePath,
  format,
  readOnly: fc.boolean(),
  serial: fc.option(fc.stringMatching(/^[A-Za-z0-9_.+-]{1,20}$/)),
  backing: fc.option(fc.record({ path: filePath, format })),
}).map((drawn) => drawn.format === "raw" ? { ...drawn, backing: null } : drawn);

const uefi: fc.Arbitrary<UefiFirmware> = fc.record({
  kind: fc.constant("uefi"),
  loaderPath: filePath,
  loaderFormat: fc.constant("raw"),
  nvramPath: filePath,
  nvramFormat: fc.constant("raw"),
  secureBoot: fc.constant(false),
});

const boot: fc.Arbitrary<DomainBoot> = fc.oneof(
  fc.record({
    mode: fc.constant("kernel"),
    firmware: fc.oneof(fc.record({ kind: fc.constant("none") }), uefi),
    kernelPath: filePath,
    initramfsPath: fc.option(filePath),
    cmdline: text,
  }),
  fc.record({ mode: fc.constant("disk"), firmware: uefi }),
  fc.record({ mode: fc.constant("iso"), firmware: uefi, isoPath: filePath }),
);

const macAddress = hex(6).map((tail) => `52:54:00:${tail.slice(0, 2)}:${tail.slice(2, 4)}:${tail.slice(4)}`);

const network: fc.Arbitrary<DomainNetwork> = fc.oneof(
  fc.record({ kind: fc.constant("none") }),
  fc.record({ kind: fc.constant("user"), macAddress }),
  fc.record({
    kind: fc.constantFrom("network", "bridge"),
    name: fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,62}$/),
    macAddress,
    tapName: fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,14}$/),
  }),
);

/** A definition that `checkDomainDefinition` accepts. */
export const arbitraryDomain: fc.Arbitrary<DomainDefinition> = fc.record({
  name: fc.stringMatching(/^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$/),
  uuid: fc.uuid(),
  architecture: fc.constantFrom("amd64", "arm64"),
  acceleration: fc.constantFrom("kvm", "tcg"),
  memoryMib: fc.integer({ min: 1, max: 1 << 24 }),
  hugepages: fc.boolean(),
  cpus: fc.integer({ min: 1, max: 512 }),
  tpm: fc.boolean(),
  boot,
  disks: fc.array(disk, { minLength: 1, maxLength: 4 }),
  // What libvirt does not hand on is refused.
  ignitionPath: fc.option(filePath.map((path) => path.replace(/[,<>&"']/g, "_"))),
  network,
  consoleLogPath: filePath,
  // A socket's path has at most 107 bytes.
  runtimeDirectory: text.map((rest) => `/r${[...rest].slice(0, 20).join("")}`),
  keepOwnership: fc.boolean(),
});
