import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { DiskPacking } from "../../../src/boot/disk_packing.ts";
import { openPackedDisk, unpackDiskHead } from "../../../src/content/unpack_disk.ts";
import { gzipOf, zstdOf } from "../../support/compressed_bytes.ts";
import { rejectionOf } from "../../support/failures.ts";
import { randomWord } from "../../support/random_word.ts";
import { concat, paxRecords, TAR_END, type TarEntry, tarEntry, tarOf } from "../../support/tar_bytes.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const PLAIN: DiskPacking = { compression: null };
const GZIP: DiskPacking = { compression: "gzip" };
const ZSTD: DiskPacking = { compression: "zstd" };
const BROKEN = "the image's publisher must publish it anew: the layer's bytes are broken";
const FILE_TREE = "this is a container image's file tree, not a disk: publish a disk image";

/** No multiple of a tar's block. */
const disk = new Uint8Array(randomBytes(100_001));
const name = `${randomWord()}.raw`;
const file: TarEntry = { name, bytes: disk };

async function* pieces(bytes: Uint8Array, pieceBytes = 1009): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += pieceBytes) yield bytes.slice(start, start + pieceBytes);
}

async function unpack(layer: Uint8Array, packing: DiskPacking = PLAIN) {
  const { chunks, close, ...facts } = await openPackedDisk(pieces(layer), packing);
  const parts: Uint8Array[] = [];
  try {
    for await (const chunk of chunks) parts.push(chunk);
  } finally {
    await close();
  }
  return { ...facts, bytes: concat(...parts) };
}

async function refusal(layer: Uint8Array, packing: DiskPacking = PLAIN) {
  const { code, message, details } = await rejectionOf(unpack(layer, packing));
  expect(code).toBe("FORMAT_MISMATCH");
  return [message.replace("Cannot unpack the disk layer: ", ""), details.remedy];
}

describe("openPackedDisk", () => {
  it.each([
    ["gzip", gzipOf(disk), GZIP, { steps: ["gzip"], memberName: null, sizeBytes: null }],
    ["zstd", zstdOf(disk), ZSTD, { steps: ["zstd"], memberName: null, sizeBytes: null }],
    ["tar", tarOf(file), PLAIN, { steps: ["tar"], memberName: name, sizeBytes: disk.length }],
    ["gzip and tar", gzipOf(tarOf(file)), GZIP, {
      steps: ["gzip", "tar"],
      memberName: name,
      sizeBytes: disk.length,
    }],
    ["zstd and tar", zstdOf(tarOf(file)), ZSTD, {
      steps: ["zstd", "tar"],
      memberName: name,
      sizeBytes: disk.length,
    }],
  ])("takes off %s", async (_, layer, packing, facts) => {
    expect(await unpack(layer, packing)).toEqual({ ...facts, bytes: disk });
  });

  it("takes what is shorter than a tar's block, and nothing at all, as it is", async () => {
    expect((await unpack(gzipOf(disk.slice(0, 300)), GZIP)).bytes).toEqual(disk.slice(0, 300));
    expect((await unpack(zstdOf(new Uint8Array()), ZSTD)).bytes).toEqual(new Uint8Array());
  });

  it("shows every decompressed byte to who watches, and ends when that one throws", async () => {
    const layer = gzipOf(tarOf(file));
    let seenBytes = 0;
    const watched = await openPackedDisk(pieces(layer), GZIP, {
      onDecoded: (bytes) => seenBytes += bytes.length,
    });
    for await (const _ of watched.chunks);
    expect(seenBytes).toBe(tarOf(file).length);

    const stop = new Error("enough");
    const onDecoded = () => {
      throw stop;
    };
    await expect(openPackedDisk(pieces(layer), GZIP, { onDecoded })).rejects.toBe(stop);
  });

  it("lets go of the source when it is closed, however much was read, and when it fails", async () => {
    let released = 0;
    async function* source(layer: Uint8Array) {
      try {
        yield* pieces(layer);
      } finally {
        released += 1;
      }
    }
    for (const layer of [tarOf(file), gzipOf(disk)]) {
      const packing = layer[0] === 0x1f ? GZIP : PLAIN;
      await (await openPackedDisk(source(layer), packing)).close();
      const begun = await openPackedDisk(source(layer), packing);
      for await (const _ of begun.chunks) break;
      await begun.close();
    }
    expect(released).toBe(4);
    await rejectionOf(openPackedDisk(source(tarOf({ name: "sh", type: "2" })), PLAIN));
    await rejectionOf(openPackedDisk(source(gzipOf(disk).subarray(0, 5)), GZIP));
    expect(released).toBe(6);
  });
});

