import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { ShimError } from "../errors.ts";
import { errnoOf, toIoError } from "../host/io_error.ts";

/** One descriptor that holds on this host. Its meaning is `hypervisor/firmware.ts`'s. */
export type FirmwareDescriptor = { readonly path: string; readonly json: unknown };

/** From the weakest to the strongest: a distribution's, the administrator's. */
const SYSTEM_FOLDERS = ["/usr/share/qemu/firmware", "/etc/qemu/firmware"];

/** Real ones have about 1 KiB. */
const MAX_BYTES = 1024 * 1024;

export type FirmwareDescriptorOptions = {
  /** `$XDG_CONFIG_HOME` (or `~/.config`), whose `qemu/firmware` is stronger than the system's folders. */
  readonly configHome?: string | undefined;
  /** The system's folders, from the weakest to the strongest. */
  readonly systemFolders?: readonly string[];
};

/**
 * The host's UEFI firmware descriptors, the preferred one first.
 *
 * A file hides those of the same name in weaker folders; an empty file (or a link to /dev/null) hides them and says
 * nothing itself. What remains is in the order of the file names, wherever the files lie.
 *
 * @throws {ShimError} CONFIG_INVALID when a descriptor that counts is not JSON or is not a plain file of sane size
 * @throws {ShimError} IO_ERROR when a folder or file that is there cannot be read
 * @see https://www.qemu.org/docs/master/interop/firmware.json: "Firmware metadata files", as of QEMU 7.2
 */
export async function readFirmwareDescriptors(
  options: FirmwareDescriptorOptions = {},
): Promise<FirmwareDescriptor[]> {
  const { configHome, systemFolders = SYSTEM_FOLDERS } = options;
  const folders = [
    ...systemFolders,
    ...(configHome === undefined ? [] : [join(configHome, "qemu/firmware")]),
  ];
  const strongest = new Map<string, string>();
  for (const folder of folders) {
    for (const name of await listDescriptors(folder)) strongest.set(name, join(folder, name));
  }
  const descriptors: FirmwareDescriptor[] = [];
  // By code unit, as in the C locale: the order must not depend on who runs us.
  for (const [, path] of [...strongest].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const text = await readDescriptor(path);
    if (text !== "") descriptors.push({ path, json: parse(text, path) });
  }
  return descriptors;
}

async function listDescriptors(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).filter((name) => name.endsWith(".json"));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw toIoError(error, { action: "list firmware descriptors", path: folder });
  }
}

async function readDescriptor(path: string): Promise<string> {
  try {
    const status = await stat(path);
    // A link to /dev/null is the documented way to hide a descriptor; reading other devices or pipes may never end.
    if (status.isCharacterDevice()) return "";
    if (!status.isFile() || status.size > MAX_BYTES) {
      refuse(path, `not a plain file of at most ${MAX_BYTES} bytes`);
    }
    return await readFile(path, "utf8");
  } catch (error) {
    throw toIoError(error, { action: "read a firmware descriptor", path });
  }
}

function parse(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    return refuse(path, "not JSON", cause);
  }
}

function refuse(path: string, why: string, cause?: unknown): never {
  throw new ShimError("CONFIG_INVALID", `Cannot read firmware descriptor "${path}": it is ${why}`, {
    cause,
    details: { remedy: "correct it, or hide it by an empty file of the same name in /etc/qemu/firmware" },
  });
}
