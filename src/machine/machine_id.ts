import { z } from "zod";
import { ShimError } from "../errors.ts";

/**
 * A checked machine id: one path component that is neither hidden nor `.` nor `..`, and a libvirt domain
 * name.
 */
export type MachineId = string & { readonly __brand: "MachineId" };

const GRAMMAR = /^[a-z0-9](?:[a-z0-9.-]{0,62}[a-z0-9])?$/;

/**
 * A machine's UUID, wherever one is given or told: all that has the form, whatever its version bits say. libvirt and
 * SMBIOS take it so, and callers have machines whose UUIDs came from elsewhere.
 */
export const machineUuid = z.guid();

export function isMachineId(text: string): text is MachineId {
  return GRAMMAR.test(text);
}

/** @throws {ShimError} REQUEST_INVALID */
export function parseMachineId(text: string): MachineId {
  if (isMachineId(text)) return text;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot use machine id ${
      JSON.stringify(text.slice(0, 100))
    }: must be 1 to 64 of a-z, 0-9, "." and "-", with a letter or digit at both ends`,
  );
}
