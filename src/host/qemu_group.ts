import { fieldsByName, idOf, readAccounts } from "./accounts.ts";
import { effectiveUserId } from "./file_system.ts";

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
