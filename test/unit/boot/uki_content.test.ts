import { describe, expect, it } from "vitest";
import { windowOf } from "../../../src/boot/byte_window.ts";
import type { FormatFault } from "../../../src/boot/format_fault.ts";
import { recogniseUki, type UkiContent } from "../../../src/boot/uki_content.ts";
import { bytesWith, bzImage, efiProgram, type SectionBytes } from "../../support/disk_bytes.ts";
import { watched } from "../../support/watched_window.ts";

const notAUki = (why: string, fault: FormatFault = "FORMAT_UNSAFE"): UkiContent => ({
  kind: "not-a-uki",
  why,
  fault,
});
const LINUX: SectionBytes = { name: ".linux", bytes: bzImage() };
const uki = (...sections: readonly SectionBytes[]) => efiProgram(0x8664, { sections: [LINUX, ...sections] });
const words = { cmdline: null, osrel: null, uname: null, isTextUnseen: false };

describe("recogniseUki", () => {
  it.each<[string, Uint8Array, UkiContent]>([
    [
      "one with everything",
      uki(
        { name: ".osrel", bytes: "ID=demo\nNAME=Demo\n" },
        { name: ".uname", bytes: "6.1.0-test" },
        { name: ".cmdline", bytes: "console=ttyS0 quiet\n\0" },
        { name: ".initrd", bytes: "070701" },
        { name: ".ucode", bytes: "070701" },
        { name: ".sbat", bytes: "sbat,1,SBAT" },
      ),
      {
        kind: "uki",
        architecture: "amd64",
        sections: [".linux", ".osrel", ".uname", ".cmdline", ".initrd", ".ucode", ".sbat"],
        cmdline: "console=ttyS0 quiet",
        osrel: "ID=demo\nNAME=Demo",
        uname: "6.1.0-test",
        isTextUnseen: false,
      },
    ],
    [
      "one with the kernel only, for arm64",
      efiProgram(0xaa64, { sections: [LINUX] }),
      { kind: "uki", architecture: "arm64", sections: [".linux"], ...words },
    ],
    [
      "a command line that is not printable",
      uki({ name: ".cmdline", bytes: "a\x1b[2J" }),
      { kind: "uki", architecture: "amd64", sections: [".linux", ".cmdline"], ...words },
    ],
    [
      "a command line of 64 KiB and a byte",
      uki({ name: ".cmdline", bytes: "a".repeat(65537) }),
      { kind: "uki", architecture: "amd64", sections: [".linux", ".cmdline"], ...words },
    ],
    [
      "sections that may stand several times, and those of a profile",
      uki(
        { name: ".cmdline", bytes: "base" },
        { name: ".dtbauto", bytes: "1" },
        { name: ".dtbauto", bytes: "2" },
        { name: ".profile", bytes: "ID=rescue" },
        { name: ".cmdline", bytes: "rescue" },
        { name: ".profile", bytes: "ID=reset" },
        { name: ".cmdline", bytes: "reset" },
      ),
      {
        kind: "uki",
        architecture: "amd64",
        sections: [
          ".linux",
          ".cmdline",
          ".dtbauto",
          ".dtbauto",
          ".profile",
          ".cmdline",
          ".profile",
          ".cmdline",
        ],
        ...words,
        cmdline: "base",
      },
    ],
    [
      "HD19 no kernel",
      efiProgram(0x8664, { sections: [{ name: ".initrd", bytes: "x" }] }),
      notAUki("it has no section .linux"),
    ],
    [
      "HD19 an empty kernel",
      efiProgram(0x8664, { sections: [{ name: ".linux" }] }),
      notAUki("its section .linux is empty"),
    ],
    ["HD19 no sections", efiProgram(0x8664), notAUki("it has no section .linux")],
    [
      "HD19 two command lines",
      uki({ name: ".cmdline", bytes: "a" }, { name: ".cmdline", bytes: "b" }),
      notAUki("it has two sections .cmdline"),
    ],
    ["HD19 two kernels", uki(LINUX), notAUki("it has two sections .linux")],
    [
      "HD19 two command lines in one profile",
      uki({ name: ".profile", bytes: "p" }, { name: ".cmdline", bytes: "a" }, {
        name: ".cmdline",
        bytes: "b",
      }),
      notAUki("it has two sections .cmdline"),
    ],
    [
      "HD19 97 sections",
      efiProgram(0x8664, { sections: [LINUX], sectionCount: 97 }),
      notAUki("its EFI/PE header counts 97 sections, at most 96"),
    ],
    [
      "HD19 65,535 sections",
      efiProgram(0x8664, { sections: [LINUX], sectionCount: 65535 }),
      notAUki("its EFI/PE header counts 65535 sections, at most 96"),
    ],
    [
      "HD19 its table beyond the file",
      efiProgram(0x8664, { headerAt: 7900, sectionCount: 96 }).slice(0, 8192),
      notAUki("its table of sections goes beyond the file"),
    ],
    [
      "HD19 a section beyond the file",
      uki({ name: ".cmdline", bytes: "a", fileBytes: 2 ** 30 }),
      notAUki("its section .cmdline goes beyond the file"),
    ],
    [
      "HD19 a section that begins beyond the file",
      uki({ name: ".cmdline", bytes: "a", fileOffset: 0xffffffff }),
      notAUki("its section .cmdline goes beyond the file"),
    ],
    [
      "HD19 a section whose end wraps",
      uki({ name: ".cmdline", fileOffset: 0xfffffff0, fileBytes: 0x20 }),
      notAUki("its section .cmdline goes beyond the file"),
    ],
    [
      "HD19 a section whose memory wraps",
      uki({ name: ".cmdline", bytes: "a", memoryOffset: 0xffffffff, memoryBytes: 2 }),
      notAUki("its section .cmdline goes beyond 4 GiB of memory"),
    ],
    [
      "HD19 sections that overlap in the file",
      uki({ name: ".cmdline", bytes: "a", fileOffset: 0x400 }),
      notAUki("its sections .linux and .cmdline overlap in the file"),
    ],
    [
      "HD19 sections that overlap in memory",
      uki({ name: ".cmdline", bytes: "a", memoryOffset: 0x400 }),
      notAUki("its sections .linux and .cmdline overlap in memory"),
    ],
    [
      "HD19 a section of a name to be careful with",
      uki({ name: "\x1b[2J", fileBytes: 2 ** 30 }),
      notAUki('its section "\\u001b[2J" goes beyond the file'),
    ],
    [
      "HD19 another machine",
      efiProgram(0x5064, { sections: [LINUX] }),
      notAUki("its EFI/PE header is broken or for an unknown machine", "FORMAT_MISMATCH"),
    ],
    [
      "a 32-bit header",
      efiProgram(0x8664, { sections: [LINUX], magic: 0x10b }),
      notAUki("its PE header is not that of a 64-bit EFI application", "FORMAT_MISMATCH"),
    ],
    ["zeros", new Uint8Array(1024 * 1024), notAUki("it is no EFI program", "FORMAT_MISMATCH")],
    ["an empty file", new Uint8Array(), notAUki("it is no EFI program", "FORMAT_MISMATCH")],
    ["text", bytesWith(100, { 0: "hello" }), notAUki("it is no EFI program", "FORMAT_MISMATCH")],
  ])("tells %s", async (_name, bytes, expected) => {
    const { window, readBytes } = watched(windowOf(bytes));
    const startedAt = performance.now();
    expect(await recogniseUki(window)).toEqual(expected);
    expect(readBytes()).toBeLessThanOrEqual((5 + 5 + 3 * 64) * 1024);
    expect(performance.now() - startedAt).toBeLessThan(200);
  });

  it("does not look at more than 4 GiB", async () => {
    expect(await recogniseUki(windowOf(uki(), 4 * 1024 ** 3 + 1))).toEqual(
      notAUki("it has 4294967297 bytes, at most 4294967296", "LIMIT_EXCEEDED"),
    );
  });

  it.each<[string, Uint8Array, UkiContent]>([
    ["nothing", new Uint8Array(), { kind: "unknown", why: "cannot be told without its bytes" }],
    [
      "a header whose rest is elsewhere",
      efiProgram(0x8664, { headerAt: 6000 }).slice(0, 5000),
      { kind: "unknown", why: "cannot be told from its first 4 KiB" },
    ],
    [
      "the header",
      uki({ name: ".cmdline", bytes: "quiet" }).slice(0, 4096),
      { kind: "uki", architecture: "amd64", sections: [".linux", ".cmdline"], ...words, isTextUnseen: true },
    ],
  ])("says what it can of a file of which it sees only %s", async (_name, head, expected) => {
    expect(await recogniseUki(windowOf(head, 16384))).toEqual(expected);
  });
});
