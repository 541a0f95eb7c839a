/** virsh's words for virDomainEventType, in the order of C's numbers, which start at 0. */
export const DOMAIN_EVENTS = [
  "defined",
  "undefined",
  "started",
  "suspended",
  "resumed",
  "stopped",
  "shutdown",
  "pmsuspended",
  "crashed",
] as const;

/** What happened to a domain; the last arm keeps the number a newer libvirt may give. */
export type DomainEventName = (typeof DOMAIN_EVENTS)[number] | `unknown (${number})`;

/** One change of one domain, told when it happened. A hint to look again: events are lost while not connected. */
export type DomainEvent = {
  readonly name: string;
  readonly uuid: string;
  readonly event: DomainEventName;
  /** Why, as C's number, whose meaning depends on `event`: virDomainEventStartedDetailType and so on. */
  readonly detail: number;
};

/** virConnectCloseReason, in the order of C's numbers. */
const CLOSE_REASONS = [
  "the connection failed",
  "the daemon ended the connection",
  "the daemon did not answer keepalive messages",
  "the connection was closed here",
];

/** The word for a virDomainEventType number. */
export function domainEventName(number: number): DomainEventName {
  return DOMAIN_EVENTS[number] ?? `unknown (${number})`;
}

/** A virConnectCloseReason number in words. */
export function closeReason(number: number): string {
  return CLOSE_REASONS[number] ?? `libvirt gave reason ${number}`;
}
