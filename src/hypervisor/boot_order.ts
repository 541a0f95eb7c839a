import type { DomainBoot } from "./domain_definition.ts";

/**
 * The place of a disk in the order in which firmware tries devices, from 1; null for one that it leaves alone. The CD
 * of an `iso` boot is the first; the disk behind it has its turn when the CD hands on, as installers offer.
 */
export function diskBootOrder({ mode }: DomainBoot, diskIndex: number): number | null {
  if (mode === "kernel" || diskIndex > 0) return null;
  return mode === "iso" ? 2 : 1;
}
