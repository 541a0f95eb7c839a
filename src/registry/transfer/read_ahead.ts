import type { RegistryLimits } from "../limits.ts";

/**
 * What all blobs together may hold in memory because it came before its turn, and how many connections they may have to
 * one host. Whoever gets nothing reads in order, which needs neither.
 */
export class ReadAhead {
  readonly #limits: RegistryLimits;
  readonly #members = new Set<ReadAheadMember>();

  constructor(limits: RegistryLimits) {
    this.#limits = limits;
  }

  /** @param host whose connections are counted. Leave it at the end. */
  join(host: string): ReadAheadMember {
    const member: ReadAheadMember = new ReadAheadMember(host, {
      isRoom: () => this.#isRoomFor(member),
      leave: () => this.#members.delete(member),
    });
    this.#members.add(member);
    return member;
  }

  #isRoomFor(member: ReadAheadMember): boolean {
    const { readAheadBytes, segmentBytes, connectionsPerHost } = this.#limits;
    let held = 0;
    let connections = 0;
    for (const each of this.#members) {
      held += each.held;
      // Besides what it fetches before its turn, each may be reading in order.
      if (each.host === member.host) connections += each.connections + 1;
    }
    const share = Math.max(1, Math.floor(readAheadBytes / segmentBytes / this.#members.size));
    return (held + 1) * segmentBytes <= readAheadBytes && member.held < share &&
      connections < connectionsPerHost;
  }
}

/** One blob's part in it, counted in segments. */
export class ReadAheadMember {
  readonly host: string;
  readonly #shared: { readonly isRoom: () => boolean; readonly leave: () => void };
  #held = 0;
  #connections = 0;

  constructor(host: string, shared: { readonly isRoom: () => boolean; readonly leave: () => void }) {
    this.host = host;
    this.#shared = shared;
  }

  get held(): number {
    return this.#held;
  }

  get connections(): number {
    return this.#connections;
  }

  /** Takes memory for one segment, and a connection to fetch it. @returns whether there is room */
  take(): boolean {
    if (!this.#shared.isRoom()) return false;
    this.#held += 1;
    this.#connections += 1;
    return true;
  }

  /** Its connection is free again; the memory is not yet. */
  giveConnection(): void {
    this.#connections -= 1;
  }

  giveMemory(): void {
    this.#held -= 1;
  }

  leave(): void {
    this.#shared.leave();
  }
}
