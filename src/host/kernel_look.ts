import { Socket } from "node:net";
import { stat } from "node:fs/promises";
import { setImmediate as nextTurn } from "node:timers/promises";
import { countForeignCall } from "./foreign_calls.ts";

const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

export type KernelLook = () => Promise<void>;
let opened: Promise<KernelLook | undefined> | undefined;

/**
 * A way to have the kernel asked for all sockets that wait; one for the process, open until it ends. Under Deno nothing
 * else is sure to: a loop that always has something to do, be it a timer or a file, goes round 61 times before it asks the
 * kernel, and each time may take milliseconds. What comes through a pipe, though, comes only by asking, and all else that
 * waits comes with it.
 *
 * @returns resolves when what waited at the kernel has been served; undefined where no pipe can be had
 */
export async function openKernelLook(): Promise<KernelLook | undefined> {
  return await (opened ??= open());
}

async function open(): Promise<KernelLook | undefined> {
  let write: () => boolean;
  let end: Socket;
  try {
    const { default: koffi } = await import("koffi");
    const library = koffi.load(null);
    // int pipe2(int pipefd[2], int flags): fills both. ssize_t write(int fd, const void *buf, size_t count). Nothing to free.
    const pipe = library.func("int pipe2(int *pipefd, int flags)");
    const writeTo = library.func("long write(int fd, const void *buf, size_t count)");
    const ends = new Int32Array(2);
    if (pipe(ends, O_NONBLOCK | O_CLOEXEC) !== 0) return undefined;
    const [readEnd = -1, writeEnd = -1] = ends;
    const byte = new Uint8Array(1);
    write = () => countForeignCall(() => Number(writeTo(writeEnd, byte, 1)) === 1);
    end = new Socket({ fd: readEnd, readable: true, writable: false });
  } catch {
    return undefined;
  }
  const waiting = new Set<() => void>();
  const arrive = () => {
    for (const resolve of waiting) resolve();
    waiting.clear();
  };
  end.on("data", arrive).on("error", arrive).on("close", arrive).unref();
  return async () => {
    // By then the pipe was found to be empty. Until that is seen it is read again without asking the kernel.
    await nextTurn();
    await new Promise<void>((resolve) => {
      waiting.add(resolve);
      end.ref();
      // Without the pipe a moment with nothing to do has to be enough.
      if (end.destroyed || !write()) stat("/").then(arrive, arrive);
    });
    if (waiting.size === 0) end.unref();
    // Whoever's bytes came with it goes first.
    await nextTurn();
  };
}
