import { z } from "zod";
import { machineDocument } from "../agent/prepare_document.ts";

/** What routes answer about images and machines: one schema for description, client and its types. Sizes are bytes. */

const digest = z.string().describe("sha256:… or sha512:…");
const bytes = z.int().min(0);

export const imageDocument = z.looseObject({
  reference: z.string(),
  digest,
  platforms: z.array(z.looseObject({
    architecture: z.string().nullable(),
    variant: z.string().nullable(),
    digest,
    isComplete: z.boolean(),
  })),
  sizeBytes: bytes,
});
export type ImageDocument = z.infer<typeof imageDocument>;

const removedFile = z.strictObject({ kind: z.string(), digest, sizeBytes: bytes });

export const removedDocument = z.strictObject({
  references: z.array(z.string()),
  digest,
  removed: z.array(removedFile),
  freedBytes: bytes,
});

export const collectedDocument = z.strictObject({
  dryRun: z.boolean(),
  images: z.array(z.strictObject({ reference: z.string(), digest, lastUsedAt: z.iso.datetime() })),
  removed: z.array(removedFile),
  freedBytes: bytes,
  missingBytes: bytes,
});

export const collectRequest = z.strictObject({
  dryRun: z.boolean().default(false),
  maxBytes: bytes.optional(),
  keepFreeBytes: bytes.optional(),
  minAgeSeconds: z.number().min(0).max(10 ** 9).optional(),
});

export const pinnedDocument = z.array(
  z.strictObject({ reference: z.string(), digest, pinned: z.boolean() }),
);

export const listedMachine = z.strictObject({
  id: z.string(),
  uuid: z.string(),
  reference: z.string(),
  digest: z.string(),
  manifestDigest: z.string(),
  architecture: z.enum(["amd64", "arm64"]),
  createdAt: z.iso.datetime(),
  directory: z.string(),
});

export const shownMachine = listedMachine.extend({
  wishes: z.record(z.string(), z.unknown()),
  machine: machineDocument,
  state: z.string().nullable().describe("in libvirt's words; null when libvirt does not answer"),
});

export const definitionDocument = z.strictObject({
  domainXml: z.string(),
  fragments: z.strictObject({ os: z.string(), disks: z.string() }),
  qemuCommand: z.array(z.string()),
});

/** One thing that a guest needs of the host. */
export const findingDocument = z.strictObject({
  check: z.string(),
  verdict: z.enum(["ok", "warn", "fail"]),
  found: z.string(),
  remedy: z.string().optional(),
});

export const domainReport = z.strictObject({ id: z.string(), uuid: z.string(), state: z.string() });
export const releasedMachine = z.strictObject({ id: z.string() });
export const versionDocument = z.strictObject({ version: z.string() });
