/**
 * What a disk may hold after the power went: everything that was synced, and of the rest any part in any order. Records
 * what is done through the seam, then builds such states, as ALICE does (Pillai and others, OSDI 2014): writes, sizes and
 * modes of a file are safe once that file was synced, names once their directory was. A rename is safe, or lost, whole.
 */
import { constants } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { type FileSystem, type OpenFile } from "../../src/host/file_system.ts";

type Change =
  | { readonly kind: "write"; readonly bytes: Uint8Array; readonly offset: number }
  | { readonly kind: "truncate"; readonly size: number }
  | { readonly kind: "chmod"; readonly mode: number };
type NameChange =
  | { readonly kind: "link"; readonly path: string; readonly node: Node }
  | { readonly kind: "unlink"; readonly path: string }
  | { readonly kind: "rename"; readonly from: string; readonly path: string; readonly node: Node };

/** A file or directory as it was made; what happened to it since is in the trace. */
type Node = { readonly isDirectory: boolean; readonly mode: number };

type Event =
  | { readonly on: "file"; readonly node: Node; readonly change: Change }
  | { readonly on: "names"; readonly change: NameChange }
  | { readonly on: "file sync"; readonly node: Node }
  | { readonly on: "directory sync"; readonly path: string };

/** Decides of each change that was not synced whether it reached the disk. */
export type Survival = (event: number) => boolean;

/** The real file system, with a memory of everything that changes something below a directory that is empty at first. */
export class RecordingFileSystem implements FileSystem {
  readonly #real: FileSystem;
  readonly #root: string;
  readonly #trace: Event[] = [];
  readonly #nodes = new Map<string, Node>();

  constructor(real: FileSystem, root: string) {
    this.#real = real;
    this.#root = root;
  }

  /** How many changes and syncs there were: moments at which the power may go. */
  get moments(): number {
    return this.#trace.length;
  }

  async open(path: string, flags: number, mode = 0o600): Promise<OpenFile> {
    const isThere = this.#nodes.has(path);
    const file = await this.#real.open(path, flags, mode);
    if (!isThere && (flags & constants.O_CREAT) !== 0) this.#link(path, { isDirectory: false, mode });
    const node = this.#nodes.get(path);
    const record = (change: Change) => {
      if (node) this.#trace.push({ on: "file", node, change });
    };
    return {
      ...file,
      write: async (bytes, offset) => {
        await file.write(bytes, offset);
        record({ kind: "write", bytes: bytes.slice(), offset });
      },
      truncate: async (size) => {
        await file.truncate(size);
        record({ kind: "truncate", size });
      },
      cloneFrom: () => Promise.reject(new Error("A recording of clones is not needed yet")),
      chmod: async (bits) => {
        await file.chmod(bits);
        record({ kind: "chmod", mode: bits });
      },
      sync: async () => {
        await file.sync();
        if (!node) return;
        this.#trace.push(node.isDirectory ? { on: "directory sync", path } : { on: "file sync", node });
        // The bits of a directory are its own, as a file's are.
        if (node.isDirectory) this.#trace.push({ on: "file sync", node });
      },
    };
  }

  footprint(path: string) {
    return this.#real.footprint(path);
  }
  lstat(path: string) {
    return this.#real.lstat(path);
  }
  readSmall(path: string, maxBytes: number) {
    return this.#real.readSmall(path, maxBytes);
  }
  readdir(path: string) {
    return this.#real.readdir(path);
  }
  touch(path: string) {
    return this.#real.touch(path);
  }
  availableBytes(path: string) {
    return this.#real.availableBytes(path);
  }
  async mkdir(path: string, mode: number): Promise<void> {
    await this.#real.mkdir(path, mode);
    this.#link(path, { isDirectory: true, mode });
  }
  async rmdir(path: string): Promise<void> {
    await this.#real.rmdir(path);
    this.#unlink(path);
  }
  async unlink(path: string): Promise<void> {
    await this.#real.unlink(path);
    this.#unlink(path);
  }
  async rename(from: string, to: string): Promise<void> {
    await this.#real.rename(from, to);
    const node = this.#nodes.get(from);
    if (!node) throw new Error(`Nobody made ${from}`);
    this.#nodes.delete(from);
    this.#nodes.set(to, node);
    this.#trace.push({ on: "names", change: { kind: "rename", from, path: to, node } });
  }

  /**
   * Builds in `target`, which is made, what a disk could hold when the power went after `moment` changes and syncs.
   */
  async build(target: string, moment: number, survives: Survival): Promise<void> {
    const names = new Map<string, Node>();
    const contents = new Map<Node, { bytes: Uint8Array; mode: number }>();
    const past = this.#trace.slice(0, moment);
    for (const [i, event] of past.entries()) {
      if (!this.#isSafe(past, i) && !survives(i)) continue;
      if (event.on === "names") applyName(names, event.change);
      if (event.on === "file") applyChange(contents, event.node, event.change);
    }
    for (const [path, node] of [...names].sort(([a], [b]) => a.length - b.length)) {
      // What lies in a directory whose own name was lost is lost with it.
      if (path !== this.#root && names.get(dirname(path))?.isDirectory !== true) {
        names.delete(path);
        continue;
      }
      const place = join(target, relative(this.#root, path));
      const content = contents.get(node);
      if (node.isDirectory) await mkdir(place, { mode: 0o700 });
      else await writeFile(place, content?.bytes ?? new Uint8Array(), { mode: 0o600 });
    }
    for (const [path, node] of names) {
      await chmod(join(target, relative(this.#root, path)), contents.get(node)?.mode ?? node.mode);
    }
  }

  #isSafe(past: readonly Event[], i: number): boolean {
    const event = past[i];
    const rest = past.slice(i + 1);
    if (event?.on === "file") {
      return rest.some((later) => later.on === "file sync" && later.node === event.node);
    }
    if (event?.on !== "names") return true;
    const directory = dirname(event.change.path);
    // The name of the root itself is the caller's affair.
    if (event.change.path === this.#root) return true;
    return rest.some((later) => later.on === "directory sync" && later.path === directory);
  }

  #link(path: string, node: Node): void {
    this.#nodes.set(path, node);
    this.#trace.push({ on: "names", change: { kind: "link", path, node } });
  }

  #unlink(path: string): void {
    this.#nodes.delete(path);
    this.#trace.push({ on: "names", change: { kind: "unlink", path } });
  }
}

function applyName(names: Map<string, Node>, change: NameChange): void {
  if (change.kind === "unlink") names.delete(change.path);
  else names.set(change.path, change.node);
  if (change.kind === "rename") names.delete(change.from);
}

function applyChange(
  contents: Map<Node, { bytes: Uint8Array; mode: number }>,
  node: Node,
  change: Change,
): void {
  const content = contents.get(node) ?? { bytes: new Uint8Array(), mode: node.mode };
  contents.set(node, content);
  if (change.kind === "chmod") content.mode = change.mode;
  else if (change.kind === "truncate") content.bytes = resized(content.bytes, change.size);
  else {
    const endByte = change.offset + change.bytes.length;
    if (endByte > content.bytes.length) content.bytes = resized(content.bytes, endByte);
    content.bytes.set(change.bytes, change.offset);
  }
}

function resized(bytes: Uint8Array, size: number): Uint8Array {
  const copy = new Uint8Array(size);
  copy.set(bytes.subarray(0, size));
  return copy;
}
