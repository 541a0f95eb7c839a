import { READ_EXISTING } from "./file_system.ts";
import { mainLoop, MILLISECOND_OF_STEPS } from "./main_loop.ts";

/** Fewer are read as quickly without; and koffi, which takes 20 ms to load, is not loaded for them. */
const WORTH_FILES = 500;
/** Of so many it is looked whether they are in memory, spread over all. */
const SAMPLE_FILES = 16;
/** As much of a file as is brought in: a whole document, nearly always; of a large file that is no document, not much. */
const AHEAD_BYTES = 64 * 1024;
/** posix_fadvise(2) and preadv2(2) on Linux. */
const POSIX_FADV_WILLNEED = 3;
const RWF_NOWAIT = 8;
/** The runtime sets it by itself: no program that is started meanwhile gets the file. */
const O_CLOEXEC = 0o2000000;

type Libc = {
  /** @returns -1 where there is nothing to be opened */
  open(path: string, flags: number, mode: number): number;
  close(fd: number): void;
  advise(fd: number, offsetBytes: number, lengthBytes: number, advice: number): void;
  /** Whether the file's first byte is in memory, or nobody can tell. */
  isInMemory(fd: number): boolean;
};

let loaded: Promise<Libc | undefined> | undefined;

/**
 * Lets the kernel read many small files side by side before they are read one by one: a disk that is asked for one at a
 * time takes ten times as long. Nothing is done where they are in memory already. A hint: it changes nothing and does not
 * fail, whatever the paths name.
 *
 * @see https://man7.org/linux/man-pages/man2/posix_fadvise.2.html
 */
export async function readAhead(paths: readonly string[]): Promise<void> {
  if (paths.length < WORTH_FILES) return;
  const libc = await (loaded ??= load());
  if (!libc) return;
  const step = Math.floor(paths.length / SAMPLE_FILES);
  const sample = Array.from({ length: SAMPLE_FILES }, (_, each) => paths[each * step] ?? "");
  if (sample.every((path) => withDescriptor(libc, path, (fd) => libc.isInMemory(fd)) ?? true)) return;
  for (const [number, path] of paths.entries()) {
    if (number % MILLISECOND_OF_STEPS === 0) await mainLoop.share(MILLISECOND_OF_STEPS);
    withDescriptor(libc, path, (fd) => libc.advise(fd, 0, AHEAD_BYTES, POSIX_FADV_WILLNEED));
  }
}

function withDescriptor<T>(libc: Libc, path: string, body: (fd: number) => T): T | undefined {
  const fd = libc.open(path, READ_EXISTING | O_CLOEXEC, 0);
  if (fd === -1) return undefined;
  try {
    return body(fd);
  } finally {
    libc.close(fd);
  }
}

async function load(): Promise<Libc | undefined> {
  try {
    const { default: koffi } = await import("koffi");
    const library = koffi.load(null);
    // Without a name: names are koffi's for the whole process, and can be given once.
    const iovec = koffi.struct({ base: "void *", length: "size_t" });
    // ssize_t preadv2(int fd, const struct iovec *iov, int iovcnt, off_t offset, int flags): fills the buffer during the call.
    const read = library.func("preadv2", "long", ["int", koffi.pointer(iovec), "int", "int64_t", "int"]);
    const byte = new Uint8Array(1);
    // Of all three nothing is to be freed, and what goes wrong is no matter.
    return {
      open: library.func("int open(const char *path, int flags, int mode)"),
      close: library.func("int close(int fd)"),
      advise: library.func("int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)"),
      isInMemory: (fd) => {
        const count = Number(read(fd, [{ base: byte, length: 1 }], 1, 0, RWF_NOWAIT));
        // EOPNOTSUPP, from file systems in memory and from those that cannot tell.
        return count !== -1 || koffi.errno() !== koffi.os.errno.EAGAIN;
      },
    };
  } catch {
    // No libc with these, or no koffi: files are read as they come.
    return undefined;
  }
}
