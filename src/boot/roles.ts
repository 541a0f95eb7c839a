/**
 * @module boot: what an image is to a hypervisor. Roles of layers, what a disk or a kernel file really is, the boot
 * mode with its reason, the kernel command line, and the prepared boot.
 *
 * Pure: given bytes, never paths or sockets. May import `image/`. Knows nothing of libvirt or QEMU.
 * Invariants: nothing is believed because of its media type alone; every mode's possibility carries its reason; a role
 * is held by at most one digest.
 */
import { ShimError } from "../errors.ts";
import { toDescriptor } from "../image/descriptor.ts";
import type { ImageManifest } from "../image/image_manifest.ts";
import type { Role, RoleLayer } from "./prepared_boot.ts";

const IRONCORE = "application/vnd.ironcore.image.";

/** Layer media type to role. The disk has two names: the specification's `disk.img` and the one that tools write. */
const ROLE_OF_MEDIA_TYPE: Readonly<Record<string, Role>> = {
  [`${IRONCORE}rootfs`]: "rootfs",
  [`${IRONCORE}disk.img`]: "rootfs",
  [`${IRONCORE}kernel`]: "kernel",
  [`${IRONCORE}initramfs`]: "initramfs",
  [`${IRONCORE}squashfs`]: "squashfs",
  [`${IRONCORE}cmdline`]: "cmdline",
  [`${IRONCORE}uki`]: "uki",
  [`${IRONCORE}iso`]: "iso",
};

/** The media type that `build` writes for a role: the one today's consumers read. */
export function mediaTypeOf(role: Role): string {
  return `${IRONCORE}${role}`;
}

/** The layers of a manifest that have a role, and a note for every layer that has none. */
export type AssignedRoles = { readonly layers: readonly RoleLayer[]; readonly notes: readonly string[] };

/**
 * Gives each known layer its role. Layers of unknown type are somebody else's: passed over with a note, as image-spec
 * asks ("unknown media type MUST NOT raise an error").
 *
 * @throws {ShimError} LAYER_DUPLICATE when two different layers claim one role; LAYER_MISSING when no layer has any
 *   role; DIGEST_UNSUPPORTED, MANIFEST_INVALID for the digest of a layer that has one
 */
export function assignRoles(manifest: ImageManifest): AssignedRoles {
  const layers = new Map<Role, RoleLayer>();
  const notes: string[] = [];
  for (const json of manifest.layers) {
    const role = Object.hasOwn(ROLE_OF_MEDIA_TYPE, json.mediaType)
      ? ROLE_OF_MEDIA_TYPE[json.mediaType]
      : undefined;
    if (role === undefined) {
      notes.push(`layer of unknown media type "${json.mediaType}" is ignored`);
      continue;
    }
    const descriptor = toDescriptor(json);
    const before = layers.get(role);
    if (before && before.descriptor.digest !== descriptor.digest) {
      throw new ShimError(
        "LAYER_DUPLICATE",
        `Cannot give role "${role}": layers "${before.descriptor.digest}" and "${descriptor.digest}" both claim it, must be one`,
        { details: { role, digests: [before.descriptor.digest, descriptor.digest] } },
      );
    }
    layers.set(role, { role, descriptor });
  }
  if (layers.size === 0) {
    const found = manifest.layers.map((layer) => layer.mediaType).join(", ") || "none";
    throw new ShimError(
      "LAYER_MISSING",
      `Cannot boot the image: no layer is a disk, kernel, UKI or ISO, found ${found}`,
      {
        details: {
          mediaTypes: manifest.layers.map((layer) => layer.mediaType),
          remedy: "is this an operating-system image, and not a container image?",
        },
      },
    );
  }
  return { layers: [...layers.values()], notes };
}
