/**
 * @module boot: what an image is to a hypervisor. Roles of layers, what a disk or a kernel file really is, the boot
 * mode with its reason, the kernel command line, and the prepared boot.
 *
 * Pure: given bytes, never paths or sockets. May import `image/`. Knows nothing of libvirt or QEMU.
 * Invariants: nothing is believed because of its media type alone; every mode's possibility carries its reason; a role
 * is held by at most one digest.
 */
import { ShimError } from "../errors.ts";
import { type DescriptorJson, toDescriptor } from "../image/descriptor.ts";
import type { ImageManifest } from "../image/image_manifest.ts";
import type { Role, RoleLayer } from "./prepared_boot.ts";

/** Media types that one generation of tools wrote; a new generation is a new row. */
type Family = { readonly name: string; readonly roles: Readonly<Record<string, Role>> };

const IRONCORE = "application/vnd.ironcore.image.";
const ONMETAL = "application/vnd.onmetal.image.";
const GARDENLINUX = "application/io.gardenlinux.";

/** `PREFIX vmlinuz .v1alpha1. vmlinuz`, as the first IronCore tools spelt them. */
function v1alpha1(prefix: string): Readonly<Record<string, Role>> {
  const words = {
    rootfs: "rootfs",
    vmlinuz: "kernel",
    initramfs: "initramfs",
    squashfs: "squashfs",
  } as const;
  return Object.fromEntries(
    Object.entries(words).map(([word, role]) => [`${prefix}${word}.v1alpha1.${word}`, role]),
  );
}

/** Of two layers that claim one role, that of the earlier family has it. */
const FAMILIES: readonly Family[] = [
  {
    name: "IronCore",
    roles: {
      [`${IRONCORE}rootfs`]: "rootfs",
      // What the specification calls the disk.
      [`${IRONCORE}disk.img`]: "rootfs",
      [`${IRONCORE}kernel`]: "kernel",
      [`${IRONCORE}initramfs`]: "initramfs",
      [`${IRONCORE}squashfs`]: "squashfs",
      [`${IRONCORE}cmdline`]: "cmdline",
      [`${IRONCORE}uki`]: "uki",
      [`${IRONCORE}iso`]: "iso",
    },
  },
  { name: "legacy IronCore", roles: v1alpha1(IRONCORE) },
  { name: "legacy IronCore metal", roles: v1alpha1(`${IRONCORE}metal.`) },
  { name: "onmetal", roles: v1alpha1(ONMETAL) },
  {
    name: "Garden Linux",
    roles: {
      [`${GARDENLINUX}image.archive.format.raw`]: "rootfs",
      [`${GARDENLINUX}kernel`]: "kernel",
      [`${GARDENLINUX}initrd`]: "initramfs",
      [`${GARDENLINUX}squashfs`]: "squashfs",
      [`${GARDENLINUX}uki`]: "uki",
      [`${GARDENLINUX}image.archive.format.iso`]: "iso",
    },
  },
  // The same disk once more, for clouds that want it converted.
  { name: "Garden Linux qcow2", roles: { [`${GARDENLINUX}image.format.qcow2`]: "rootfs" } },
];

/** Types that say nothing about a layer's role: its title does. */
const PLAIN_TYPES: ReadonlySet<string> = new Set([
  "application/vnd.oci.image.layer.v1.tar",
  "application/octet-stream",
]);

/** Annotations that name a plain layer, the first that names a role counts. */
const TITLES = ["title", "org.opencontainers.image.title"] as const;

/** Words and file names that tools give the parts of an operating system. Compared whole, and never used as a path. */
const NAMES_OF_ROLE: Readonly<Record<Role, readonly string[]>> = {
  rootfs: ["rootfs", "rootfs.img", "rootfs.raw", "rootfs.ext4", "disk", "disk.img", "disk.raw", "disk.qcow2"],
  kernel: ["kernel", "vmlinuz", "bzImage", "Image"],
  initramfs: ["initramfs", "initramfs.img", "initramfs.cpio", "initrd", "initrd.img"],
  squashfs: ["squashfs", "root.squashfs", "rootfs.squashfs"],
  cmdline: ["cmdline", "cmdline.txt"],
  uki: ["uki", "uki.efi"],
  iso: ["iso", "boot.iso"],
};
const ROLE_OF_NAME: ReadonlyMap<string, Role> = new Map(
  (Object.keys(NAMES_OF_ROLE) as Role[]).flatMap((role) =>
    NAMES_OF_ROLE[role].map((name): [string, Role] => [name, role])
  ),
);

/** How a type or a file name says that the bytes are compressed; that changes nothing about the role. */
const COMPRESSION_SUFFIX = /(?:\+gzip|\+zstd|\.gz|\.zst)$/;

