import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type MachineRecord, parseMachineRecord } from "../../src/machine/machine_record.ts";
import { randomBlob } from "./blobs.ts";
import { randomWord } from "./random_word.ts";

/** A record that no other test has, of a machine with one writable disk, one read-only disk and NVRAM. */
export function randomRecord(id: string): MachineRecord {
  const { descriptor: { digest } } = randomBlob(16);
  return parseMachineRecord({
    schemaVersion: 1,
    id,
    uuid: randomUUID(),
    createdAt: "2026-01-02T03:04:05.678Z",
    reference: `127.0.0.1:5000/os/${randomWord()}:1`,
    digest,
    manifestDigest: digest,
    architecture: "amd64",
    wishes: { memoryMib: 1024, append: ["a=b"], variant: null },
    writableFiles: ["disk.qcow2", "nvram.fd"],
    uses: [{ mediaType: "application/octet-stream", digest, sizeBytes: 16 }],
    document: { id, disks: [{ serial: null }] },
  }, "the test's record");
}

/** What a caller's build does: writes the files that its record names, and one more. */
export function buildOf(record: MachineRecord): (directory: string) => Promise<MachineRecord> {
  return async (directory) => {
    for (const name of ["disk.qcow2", "squashfs.raw", "nvram.fd", "domain.xml"]) {
      await writeFile(join(directory, name), `${name} of ${record.uuid}`);
    }
    return record;
  };
}
