import type { PreparedBoot } from "../boot/prepared_boot.ts";
import type { AgentContext } from "./agent_context.ts";
import { withUnreadableAudited } from "./audit_unreadable.ts";
import { withDeadline } from "./deadline.ts";
import { type LazySource, withSource } from "./open_source.ts";
import { type BootWishes, prepareBoot, requireBootable } from "./prepare_boot.ts";
import type { PrepareDocument } from "./prepare_document.ts";
import {
  type MachineOptions,
  type MachineWishes,
  prepareMachine,
  requireMachineWishes,
} from "./prepare_machine.ts";
import { type PulledImage, pullResolved } from "./pull_image.ts";
import { type ImageWish, resolveImage } from "./resolve_image.ts";
import { withLease } from "./with_lease.ts";

export type PrepareWish = ImageWish & BootWishes & { readonly machine: MachineWishes | null };

export type PrepareOptions = MachineOptions & {
  /**
   * Waits until this prepare may ask its source, before it does so first, and may go on here, when it asks no more. A
   * source is not waited for where the cache has all that is needed.
   */
  readonly awaitTurn?: ((where: "source" | "host") => Promise<void>) | undefined;
};

/**
 * The straight line: reference, manifest, roles, blobs, prepared boot, machine. Each step takes what the one before
 * gave. Idempotent: done again it changes nothing, transfers nothing and answers the same.
 *
 * @throws {ShimError} whatever its steps throw; on any of it the cache holds at worst unreferenced blobs, and there is
 *   no machine folder
 */
export async function prepare(
  context: AgentContext,
  wish: PrepareWish,
  options: PrepareOptions = {},
): Promise<PrepareDocument> {
  if (wish.machine) requireMachineWishes(wish.machine);
  return await withLease(context, options, (leased) => prepareLeased(leased, wish, options));
}

async function prepareLeased(
  context: AgentContext,
  wish: PrepareWish,
  options: PrepareOptions,
): Promise<PrepareDocument> {
  options.onProgress?.({ phase: "resolving", doneBytes: 0, totalBytes: 0, layers: [] });
  let turn: Promise<void> | undefined;
  const inTurn = (source: LazySource): LazySource => async () => {
    await (turn ??= options.awaitTurn?.("source"));
    return await source();
  };
  const pulled = await withDeadline(context, options, (timed) =>
    withSource(context, wish, async (opened) => {
      const source = opened && inTurn(opened);
      const image = await resolveImage(context, wish, { source, signal: timed.signal });
      for (const note of image.notes) context.note(note);
      requireBootable(image, wish);
      return await pullResolved(context, image, timed);
    }));
  await options.awaitTurn?.("host");
  options.onProgress?.({ phase: "preparing", doneBytes: 0, totalBytes: 0, layers: [] });
  return await withUnreadableAudited(context, { ...pulled, signal: options.signal }, async () => {
    const boot = await prepareBoot(context, pulled, { wish, signal: options.signal });
    const machine = wish.machine &&
      await prepareMachine(context, { pulled, boot, wish, machine: wish.machine }, options);
    return { ...describePrepared(pulled, boot), machine };
  });
}

function describePrepared(
  { image, layers, transferredBytes }: PulledImage,
  boot: PreparedBoot,
): Omit<PrepareDocument, "machine"> {
  return {
    reference: image.name,
    digest: image.root.digest,
    manifestDigest: image.chosen.descriptor.digest,
    architecture: boot.architecture,
    variant: boot.variant,
    cached: transferredBytes === 0,
    transferredBytes,
    layers: layers.map(({ role, descriptor, path }) => ({
      role,
      mediaType: descriptor.mediaType,
      digest: descriptor.digest,
      sizeBytes: descriptor.sizeBytes,
      path,
    })),
    boot: {
      mode: boot.mode,
      firmware: boot.firmware,
      kernel: boot.kernel,
      initramfs: boot.initramfs,
      uki: boot.uki,
      iso: boot.iso,
      cmdline: boot.cmdline,
      reason: boot.reason,
      modes: [...boot.modes],
    },
  };
}
