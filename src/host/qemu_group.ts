import { readFile } from "node:fs/promises";
import { effectiveUserId } from "./file_system.ts";
import { errnoOf, withIoErrors } from "./io_error.ts";

/** The users libvirt runs QEMU as: Debian's, then the other distributions'. */
const QEMU_USERS = ["libvirt-qemu", "qemu"];

/**
 * The group through which QEMU may read what bootshim owns.
 *
 * @returns null when this process is not root (it could not give files away, and then runs QEMU as itself),
 *   or when the host has no QEMU user
 * @throws {ShimError} IO_ERROR when /etc/passwd or /etc/group cannot be read
 */
export async function qemuGroupId(): Promise<number | null> {
  if (effectiveUserId() !== 0) return null;
  return qemuGroupOf(await readAccounts("/etc/passwd"), await readAccounts("/etc/group"));
}

/**
 * Picks the group from passwd(5) and group(5) text: the one named as QEMU's user, because that is its own
 * (Debian's libvirt-qemu has `kvm` as primary group, and people are put in there to use /dev/kvm); else the
 * primary group.
 */
export function qemuGroupOf(passwd: string, group: string): number | null {
  const users = fieldsByName(passwd);
  const groups = fieldsByName(group);
  for (const name of QEMU_USERS) {
    const user = users.get(name);
    if (user) return idOf(groups.get(name)?.[2]) ?? idOf(user[3]);
  }
  return null;
}

/** Lines of colon-separated fields; as in getent(1), the first line of a name counts. */
function fieldsByName(text: string): Map<string, string[]> {
  const lines = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    const fields = line.split(":");
    const [name = ""] = fields;
    if (name !== "" && !name.startsWith("#") && !lines.has(name)) lines.set(name, fields);
  }
  return lines;
}

function idOf(field: string | undefined): number | null {
  return field !== undefined && /^[0-9]{1,10}$/.test(field) ? Number(field) : null;
}

async function readAccounts(path: string): Promise<string> {
  return await withIoErrors({ action: "find QEMU's group", path }, async () => {
    try {
      return await readFile(path, "utf8");
    } catch (error) {
      // A host without the file keeps its accounts elsewhere: no QEMU user is known there.
      if (errnoOf(error) === "ENOENT") return "";
      throw error;
    }
  });
}
