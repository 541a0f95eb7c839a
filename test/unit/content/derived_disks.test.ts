import { createHash, randomBytes } from "node:crypto";
import {
  chmod,
  chown,
  lstat,
  mkdir,
  readdir,
  readFile,
  rm,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import type { UnpackLimits } from "../../../src/content/unpack_limits.ts";
import { effectiveUserId, nodeFileSystem } from "../../../src/host/file_system.ts";
import { withLock } from "../../../src/host/flock.ts";
import type { Descriptor } from "../../../src/image/descriptor.ts";
import { blobOf } from "../../support/blobs.ts";
import { gzipOf, repeated, zstdOf } from "../../support/compressed_bytes.ts";
import { allocatedBytes, derivedProblems, openDerivedDisks, storeLayer } from "../../support/derived_kit.ts";
import { failureOf, rejectionOf } from "../../support/failures.ts";
import { FaultyFileSystem } from "../../support/faulty_file_system.ts";
import { layoutProblems } from "../../support/layout_checker.ts";
import { collect } from "../../support/streams.ts";
import { concat, paxRecords, tarOf } from "../../support/tar_bytes.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const root = () => join(temporary(), "root");
const MIB = 1024 * 1024;
const GZIP = { compression: "gzip" } as const;
const ZSTD = { compression: "zstd" } as const;

/** Zeros, content, zeros, content over the border of a block, and an odd end. */
const disk = concat(
  new Uint8Array(MIB),
  new Uint8Array(randomBytes(10_000)),
  new Uint8Array(2 * MIB - 11_000),
  new Uint8Array(randomBytes(5000)),
  new Uint8Array(3 * MIB + 77),
);

function recordPathOf(path: string): string {
  return path.replace(/\.raw$/, ".json");
}

async function recordAt(path: string): Promise<unknown> {
  return JSON.parse(await readFile(recordPathOf(path), "utf8"));
}

describe("DerivedDisks.unpackedDisk", () => {
  it.each([
    ["gzip", gzipOf(disk), GZIP, { steps: ["gzip"], memberName: null }],
    ["zstd", zstdOf(disk), ZSTD, { steps: ["zstd"], memberName: null }],
    ["gzip and tar", gzipOf(tarOf({ name: "a/d.raw", bytes: disk })), GZIP, {
      steps: ["gzip", "tar"],
      memberName: "a/d.raw",
    }],
    ["tar", tarOf({ name: "d.raw", bytes: disk }), { compression: null }, {
      steps: ["tar"],
      memberName: "d.raw",
    }],
  ])("makes the disk of a layer in %s, its zeros as holes, and says how in its record", async (
    _,
    bytes,
    packing,
    facts,
  ) => {
    const kit = await openDerivedDisks(root());
    const layer = await storeLayer(kit, bytes);
    const { path, sizeBytes } = await kit.disks.unpackedDisk(layer, packing);
    expect([path, sizeBytes]).toEqual([
      join(root(), "derived", "sha256", `${layer.digest.slice(7)}.raw`),
      disk.length,
    ]);
    expect(Buffer.compare(await readFile(path), disk)).toBe(0);
    expect(allocatedBytes(path)).toBeLessThan(40_000);
    expect(await recordAt(path)).toEqual({
      schemaVersion: 1,
      source: layer.digest,
      ...facts,
      sizeBytes: disk.length,
      sha256: createHash("sha256").update(disk).digest("hex"),
    });
    expect(derivedProblems(root())).toEqual([]);
    expect(layoutProblems(root())).toEqual([]);
    expect(Buffer.compare(await collect(kit.content.openBlob(layer)), bytes)).toBe(0);
  });

  it("takes layers by sha512, and keeps a long name short", async () => {
    const kit = await openDerivedDisks(root());
    const long = { name: "x", type: "x", bytes: paxRecords({ path: "n".repeat(5000) }) };
    const layer = blobOf(tarOf(long, { name: "short", bytes: disk }), { algorithm: "sha512" });
    await kit.content.ingestBytes(layer);
    const { path } = await kit.disks.unpackedDisk(layer.descriptor, { compression: null });
    expect(path).toBe(join(root(), "derived", "sha512", `${layer.descriptor.digest.slice(7)}.raw`));
    expect(await recordAt(path)).toMatchObject({ memberName: "n".repeat(1000) });
    expect(derivedProblems(root())).toEqual([]);
  });

  it("makes it once for any number of callers, in one process or later", async () => {
    const kit = await openDerivedDisks(root());
    const layer = await storeLayer(kit, gzipOf(disk));
    let makers = 0;
    const results = await Promise.all(Array.from({ length: 8 }, async () => {
      let lastBytes = 0;
      const result = await kit.disks.unpackedDisk(layer, GZIP, { onProgress: (bytes) => lastBytes = bytes });
      if (lastBytes > 0) expect(lastBytes).toBe(layer.sizeBytes);
      if (lastBytes > 0) makers += 1;
      return result;
    }));
    expect(makers).toBe(1);
    expect(new Set(results.map(({ path }) => path)).size).toBe(1);
    const { disks } = await openDerivedDisks(root());
    const onProgress = () => {
      throw new Error("made again");
    };
    expect(await disks.unpackedDisk(layer, GZIP, { onProgress })).toEqual(results[0]);
    expect(await disks.find(layer)).toEqual(results[0]);
  });

  it.runIf(effectiveUserId() === 0)("is readable for QEMU's group, and nobody else", async () => {
    const groupId = 64_055;
    const kit = await openDerivedDisks(root(), { groupId });
    const layer = await storeLayer(kit, gzipOf(disk));
    const { path } = await kit.disks.unpackedDisk(layer, GZIP);
    const access = async (of: string) => {
      const { mode, uid, gid } = await lstat(of);
      return [(mode & 0o7777).toString(8), uid, gid];
    };
    expect(await access(path)).toEqual(["440", 0, groupId]);
    expect(await access(recordPathOf(path))).toEqual(["600", 0, 0]);
    for (const directory of [dirname(path), dirname(dirname(path))]) {
      expect(await access(directory)).toEqual(["750", 0, groupId]);
    }
    await chmod(path, 0o400);
    await chown(path, 0, 0);
    await kit.disks.find(layer);
    expect(await access(path)).toEqual(["440", 0, groupId]);
  });

  it.each<[string, (path: string) => Promise<void>]>([
    ["is gone", (path) => rm(path)],
    ["has another size", (path) => truncate(path, 5)],
    ["can be written by others", (path) => chmod(path, 0o666)],
    ["is a link", async (path) => {
      await writeFile(join(temporary(), "other"), disk, { mode: 0o400 });
      await rm(path);
      await symlink(join(temporary(), "other"), path);
    }],
    ["has no record", (path) => rm(recordPathOf(path))],
    ["has half a record", (path) => truncate(recordPathOf(path), 20)],
    ["has the record of another layer", async (path) => {
      const text = await readFile(recordPathOf(path), "utf8");
      await writeFile(recordPathOf(path), text.replace(/sha256:[a-f0-9]{8}/, "sha256:00000000"));
    }],
    ["has a record of another version", async (path) => {
      const text = await readFile(recordPathOf(path), "utf8");
      await writeFile(recordPathOf(path), text.replace('"schemaVersion":1', '"schemaVersion":2'));
    }],
    ["has a link for a record", async (path) => {
      await rm(recordPathOf(path));
      await symlink("/etc/hostname", recordPathOf(path));
    }],
  ])("makes a disk again that %s", async (_, damage) => {
    const kit = await openDerivedDisks(root());
    const layer = await storeLayer(kit, gzipOf(disk));
    const made = await kit.disks.unpackedDisk(layer, GZIP);
    await damage(made.path);
    expect(await kit.disks.find(layer)).toBeUndefined();
    expect(await kit.disks.unpackedDisk(layer, GZIP)).toEqual(made);
    expect(Buffer.compare(await readFile(made.path), disk)).toBe(0);
    expect(derivedProblems(root())).toEqual([]);
  });

  it.runIf(effectiveUserId() === 0)("makes a disk again that another user owns", async () => {
    const kit = await openDerivedDisks(root());
    const layer = await storeLayer(kit, gzipOf(disk));
    const made = await kit.disks.unpackedDisk(layer, GZIP);
    await chown(made.path, 64_055, 0);
    expect(await kit.disks.find(layer)).toBeUndefined();
    await kit.disks.unpackedDisk(layer, GZIP);
    expect((await lstat(made.path)).uid).toBe(0);
  });

  it("refuses a directory that others can write", async () => {
    const kit = await openDerivedDisks(root());
    const layer = await storeLayer(kit, gzipOf(disk));
    await mkdir(join(root(), "derived"), { mode: 0o700 });
    await chmod(join(root(), "derived"), 0o777);
    expect((await failureOf(kit.disks.unpackedDisk(layer, GZIP))).code).toBe("CACHE_LAYOUT_INVALID");
  });
});

describe("DerivedDisks.diskWindow", () => {
  it("shows the disk, ends where it ends, and looks anew each time", async () => {
    const kit = await openDerivedDisks(root());
    const layer = await storeLayer(kit, gzipOf(disk));
    const unpacked = await kit.disks.unpackedDisk(layer, GZIP);
    const window = kit.disks.diskWindow(layer, unpacked);
    expect(window.sizeBytes).toBe(disk.length);
    expect(await window.read(MIB, 600)).toEqual(disk.slice(MIB, MIB + 600));
    expect(await window.read(disk.length - 5, 600)).toEqual(disk.slice(-5));
    expect(await window.read(disk.length + 5, 600)).toEqual(new Uint8Array());
    await truncate(unpacked.path, 1000);
    expect((await rejectionOf(window.read(0, 600))).code).toBe("CONTENT_CORRUPT");
    await rm(unpacked.path);
    expect((await rejectionOf(window.read(0, 600))).code).toBe("IMAGE_NOT_FOUND");
  });
});

describe("a layer that cannot be unpacked", () => {
  it.each([
    ["broken", gzipOf(disk).subarray(0, -9), GZIP, /unexpected end of file$/],
    [
      "broken behind the disk",
      concat(tarOf({ name: "d", bytes: disk }), disk),
      { compression: null },
      /end mark$/,
    ],
    [
      "a file tree",
      gzipOf(tarOf({ name: "d", bytes: disk }, { name: "bin", type: "2" })),
      GZIP,
      /a file tree/,
    ],
    ["not what it was taken for", gzipOf(disk), ZSTD, /zstd stream/],
  ])("because it is %s leaves nothing behind", async (_, bytes, packing, message) => {
    const kit = await openDerivedDisks(root());
    const layer = await storeLayer(kit, bytes);
    const { code, message: said } = await rejectionOf(kit.disks.unpackedDisk(layer, packing));
    expect([code, said]).toEqual(["FORMAT_MISMATCH", expect.stringMatching(message)]);
    expect(await kit.disks.find(layer)).toBeUndefined();
    expect(await readdir(join(root(), "derived", "sha256"))).toEqual([]);
    expect(derivedProblems(root())).toEqual([]);
  });

  it.each([
    ["and does not unpack", (bytes: Uint8Array) => bytes.fill(0xff, 500, 600)],
    // The gzip header's field for the operating system, which no reader minds.
    ["but unpacks", (bytes: Uint8Array) => bytes.fill(0x77, 9, 10)],
  ])("because its blob has changed on this host %s is told as that", async (_, change) => {
    const kit = await openDerivedDisks(root());
    const bytes = gzipOf(disk);
    const layer = await storeLayer(kit, bytes);
    const path = kit.content.blobPath(layer.digest);
    await chmod(path, 0o600);
    await writeFile(path, change(bytes.slice()));
    expect(await rejectionOf(kit.disks.unpackedDisk(layer, GZIP))).toEqual({
      code: "CONTENT_CORRUPT",
      message: `Cannot use blob "${layer.digest}" at "${path}": its bytes are not what its name says`,
      details: { remedy: "pull the image again, which replaces the blob", digest: layer.digest, path },
    });
    expect(derivedProblems(root())).toEqual([]);
  });

  it("because its blob is gone is told as that", async () => {
    const kit = await openDerivedDisks(root());
    const { descriptor } = blobOf(gzipOf(disk));
    expect((await failureOf(kit.disks.unpackedDisk(descriptor, GZIP))).code).toBe("IMAGE_NOT_FOUND");
  });
});

describe("limits", () => {
  const refusal = async (
    bytes: Uint8Array,
    limits: Partial<UnpackLimits>,
    packing: typeof GZIP | typeof ZSTD = GZIP,
  ) => {
    const kit = await openDerivedDisks(root());
    const layer = await storeLayer(kit, bytes);
    const { code, message } = await rejectionOf(kit.disks.unpackedDisk(layer, packing, { limits }));
    expect(await readdir(join(root(), "derived", "sha256"))).toEqual([]);
    expect(derivedProblems(root())).toEqual([]);
    return [code, message.replace("Cannot unpack the disk layer: ", "")];
  };

  it("HM22 no more comes out than allowed, zeros included", async () => {
    expect(await refusal(gzipOf(disk), { maxBytes: disk.length - 1 })).toEqual([
      "LIMIT_EXCEEDED",
      `more than ${disk.length - 1} bytes come out of it, which is the limit`,
    ]);
    const kit = await openDerivedDisks(root());
    const layer = await storeLayer(kit, gzipOf(disk));
    expect(await kit.disks.unpackedDisk(layer, GZIP, { limits: { maxBytes: disk.length } })).toBeDefined();
  });

  it("HM22 what is not the disk counts too", async () => {
    const tar = concat(tarOf({ name: "d", bytes: disk.subarray(0, 600) }), new Uint8Array(2 * MIB));
    expect((await refusal(gzipOf(tar), { maxBytes: MIB }))[0]).toBe("LIMIT_EXCEEDED");
  });

  it.each([
    ["gzip", gzipOf, GZIP],
    ["zstd", zstdOf, ZSTD],
  ])(
    "HM22 a bomb in %s ends at the ratio, which holds from the first 16 MiB on",
    async (_, pack, packing) => {
      const bomb = repeated(pack(new Uint8Array(8 * MIB).fill(65)), 4);
      const [code, message] = await refusal(bomb, {}, packing);
      expect([code, message]).toEqual([
        "LIMIT_EXCEEDED",
        expect.stringMatching(
          /^[123]\d{7} bytes of content come out of its first \d+ bytes, limit is 1000 to 1$/,
        ),
      ]);
      const kit = await openDerivedDisks(root());
      const small = await storeLayer(kit, repeated(pack(new Uint8Array(8 * MIB).fill(65)), 2));
      expect((await kit.disks.unpackedDisk(small, packing)).sizeBytes).toBe(16 * MIB);
    },
  );

  it("space: what must stay free stays free, and zeros need none", async () => {
    const { code, message, details } = await (async () => {
      const kit = await openDerivedDisks(root(), {
        fileSystem: { ...nodeFileSystem, availableBytes: () => Promise.resolve(64 * MIB + 10_000) },
      });
      return await rejectionOf(kit.disks.unpackedDisk(await storeLayer(kit, gzipOf(disk)), GZIP));
    })();
    expect(code).toBe("NO_SPACE");
    expect(message).toMatch(
      /^Cannot unpack the disk layer: 67118864 bytes were free, 67108864 bytes must stay free, at least \d+ bytes are needed$/,
    );
    expect(details.remedy).toBe("free space there, or choose another --root");
    const kit = await openDerivedDisks(root(), {
      fileSystem: { ...nodeFileSystem, availableBytes: () => Promise.resolve(64 * MIB) },
    });
    const zeros = await storeLayer(kit, gzipOf(new Uint8Array(5 * MIB)));
    expect(allocatedBytes((await kit.disks.unpackedDisk(zeros, GZIP)).path)).toBe(0);
    expect(derivedProblems(root())).toEqual([]);
  });

  it("time", async () => {
    expect(await refusal(gzipOf(disk), { timeoutMs: -1 })).toEqual([
      "LIMIT_EXCEEDED",
      "it takes more than -1 ms, which is the limit",
    ]);
  });

  it("patience: who is cancelled leaves nothing, at work or waiting", async () => {
    const kit = await openDerivedDisks(root());
    const layer = await storeLayer(kit, gzipOf(new Uint8Array(randomBytes(2 * MIB))));
    const atWork = new AbortController();
    const options = { signal: atWork.signal, onProgress: () => atWork.abort(new Error("enough")) };
    expect((await failureOf(kit.disks.unpackedDisk(layer, GZIP, options))).code).toBe("CANCELLED");
    expect(derivedProblems(root())).toEqual([]);

    const lock = join(root(), "locks", `derived-sha256-${layer.digest.slice(7)}`);
    await withLock(lock, { mode: "exclusive", timeoutMs: 0 }, async () => {
      const waiting = new AbortController();
      const outcome = failureOf(kit.disks.unpackedDisk(layer, GZIP, { signal: waiting.signal }));
      waiting.abort();
      expect((await outcome).code).toBe("CANCELLED");
    });
    expect(await kit.disks.unpackedDisk(layer, GZIP)).toBeDefined();
  });
});

describe("durability", () => {
  it("syncs the disk before its name, its name before the record, and the record last", async () => {
    const fileSystem = new FaultyFileSystem(nodeFileSystem);
    const kit = await openDerivedDisks(root(), { fileSystem });
    const layer: Descriptor = await storeLayer(kit, gzipOf(disk));
    const begin = fileSystem.operations.length;
    const { path } = await kit.disks.unpackedDisk(layer, GZIP);
    const steps = fileSystem.operations.slice(begin)
      .map((operation) => operation.replace(/ingest\/derived-[a-f0-9.]+$/, "ingest/TEMPORARY"))
      .map((operation) => operation.replaceAll(`${root()}/`, "").replaceAll(layer.digest.slice(7), "D"))
      .filter((operation) =>
        /^(?:sync|rename|truncate|chmod) .*(?:TEMPORARY|D\.|derived\/sha256$)/.test(operation)
      );
    expect(steps).toEqual([
      "truncate ingest/TEMPORARY",
      "chmod ingest/TEMPORARY",
      "sync ingest/TEMPORARY",
      "rename ingest/TEMPORARY",
      "sync derived/sha256",
      "chmod derived/sha256/D.json.new",
      "sync derived/sha256/D.json.new",
      "rename derived/sha256/D.json.new",
      "sync derived/sha256",
    ]);
    expect(Buffer.compare(await readFile(path), disk)).toBe(0);
  });
});