/** The media type that `build` writes for a role: the one today's consumers read. */
export function mediaTypeOf(role: Role): string {
  return `${IRONCORE}${role}`;
}

/** The layers of a manifest that have a role, and a note for every layer that has none. */
export type AssignedRoles = { readonly layers: readonly RoleLayer[]; readonly notes: readonly string[] };

/** A layer that says it has a role; families of lower rank go first. */
type Claim = {
  readonly role: Role;
  readonly rank: number;
  readonly family: string;
  readonly layer: DescriptorJson;
};

/**
 * Gives each known layer its role: by its media type, current before legacy, or by its title when the type is a plain
 * one. Layers that get none are somebody else's: passed over with a note, as image-spec asks ("unknown media type MUST
 * NOT raise an error").
 *
 * @throws {ShimError} LAYER_DUPLICATE when two different layers of one family claim one role; LAYER_MISSING when no
 *   layer has any role; DIGEST_UNSUPPORTED, MANIFEST_INVALID for the digest of a layer that has one
 */
export function assignRoles(manifest: ImageManifest): AssignedRoles {
  const claims = new Map<Role, Claim[]>();
  const notes: string[] = [];
  for (const layer of manifest.layers) {
    const claim = claimOf(layer);
    if (claim) claims.set(claim.role, [...(claims.get(claim.role) ?? []), claim]);
    else notes.push(unknownLayer(layer));
  }
  if (claims.size === 0) throw noRole(manifest);
  const layers: RoleLayer[] = [];
  for (const [role, claimants] of claims) {
    const { holder, passedOver } = settle(role, claimants);
    layers.push({ role, descriptor: toDescriptor(holder.layer) });
    for (const { family, layer } of passedOver) {
      notes.push(
        `layer of ${family} media type "${layer.mediaType}" is passed over: ` +
          `"${holder.layer.mediaType}" is the ${role}`,
      );
    }
  }
  return { layers, notes };
}

function claimOf(layer: DescriptorJson): Claim | undefined {
  const mediaType = layer.mediaType.replace(COMPRESSION_SUFFIX, "");
  for (const [rank, { name: family, roles }] of FAMILIES.entries()) {
    const role = Object.hasOwn(roles, mediaType) ? roles[mediaType] : undefined;
    if (role) return { role, rank, family, layer };
  }
  if (!PLAIN_TYPES.has(mediaType)) return undefined;
  for (const title of titlesOf(layer)) {
    const role = ROLE_OF_NAME.get(title.replace(COMPRESSION_SUFFIX, ""));
    if (role) return { role, rank: FAMILIES.length, family: "plain", layer };
  }
  return undefined;
}

function titlesOf({ annotations }: DescriptorJson): string[] {
  return TITLES.flatMap((key) => annotations?.[key] ?? []);
}

/** Who of several claimants has the role; layers of the same digest as the holder are the holder. */
function settle(
  role: Role,
  claimants: readonly Claim[],
): { readonly holder: Claim; readonly passedOver: readonly Claim[] } {
  const holder = claimants.reduce((best, claim) => claim.rank < best.rank ? claim : best);
  const different = claimants.filter(({ layer }) => layer.digest !== holder.layer.digest);
  const rival = different.find(({ rank }) => rank === holder.rank);
  if (!rival) return { holder, passedOver: different };
  const digests = [holder, rival].map(({ layer }) => toDescriptor(layer).digest);
  throw new ShimError(
    "LAYER_DUPLICATE",
    `Cannot give role "${role}": layers "${digests[0]}" and "${digests[1]}" both claim it, must be one`,
    { details: { role, digests } },
  );
}

/** Titles are an image's own words, and may be as long as a manifest. */
const MAX_TITLE_LENGTH = 64;

function unknownLayer(layer: DescriptorJson): string {
  const [title] = titlesOf(layer);
  if (title === undefined || !PLAIN_TYPES.has(layer.mediaType.replace(COMPRESSION_SUFFIX, ""))) {
    return `layer of unknown media type "${layer.mediaType}" is ignored`;
  }
  return `layer of plain media type "${layer.mediaType}" is ignored: ` +
    `its title ${JSON.stringify(title.slice(0, MAX_TITLE_LENGTH))} names no role`;
}

function noRole(manifest: ImageManifest): ShimError {
  const mediaTypes = manifest.layers.map((layer) => layer.mediaType);
  return new ShimError(
    "LAYER_MISSING",
    `Cannot boot the image: no layer is a disk, kernel, UKI or ISO, found ${mediaTypes.join(", ") || "none"}`,
    {
      details: {
        mediaTypes,
        remedy: "is this an operating-system image, and not a container image?",
      },
    },
  );
}
