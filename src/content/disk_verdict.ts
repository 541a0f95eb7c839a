import { z } from "zod";
import type { JudgedDisk } from "../boot/judge_disk.ts";

const count = z.int().min(0);

/** What is stored is about a whole file that passed the gate, so there is nothing unseen, and no container. */
const contentJson = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("partitioned"),
    table: z.enum(["gpt", "mbr"]),
    partitions: z.array(z.strictObject({
      number: count,
      type: z.string(),
      name: z.string().nullable(),
      startBytes: count,
      sizeBytes: count,
    })),
    hasEfiSystemPartition: z.boolean(),
    hasBiosBootCode: z.boolean(),
    isHybrid: z.boolean(),
    problem: z.string().nullable(),
  }),
  z.strictObject({ kind: z.enum(["file-system", "volume"]), name: z.string() }),
  z.strictObject({ kind: z.literal("unknown"), why: z.string(), isUnseen: z.literal(false) }),
]);

/** What the gate found a disk to be, and as what it was asked. */
export const diskVerdictJson = z.strictObject({
  edition: count,
  mediaType: z.string(),
  role: z.string(),
  judged: z.strictObject({ format: z.enum(["raw", "qcow2"]), virtualSizeBytes: count, content: contentJson }),
});

export type DiskVerdict = DiskQuestion & { readonly judged: JudgedDisk };

/** The gate's answer depends on these and on the bytes. */
export type DiskQuestion = {
  /** Of the gate: another one's answers do not count. */
  readonly edition: number;
  readonly mediaType: string;
  readonly role: string;
};

export function isAnswerTo(verdict: DiskVerdict, { edition, mediaType, role }: DiskQuestion): boolean {
  return verdict.edition === edition && verdict.mediaType === mediaType && verdict.role === role;
}
