/** virsh's words for virDomainState, in the order of C's numbers, which start at 0. */
export const DOMAIN_STATES = [
  "no state",
  "running",
  "idle",
  "paused",
  "in shutdown",
  "shut off",
  "crashed",
  "pmsuspended",
] as const;

/** What a domain is doing; the last arm keeps the number a newer libvirt may give. */
export type DomainState = (typeof DOMAIN_STATES)[number] | `unknown (${number})`;

/** virsh's words for virDomainShutoffReason, in the order of C's numbers, which start at 0. */
export const SHUT_OFF_REASONS = [
  "unknown",
  "shutdown",
  "destroyed",
  "crashed",
  "migrated",
  "saved",
  "failed",
  "from snapshot",
  "daemon",
] as const;

/** Why a domain is off: `crashed` when QEMU ended by itself, `shutdown` when the guest powered off. */
export type ShutOffReason = (typeof SHUT_OFF_REASONS)[number] | `unknown (${number})`;

/** A domain as libvirt sees it at one moment. */
export type DomainStatus = {
  readonly name: string;
  /** Lower-case RFC 9562 text form. */
  readonly uuid: string;
  readonly state: DomainState;
  /** Null unless it is shut off. */
  readonly shutOffReason: ShutOffReason | null;
  /** libvirt's number for the running guest, null for one that is not active. */
  readonly id: number | null;
  /** Whether a definition stays when the guest stops. */
  readonly isPersistent: boolean;
};

/** Both of libvirt's versions as "9.0.0"; null for one that libvirt cannot tell. */
export type LibvirtVersion = {
  readonly libraryVersion: string | null;
  readonly hypervisorVersion: string | null;
};

/** The word for a virDomainState number. */
export function domainState(number: number): DomainState {
  return DOMAIN_STATES[number] ?? `unknown (${number})`;
}

/** libvirt's `major * 1,000,000 + minor * 1,000 + release` as "9.0.0"; null for 0, libvirt's word for "cannot tell". */
export function versionText(version: number | bigint): string | null {
  const number = Number(version);
  if (number === 0) return null;
  return [Math.floor(number / 1e6), Math.floor(number / 1e3) % 1e3, number % 1e3].join(".");
}

/** The word for a virDomainShutoffReason number. */
export function shutOffReason(number: number): ShutOffReason {
  return SHUT_OFF_REASONS[number] ?? `unknown (${number})`;
}