describe("a tar with one file", () => {
  it.each<[string, TarEntry]>([
    ["its folder", { name: "images/", type: "5" }],
    ["its folder in the oldest form", { name: "images/", type: "\0", magic: "" }],
    ["the folder it was made in", { name: "./", type: "5" }],
    ["what macOS adds", { name: "images/._disk.raw", bytes: disk.subarray(0, 700) }],
    ["a comment", { name: "pax_global_header", type: "g", bytes: paxRecords({ comment: "x".repeat(52) }) }],
  ])("may hold %s", async (_, other) => {
    expect((await unpack(tarOf(other, file))).bytes).toEqual(disk);
    expect((await unpack(tarOf(file, other))).bytes).toEqual(disk);
  });

  it.each([
    ["\0", "ustar\x0000"],
    ["0", "ustar  \0"],
    ["7", "ustar\x0000"],
    ["\0", ""],
  ])("may call it type %j in dialect %j", async (type, magic) => {
    expect((await unpack(tarOf({ ...file, type, magic }))).bytes).toEqual(disk);
  });

  it("may give its name, and its size, in a header of their own", async () => {
    const long = `${"a/".repeat(300)}${name}`;
    const gnu = { name: "././@LongLink", type: "L", bytes: new TextEncoder().encode(`${long}\0`) };
    const link = { name: "././@LongLink", type: "K", bytes: new TextEncoder().encode("nowhere\0") };
    const pax = { name: "PaxHeaders/x", type: "x", bytes: paxRecords({ path: long, mtime: "1.5" }) };
    for (const header of [gnu, pax]) {
      expect(await unpack(tarOf(link, header, file))).toEqual({
        steps: ["tar"],
        memberName: long,
        sizeBytes: disk.length,
        bytes: disk,
      });
    }
    const size = { name: "x", type: "x", bytes: paxRecords({ size: String(disk.length) }) };
    expect((await unpack(tarOf(size, { ...file, sizeField: `${"0".repeat(11)} ` }))).bytes).toEqual(disk);
    const binary = `\x80${"\0".repeat(8)}\x01\x06\x20`; // 67104
    const part = { name, bytes: disk.subarray(0, 0x10620) };
    expect(Buffer.from(binary, "latin1")[0]).toBe(0x80);
    expect((await unpack(withSizeField(part, Buffer.from(binary, "latin1")))).bytes).toEqual(part.bytes);
  });

  it("may lack its end mark, or have a long one, or be empty", async () => {
    expect((await unpack(tarEntry(file))).bytes).toEqual(disk);
    expect((await unpack(concat(tarOf(file), new Uint8Array(1_000_000)))).bytes).toEqual(disk);
    expect((await unpack(concat(tarEntry(file), TAR_END.subarray(0, 512)))).bytes).toEqual(disk);
    expect((await unpack(tarOf({ name }))).bytes).toEqual(new Uint8Array());
  });

  it.each(["--format=gnu", "--format=pax", "--format=ustar", "--format=v7"])(
    "is what `tar %s` makes",
    async (format) => {
      const folder = "f".repeat(format === "--format=gnu" || format === "--format=pax" ? 200 : 20);
      await mkdir(join(temporary(), folder));
      await writeFile(join(temporary(), folder, name), disk);
      const layer = execFileSync("tar", [format, "-C", temporary(), "-c", folder], { maxBuffer: 1 << 24 });
      expect(await unpack(layer)).toEqual({
        steps: ["tar"],
        memberName: `${folder}/${name}`,
        sizeBytes: disk.length,
        bytes: disk,
      });
    },
  );
});

