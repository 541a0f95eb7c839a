import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { join } from "node:path";
import { ShimError } from "../errors.ts";

/** All a program finds in its environment: nothing of ours leaks into it. */
export type ProgramEnvironment = { readonly PATH: string; readonly LANG: string; readonly TMPDIR?: string };

/** Messages in English, because errors quote them; the system's own folders, because we may be root. */
export const STANDARD_ENVIRONMENT: ProgramEnvironment = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  LANG: "C.UTF-8",
};

/** Where the programs we need come from. */
const PACKAGES: Readonly<Record<string, string>> = {
  "qemu-system-x86_64": "qemu-system-x86",
  "qemu-system-aarch64": "qemu-system-arm",
  "qemu-img": "qemu-utils",
  swtpm: "swtpm",
  swtpm_setup: "swtpm-tools",
  prlimit: "util-linux",
  setpriv: "util-linux",
};

/**
 * Gives a program's absolute path, or null when it is not installed.
 *
 * @param name a bare name, looked up in `environment.PATH`, or an absolute path
 */
export async function findProgram(name: string, environment = STANDARD_ENVIRONMENT): Promise<string | null> {
  const candidates = name.includes("/")
    ? [name]
    : environment.PATH.split(":").map((folder) => join(folder, name));
  for (const path of candidates) {
    if (path.startsWith("/") && await isExecutable(path)) return path;
  }
  return null;
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    // Not there, not ours to run, not reachable: no program here, whichever it is.
    return false;
  }
}

/** @throws {ShimError} HYPERVISOR_UNAVAILABLE when it is not installed */
export async function requireProgram(name: string, environment = STANDARD_ENVIRONMENT): Promise<string> {
  const path = await findProgram(name, environment);
  if (path !== null) return path;
  const packageName = PACKAGES[name];
  const remedy = packageName ? `apt-get install ${packageName}` : `install "${name}", or correct its path`;
  throw new ShimError(
    "HYPERVISOR_UNAVAILABLE",
    `Cannot run "${name}": no executable by that name in "${environment.PATH}"`,
    { details: { program: name, remedy } },
  );
}
