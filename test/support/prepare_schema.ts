/**
 * The prepare document as CONTRACT section 5 describes it, written down once more as JSON Schema and by hand: a second
 * opinion on the schema in `src/agent/prepare_document.ts`.
 */
const digest = { type: "string", pattern: "^sha(256:[a-f0-9]{64}|512:[a-f0-9]{128})$" };
const path = { type: "string", pattern: "^/" };
const pathOrNull = { anyOf: [path, { type: "null" }] };
const bytes = { type: "integer", minimum: 0 };
const mode = { enum: ["disk", "kernel", "uki", "iso"] };

function record(properties: Record<string, unknown>): Record<string, unknown> {
  return { type: "object", properties, required: Object.keys(properties), additionalProperties: true };
}

export const PREPARE_SCHEMA = record({
  reference: { type: "string", minLength: 1 },
  digest,
  manifestDigest: digest,
  architecture: { enum: ["amd64", "arm64"] },
  variant: { enum: ["virtualization", "metal"] },
  cached: { type: "boolean" },
  transferredBytes: bytes,
  layers: {
    type: "array",
    minItems: 1,
    items: record({
      role: { enum: ["rootfs", "kernel", "initramfs", "squashfs", "cmdline", "uki", "iso"] },
      mediaType: { type: "string" },
      digest,
      sizeBytes: bytes,
      path,
    }),
  },
  boot: record({
    mode,
    firmware: { enum: ["none", "bios", "uefi"] },
    kernel: pathOrNull,
    initramfs: pathOrNull,
    uki: pathOrNull,
    iso: pathOrNull,
    cmdline: { type: "string" },
    reason: { type: "string", minLength: 1 },
    modes: {
      type: "array",
      minItems: 4,
      maxItems: 4,
      items: record({ mode, possible: { type: "boolean" }, why: { type: "string", minLength: 1 } }),
    },
  }),
  machine: {
    anyOf: [
      { type: "null" },
      record({
        id: { type: "string", pattern: "^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$" },
        uuid: { type: "string", pattern: "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$" },
        directory: path,
        disks: {
          type: "array",
          items: record({
            role: { enum: ["rootfs", "squashfs", "scratch", "data", "seed"] },
            path,
            format: { enum: ["raw", "qcow2"] },
            readOnly: { type: "boolean" },
            serial: { type: ["string", "null"] },
            virtualSizeBytes: bytes,
            method: { type: "string" },
            backing: { anyOf: [{ type: "null" }, record({ path, format: { enum: ["raw", "qcow2"] } })] },
          }),
        },
        nvram: pathOrNull,
        domainXml: path,
        qemuCommand: { type: "array", minItems: 1, items: { type: "string" } },
      }),
    ],
  },
});