describe("a tar that is no disk's", () => {
  const mustHoldOne = "must hold exactly one file, the disk image";
  it.each<[string, TarEntry[], string]>([
    ["a second file", [file, { name: "etc/passwd", bytes: disk }], `"etc/passwd" is in it beside "${name}"`],
    ["a symbolic link", [{ name: "bin", type: "2" }, file], `"bin" in it is a SymbolicLink`],
    ["a link after the disk", [file, { name: "bin", type: "2" }], `"bin" in it is a SymbolicLink`],
    ["a hard link", [file, { name: "bin/sh", type: "1" }], `"bin/sh" in it is a Link`],
    ["a character device", [{ name: "dev/kvm", type: "3" }], `"dev/kvm" in it is a CharacterDevice`],
    ["a block device", [{ name: "dev/vda", type: "4" }], `"dev/vda" in it is a BlockDevice`],
    ["a FIFO", [{ name: "run/p", type: "6" }], `"run/p" in it is a FIFO`],
  ])("is refused for %s", async (_, entries, why) => {
    expect(await refusal(tarOf(...entries))).toEqual([
      `it is a tar of a file tree, ${why}, ${mustHoldOne}`,
      FILE_TREE,
    ]);
  });

  it("is refused for holding no file", async () => {
    const expected = ["it is a tar that holds no file, must hold one", "publish the disk image itself"];
    expect(await refusal(tarOf({ name: "etc/", type: "5" }))).toEqual(expected);
    expect(await refusal(tarEntry({ name: "etc/", type: "5" }))).toEqual(expected);
  });

  it("is refused for a sparse file, in each of the ways to say so", async () => {
    const expected = [
      `it is a tar in which "${name}" is a sparse file, must be an ordinary one`,
      "make the tar without --sparse: the disk's zeros are compressed well, and are not stored here",
    ];
    expect(await refusal(tarOf({ ...file, type: "S" }))).toEqual(expected);
    const pax = paxRecords({ path: name, "GNU.sparse.major": "1", "GNU.sparse.realsize": "1000000" });
    expect(await refusal(tarOf({ name: "x", type: "x", bytes: pax }, file))).toEqual(expected);
    const path = join(temporary(), name);
    const handle = await open(path, "w");
    await handle.write(disk, 0, disk.length, 5_000_000);
    await handle.close();
    for (const format of ["--format=gnu", "--format=pax"]) {
      const layer = execFileSync("tar", ["-S", format, "-C", temporary(), "-c", name], {
        maxBuffer: 1 << 24,
      });
      expect((await refusal(layer))[0]).toMatch(/ is a sparse file, must be an ordinary one$/);
    }
  });
});

describe("a broken tar", () => {
  it("is refused wherever it is cut off inside", async () => {
    const whole = concat(tarEntry({ name: "d/", type: "5" }), tarEntry(file));
    for (const end of [513, 700, 1023, 1025, 50_000, whole.length - 1, whole.length - 400]) {
      expect([end, ...await refusal(whole.subarray(0, end))]).toEqual([
        end,
        "it is a tar that is truncated",
        BROKEN,
      ]);
    }
    const pax = tarEntry({ name: "x", type: "x", bytes: paxRecords({ path: "y" }) });
    expect(await refusal(pax.subarray(0, 600))).toEqual(["it is a tar that is truncated", BROKEN]);
  });

  it("is refused for a broken header, and for anything after its end mark", async () => {
    const broken = tarEntry({ name: "d/", type: "5" });
    broken[50] = 1;
    expect(await refusal(concat(tarEntry(file), broken))).toEqual([
      "it is a tar with a broken header",
      BROKEN,
    ]);
    expect(await refusal(disk)).toEqual(["it is no tar", BROKEN]);
    expect(await refusal(concat(tarOf(file), tarOf(file)))).toEqual([
      "it is a tar that goes on after its end mark",
      BROKEN,
    ]);
  });

  it("is refused for a size that is none", async () => {
    const negative = Buffer.alloc(12, 0xff);
    const huge = Buffer.concat([Buffer.of(0x80), Buffer.alloc(11, 0x7f)]);
    for (const field of [negative, huge]) {
      expect((await refusal(withSizeField(file, field)))[0]).toMatch(/^it is a tar with a broken header, /);
    }
    const pax = { name: "x", type: "x", bytes: paxRecords({ size: "99999999999999999999" }) };
    expect((await refusal(tarOf(pax, file)))[0]).toBe(
      "it is a tar with a broken header, a size is no number",
    );
  });

  it("is refused for headers that would fill the memory", async () => {
    const pax = { name: "x", type: "x", bytes: new Uint8Array(1024 * 1024 + 1) };
    expect((await refusal(tarOf(pax, file)))[0]).toBe(
      "it is a tar with a header of 1048577 bytes, limit is 1048576 bytes",
    );
    const companion = { name: "._x", bytes: new Uint8Array(1024 * 1024 + 1) };
    expect((await refusal(tarOf(companion, file)))[0]).toBe('it is a tar in which "._x" has 1048577 bytes');
  });
});

