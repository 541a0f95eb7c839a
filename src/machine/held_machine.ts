import type { MachineRecord } from "./machine_record.ts";
import type { NewFolder } from "./seal_machine.ts";

/**
 * Fills a directory of its own with regular files and gives the record, which names them by their final paths. What it
 * does not seal itself is sealed after it.
 */
export type Build = (directory: string, folder: NewFolder) => Promise<MachineRecord>;

export type HoldOptions = {
  readonly signal?: AbortSignal | undefined;
  /** How long to wait for whoever holds the machine; default 300,000. */
  readonly timeoutMs?: number | undefined;
};

export type CreateRules = {
  /** The UUID was wished, not drawn at random, so that another machine may have it. */
  readonly isUuidGiven?: boolean;
};

/** What only the holder of a machine's lock may do to it. */
export type HeldMachine = {
  /**
   * Makes the machine, once. What `build` made becomes group QEMU's, read-only where the record says so, and is
   * fsynced; then the directory gets its name. A failure or crash at any point leaves no machine.
   *
   * @returns the record, and whether this call made it; one that exists is the caller's to compare
   * @throws {ShimError} CONFLICT when something that is no machine is in the place, or another machine has the UUID;
   *   CACHE_LAYOUT_INVALID when the existing record cannot be read; NO_SPACE, BUSY, IO_ERROR; what `build` throws
   *   passes
   */
  create(build: Build, rules?: CreateRules): Promise<{ record: MachineRecord; created: boolean }>;
  /**
   * Gives a machine that is there one more file, read-only and group QEMU's, which `fill` makes; durable, complete or
   * absent. One that has it keeps it.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND; NO_SPACE, BUSY, IO_ERROR; what `fill` throws passes
   */
  add(name: string, fill: (path: string) => Promise<void>): Promise<void>;
  /**
   * Removes the machine with everything in its directory; what links in there point to stays. After a crash it is there
   * whole or gone, and its remains go with the next create or remove of this id, or with `MachineStore.sweep`.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND; CONFLICT when what is in its place is no directory; BUSY, IO_ERROR
   */
  remove(): Promise<void>;
};
