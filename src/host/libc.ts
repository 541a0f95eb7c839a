import { constants as osConstants } from "node:os";
import { countForeignCall } from "./foreign_calls.ts";

/** Calls that only libc has. Each gives its result, or throws an errno error. */
type Libc = {
  ioctl(fd: number, request: number, argument: number): void;
  /** @param lock a `struct flock`, which the call changes */
  fcntl(fd: number, command: number, lock: Uint8Array): void;
  /** @param option.value as long as the option is, which the call fills */
  getsockopt(fd: number, option: { level: number; option: number; value: Uint8Array }): void;
  /** @returns the new offset */
  lseek(fd: number, offsetBytes: number, whence: number): number;
};

let loaded: Promise<Libc> | undefined;

/** Loads koffi at the first call only: it costs some 20 ms, which most commands need not pay. */
export async function loadLibc(): Promise<Libc> {
  loaded ??= load();
  return await loaded;
}

async function load(): Promise<Libc> {
  const { default: koffi } = await import("koffi");
  // null: the symbols this executable is already linked with, which is libc whatever its file is called.
  const library = koffi.load(null);
  // int ioctl(int fd, unsigned long request, ...); the argument is a descriptor here. Nothing to free.
  const ioctl = library.func("int ioctl(int fd, unsigned long request, ...)");
  // int fcntl(int fd, int op, ...); the argument points to a struct flock, which libc reads and writes during the call.
  const fcntl = library.func("int fcntl(int fd, int op, ...)");
  // off_t lseek(int fd, off_t offset, int whence), 64 bits on every system we run on.
  const lseek = library.func("int64_t lseek(int fd, int64_t offset, int whence)");
  // int getsockopt(int fd, int level, int optname, void *optval, socklen_t *optlen); both are filled during the call.
  const getsockopt = library.func(
    "int getsockopt(int fd, int level, int optname, void *optval, void *optlen)",
  );
  const checked = (name: string, call: () => unknown): number =>
    countForeignCall(() => {
      const number = Number(call());
      if (number === -1) throw libcError(name, koffi.errno());
      return number;
    });
  return {
    ioctl: (fd, request, argument) => void checked("ioctl", () => ioctl(fd, request, "int", argument)),
    fcntl: (fd, command, lock) => void checked("fcntl", () => fcntl(fd, command, "void *", lock)),
    getsockopt: (fd, { level, option, value }) => {
      const length = new Uint32Array([value.length]);
      checked("getsockopt", () => getsockopt(fd, level, option, value, length));
    },
    lseek: (fd, offsetBytes, whence) => checked("lseek", () => lseek(fd, offsetBytes, whence)),
  };
}

function libcError(call: string, errno: number): Error {
  const code = Object.entries(osConstants.errno).find(([, value]) => value === errno)?.[0] ?? `E${errno}`;
  return Object.assign(new Error(`${call}: ${code}`), { code });
}
