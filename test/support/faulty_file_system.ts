import type { FileSystem, OpenFile } from "../../src/host/file_system.ts";

/**
 * What goes wrong at the operation with this number, counted from 0. `errno`: it fails, a write after half its bytes.
 * `"killed"`: it is the last the host ever does, a write after half its bytes; every later one fails too, as nobody is
 * there to make it.
 */
export type Fault = { readonly at: number; readonly errno: string };

/** The real file system, until the fault. Keeps the list of all operations made. */
export class FaultyFileSystem implements FileSystem {
  /** "verb path", in order. */
  readonly operations: string[] = [];
  readonly #real: FileSystem;
  #fault: Fault | undefined;

  constructor(real: FileSystem, fault?: Fault) {
    this.#real = real;
    this.#fault = fault;
  }

  /** From now on, counted from here. */
  arm({ at, errno }: Fault): void {
    this.#fault = { at: this.operations.length + at, errno };
  }

  async open(path: string, flags: number, mode?: number): Promise<OpenFile> {
    const file = await this.#step(`open ${path}`, () => this.#real.open(path, flags, mode));
    const step = <T>(verb: string, run: () => Promise<T>, half?: () => Promise<void>) =>
      this.#step(`${verb} ${path}`, run, half);
    return {
      fd: file.fd,
      read: (buffer, offset) => step("read", () => file.read(buffer, offset)),
      write: (bytes, offset) =>
        step(
          "write",
          () => file.write(bytes, offset),
          () => file.write(bytes.subarray(0, bytes.length >> 1), offset),
        ),
      truncate: (size) => step("truncate", () => file.truncate(size)),
      cloneFrom: (source) => step("clone", () => file.cloneFrom(source)),
      findData: (offset) => step("seek", () => file.findData(offset)),
      chmod: (bits) => step("chmod", () => file.chmod(bits)),
      chown: (owner, group) => step("chown", () => file.chown(owner, group)),
      sync: () => step("sync", () => file.sync()),
      isLocked: () => step("probe", () => file.isLocked()),
      status: () => step("status", () => file.status()),
      // Even a killed process and a failing close let go of the descriptor, and of the lock on it.
      close: () => file.close().then(() => step("close", () => Promise.resolve())),
    };
  }

  footprint(path: string) {
    return this.#step(`footprint ${path}`, () => this.#real.footprint(path));
  }

  lstat(path: string) {
    return this.#step(`lstat ${path}`, () => this.#real.lstat(path));
  }
  readSmall(path: string, maxBytes: number) {
    return this.#step(`read ${path}`, () => this.#real.readSmall(path, maxBytes));
  }
  readdir(path: string) {
    return this.#step(`readdir ${path}`, () => this.#real.readdir(path));
  }
  mkdir(path: string, mode: number) {
    return this.#step(`mkdir ${path}`, () => this.#real.mkdir(path, mode));
  }
  rmdir(path: string) {
    return this.#step(`rmdir ${path}`, () => this.#real.rmdir(path));
  }
  rename(from: string, to: string) {
    return this.#step(`rename ${from}`, () => this.#real.rename(from, to));
  }
  unlink(path: string) {
    return this.#step(`unlink ${path}`, () => this.#real.unlink(path));
  }
  touch(path: string) {
    return this.#step(`touch ${path}`, () => this.#real.touch(path));
  }
  availableBytes(path: string) {
    return this.#step(`statfs ${path}`, () => this.#real.availableBytes(path));
  }

  async #step<T>(name: string, run: () => Promise<T>, half?: () => Promise<void>): Promise<T> {
    const number = this.operations.push(name) - 1;
    if (this.#fault === undefined || number < this.#fault.at) return await run();
    const { at, errno } = this.#fault;
    if (number > at && errno !== "killed") return await run();
    if (number === at) await half?.();
    throw Object.assign(new Error(`${errno} at ${name}`), errno === "killed" ? {} : { code: errno });
  }
}
