import { readFile } from "node:fs/promises";
import { ShimError } from "../errors.ts";
import { errnoOf, withIoErrors } from "./io_error.ts";

/** Lines of colon-separated fields by their first; as in getent(1), the first line of a name counts. */
export function fieldsByName(text: string): Map<string, string[]> {
  const lines = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    const fields = line.split(":");
    const [name = ""] = fields;
    if (name !== "" && !name.startsWith("#") && !lines.has(name)) lines.set(name, fields);
  }
  return lines;
}

/** A user's or group's number as such a line has it. */
export function idOf(field: string | undefined): number | null {
  return field !== undefined && /^[0-9]{1,10}$/.test(field) ? Number(field) : null;
}

/** passwd(5) or group(5) text; empty on a host that keeps its accounts elsewhere. @throws {ShimError} IO_ERROR */
export async function readAccounts(path: string): Promise<string> {
  return await withIoErrors({ action: "read accounts", path }, async () => {
    try {
      return await readFile(path, "utf8");
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return "";
      throw error;
    }
  });
}

/** The number of a group that is given by its name, or already by its number. @throws {ShimError} REQUEST_INVALID */
export async function groupIdOf(name: string): Promise<number> {
  const id = idOf(name) ?? idOf(fieldsByName(await readAccounts("/etc/group")).get(name)?.[2]);
  if (id !== null) return id;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot use group ${JSON.stringify(name)}: this host has none of that name`,
  );
}