describe("unpackDiskHead", () => {
  const large = new Uint8Array(randomBytes(300_000));
  const HEAD = 65_608;

  it.each([
    ["gzip", gzipOf(large), GZIP, Number.MAX_SAFE_INTEGER],
    ["gzip and tar", gzipOf(tarOf({ name, bytes: large })), GZIP, large.length],
    ["tar", tarOf({ name, bytes: large }), PLAIN, large.length],
  ])("shows the start of a disk in %s, as far as the head goes", async (_, layer, packing, sizeBytes) => {
    for (const end of [layer.length, 66_000, 30_000]) {
      const window = await unpackDiskHead(packing, layer.subarray(0, end));
      const bytes = await window.read(0, 1_000_000);
      expect([end, window.sizeBytes]).toEqual([end, sizeBytes]);
      expect(Buffer.compare(bytes, large.subarray(0, bytes.length))).toBe(0);
      expect(bytes.length).toBeGreaterThanOrEqual(Math.min(HEAD, end - 2000));
      expect(bytes.length).toBeLessThanOrEqual(HEAD);
    }
  });

  it("shows of zstd the blocks that the head holds as a whole", async () => {
    const text = new TextEncoder().encode(Buffer.from(large.subarray(0, 200_000)).toString("hex"));
    const layer = zstdOf(text);
    const window = await unpackDiskHead(ZSTD, layer.subarray(0, 100_000));
    expect(Buffer.compare(await window.read(0, 1 << 20), text.subarray(0, HEAD))).toBe(0);
    expect(await (await unpackDiskHead(ZSTD, layer.subarray(0, 2000))).read(0, 1 << 20)).toEqual(
      new Uint8Array(),
    );
  });

  it("shows nothing of a head that ends before the disk", async () => {
    const pax = tarEntry({ name: "x", type: "x", bytes: paxRecords({ comment: "x".repeat(2000) }) });
    for (const end of [0, 512, 600, 2000, pax.length, pax.length + 200]) {
      const window = await unpackDiskHead(PLAIN, concat(pax, tarEntry(file)).subarray(0, end));
      expect([end, await window.read(0, 1 << 20)]).toEqual([end, new Uint8Array()]);
    }
    expect(await (await unpackDiskHead(GZIP, gzipOf(disk).subarray(0, 3))).read(0, 9)).toEqual(
      new Uint8Array(),
    );
  });

  it("takes a bomb's head in small pieces, and refuses what is broken or a file tree", async () => {
    const bomb = gzipOf(new Uint8Array(60_000_000));
    expect((await (await unpackDiskHead(GZIP, bomb)).read(0, 1 << 20)).length).toBe(HEAD);
    const code = async (packing: DiskPacking, head: Uint8Array) =>
      (await rejectionOf(unpackDiskHead(packing, head))).code;
    expect(await code(GZIP, new Uint8Array(1000))).toBe("FORMAT_MISMATCH");
    expect(await code(GZIP, gzipOf(tarOf({ name: "bin", type: "2" }, file)))).toBe("FORMAT_MISMATCH");
  });
});

/** An archive of one entry whose size field is not text. */
function withSizeField(entry: TarEntry, field: Uint8Array): Uint8Array {
  const bytes = tarOf(entry);
  bytes.set(field, 124);
  bytes.set(new TextEncoder().encode("        "), 148);
  const sum = bytes.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  bytes.set(new TextEncoder().encode(`${sum.toString(8).padStart(6, "0")}\0 `), 148);
  return bytes;
}
