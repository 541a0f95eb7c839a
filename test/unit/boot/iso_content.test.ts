import { describe, expect, it } from "vitest";
import { windowOf } from "../../../src/boot/byte_window.ts";
import { type IsoContent, type IsoImage, recogniseIso } from "../../../src/boot/iso_content.ts";
import { bytesWith, gptDisk } from "../../support/disk_bytes.ts";
import { isoImage } from "../../support/iso_bytes.ts";
import { watched } from "../../support/watched_window.ts";

const SECTOR = 2048;
const BIOS = { platform: 0 };
const UEFI = { platform: 0xef };
const iso = (further: Partial<IsoImage> = {}): IsoImage => ({
  kind: "iso",
  volumeId: "TEST",
  hasUdf: false,
  hasBiosBoot: false,
  hasUefiBoot: false,
  unseen: null,
  hybrid: null,
  ...further,
});
const notAnIso = (why: string): IsoContent => ({
  kind: "not-an-iso",
  why,
  fault: "FORMAT_MISMATCH",
});
const NO_DESCRIPTOR = notAnIso("it has no volume descriptor of ISO 9660 or UDF");

describe("recogniseIso", () => {
  it.each<[string, Uint8Array, IsoContent]>([
    ["that boots by nothing", isoImage(), iso()],
    ["that boots by bios", isoImage({ entries: [BIOS] }), iso({ hasBiosBoot: true })],
    ["that boots by uefi", isoImage({ entries: [UEFI] }), iso({ hasUefiBoot: true })],
    [
      "that boots by both",
      isoImage({ entries: [BIOS, UEFI] }),
      iso({ hasBiosBoot: true, hasUefiBoot: true }),
    ],
    [
      "that boots by both in three sections",
      isoImage({ entries: [{ platform: 1 }, UEFI, BIOS] }),
      iso({ hasBiosBoot: true, hasUefiBoot: true }),
    ],
    [
      "whose entries are not bootable",
      isoImage({ entries: [{ ...BIOS, isBootable: false }, { ...UEFI, isBootable: false }] }),
      iso(),
    ],
    [
      "whose catalog lies far away",
      isoImage({ entries: [UEFI], catalogSector: 500 }),
      iso({ hasUefiBoot: true }),
    ],
    ["whose catalog lies beyond it", isoImage({ entries: [UEFI], catalogSector: 512 }), iso()],
    ["whose catalog lies beyond any", isoImage({ entries: [UEFI], catalogSector: 0xffffffff }), iso()],
    [
      "whose catalog has another sum",
      isoImage({ entries: [UEFI], patch: { [20 * SECTOR + 4]: [1] } }),
      iso(),
    ],
    ["whose catalog has no key", isoImage({ entries: [UEFI], patch: { [20 * SECTOR + 30]: [0, 0] } }), iso()],
    [
      "whose catalog counts entries that are not there",
      isoImage({ entries: [BIOS, UEFI], patch: { [20 * SECTOR + 66]: [0xff, 0xff] } }),
      iso({ hasBiosBoot: true, hasUefiBoot: true }),
    ],
    [
      "whose entries have extensions without end",
      isoImage({ entries: [BIOS, UEFI], patch: { [20 * SECTOR + 128]: "\x44".repeat(SECTOR - 128) } }),
      iso({ hasBiosBoot: true, hasUefiBoot: true }),
    ],
    ["without name", isoImage({ volumeId: "" }), iso({ volumeId: null })],
    ["of a name that is not printable", isoImage({ volumeId: "A\x1b[2J" }), iso({ volumeId: null })],
    ["of the longest name", isoImage({ volumeId: "A".repeat(32) }), iso({ volumeId: "A".repeat(32) })],
    ["with UDF", isoImage({ hasUdf: true }), iso({ hasUdf: true })],
    [
      "of UDF only",
      bytesWith(1024 * 1024, { [16 * SECTOR]: "\0BEA01\x01", [17 * SECTOR]: "\0NSR03\x01" }),
      iso({ volumeId: null, hasUdf: true }),
    ],
    ["HD16 with an MBR", isoImage({ patch: { 510: [0x55, 0xaa] } }), iso({ hybrid: "mbr" })],
    ["HD16 with a GPT", isoImage({ patch: { 510: [0x55, 0xaa], 512: "EFI PART" } }), iso({ hybrid: "gpt" })],
    ["HD16 that is none: zeros", new Uint8Array(1024 * 1024), NO_DESCRIPTOR],
    ["HD16 that is none: a disk", gptDisk([]), NO_DESCRIPTOR],
    ["HD16 that is none: an empty file", new Uint8Array(), NO_DESCRIPTOR],
    [
      "HD16 that is none: a supplementary descriptor only",
      isoImage({ patch: { [16 * SECTOR]: [2] } }),
      NO_DESCRIPTOR,
    ],
    [
      "HD09 that begins as a qcow2 file",
      isoImage({ patch: { 0: "QFI\xfb" } }),
      notAnIso("it begins with the header of a qcow2 file"),
    ],
  ])("tells one %s", async (_name, bytes, expected) => {
    const { window, readBytes } = watched(windowOf(bytes));
    expect(await recogniseIso(window)).toEqual(expected);
    expect(readBytes()).toBeLessThanOrEqual(66 * 1024);
  });

  it.each<[string, Uint8Array, IsoContent]>([
    ["nothing", new Uint8Array(), { kind: "unknown", why: "cannot be told without its bytes" }],
    ["its first 16 KiB", isoImage().slice(0, 16384), {
      kind: "unknown",
      why: "cannot be told from its first 16 KiB",
    }],
    [
      "its first 64 KiB, without the catalog",
      isoImage({ entries: [UEFI], catalogSector: 40 }).slice(0, 65536),
      iso({ hasBiosBoot: undefined, hasUefiBoot: undefined, unseen: "cannot be told from its first 64 KiB" }),
    ],
    [
      "its first 64 KiB, with the catalog",
      isoImage({ entries: [UEFI] }).slice(0, 65536),
      iso({ hasUefiBoot: true }),
    ],
  ])("says what it can of a file of which it sees only %s", async (_name, head, expected) => {
    expect(await recogniseIso(windowOf(head, 1024 * 1024))).toEqual(expected);
  });
});
