import { closeSync, openSync, readFileSync, readSync } from "node:fs";

/** One system call a thread waits in, as `/proc/PID/task/TID/syscall` tells: number, then six arguments in hex. */
export type WaitingCall = { readonly number: number; readonly arguments: readonly number[] };

/** Numbers of the calls a libvirt client waits in, by `os.arch()`: libvirt's own loop polls, a connect may block. */
const CALLS: Readonly<Record<string, { readonly polls: readonly number[]; readonly connect: number }>> = {
  // poll, ppoll; asm/unistd_64.h
  x64: { polls: [7, 271], connect: 42 },
  // ppoll (there is no poll); asm-generic/unistd.h
  arm64: { polls: [73], connect: 203 },
};

/** `struct pollfd`: int fd, short events, short revents. */
const POLLFD_BYTES = 8;
/** libvirt polls its socket, its wake-up pipe and at times one more; a longer array is not its. */
const POLLFDS_MAX = 8;

/** Reads the line of a `syscall` file; null when the thread runs, or waits outside a system call ("running", "-1 …"). */
export function parseWaitingCall(line: string): WaitingCall | null {
  const [number, ...rest] = line.trim().split(" ");
  if (number === undefined || !/^\d+$/.test(number) || rest.length < 6) return null;
  return { number: Number(number), arguments: rest.slice(0, 6).map(Number) };
}

/**
 * Which file descriptors a thread of this process waits for right now: the honest answer to "which socket does the
 * hung call hang on", since libvirt does not tell it. Empty when it does not wait in a call known to be libvirt's.
 *
 * @param threadPath `/proc/PID/task/TID`
 * @param architecture as `os.arch()` spells it
 */
export function waitedDescriptors(threadPath: string, architecture: string): number[] {
  const calls = CALLS[architecture];
  const waiting = parseWaitingCall(readFileSync(`${threadPath}/syscall`, "latin1"));
  if (calls === undefined || waiting === null) return [];
  const [first = 0, count = 0] = waiting.arguments;
  if (waiting.number === calls.connect) return [first];
  if (!calls.polls.includes(waiting.number) || count > POLLFDS_MAX) return [];
  return polledDescriptors(readMemory(`${threadPath}/mem`, first, count * POLLFD_BYTES));
}

/** The descriptors in an array of `struct pollfd`; C skips negative ones. */
export function polledDescriptors(pollfds: Buffer): number[] {
  const descriptors: number[] = [];
  for (let offset = 0; offset + POLLFD_BYTES <= pollfds.length; offset += POLLFD_BYTES) {
    const descriptor = pollfds.readInt32LE(offset);
    if (descriptor >= 0) descriptors.push(descriptor);
  }
  return descriptors;
}

function readMemory(path: string, address: number, sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  const file = openSync(path, "r");
  try {
    return bytes.subarray(0, readSync(file, bytes, 0, sizeBytes, address));
  } finally {
    closeSync(file);
  }
}
