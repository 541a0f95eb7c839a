import { describe, expect, it } from "vitest";

import type { ErrorCode } from "../../../src/errors.ts";
import { libvirtError, type LibvirtStep } from "../../../src/libvirt/libvirt_error.ts";

/** Failures seen with libvirt 9.0: step, virErrorNumber, virErrorDomain, text, our code. */
const SEEN: readonly [LibvirtStep, number, number, string, ErrorCode][] = [
  ["open", 38, 7, "Failed to connect socket to '/var/run/libvirt/libvirt-sock'", "HYPERVISOR_UNAVAILABLE"],
  ["open", 1, 7, "internal error: client socket is closed", "HYPERVISOR_UNAVAILABLE"],
  ["open", 5, 0, "no connection driver available for nonsense:///", "HYPERVISOR_UNAVAILABLE"],
  ["open", 45, 46, "authentication failed", "HYPERVISOR_UNAVAILABLE"],
  ["open", 1, 45, "internal error: Unable to parse URI ::::", "CONFIG_INVALID"],
  ["define", 92, 5, "XML document failed to validate against schema", "DOMAIN_INVALID"],
  ["define", 35, 20, "(domain_definition):1: Couldn't find end of Start Tag", "DOMAIN_INVALID"],
  ["define", 27, 20, "XML error: name a/b cannot contain '/'", "DOMAIN_INVALID"],
  ["define", 8, 10, "invalid argument: could not find capabilities", "DOMAIN_INVALID"],
  ["define", 39, 7, "Unable to encode message payload", "DOMAIN_INVALID"],
  ["define", 9, 20, "operation failed: domain 'x' already exists with uuid 1", "CONFLICT"],
  ["define", 38, 10, "Cannot check QEMU binary /nope", "DOMAIN_FAILED"],
  ["define", 88, 55, "access denied", "HYPERVISOR_UNAVAILABLE"],
  ["operate", 42, 10, "Domain not found", "MACHINE_NOT_FOUND"],
  ["operate", 67, 10, "unsupported configuration", "DOMAIN_INVALID"],
  ["operate", 55, 10, "Requested operation is not valid: domain is already running", "CONFLICT"],
  ["operate", 9, 20, "operation failed", "DOMAIN_FAILED"],
  ["operate", 8, 20, "invalid argument", "DOMAIN_FAILED"],
  ["operate", 28, 10, "domain exists already", "CONFLICT"],
  ["operate", 68, 10, "cannot acquire state change lock", "HYPERVISOR_TIMEOUT"],
  ["operate", 38, 7, "Cannot write data: Broken pipe", "HYPERVISOR_UNAVAILABLE"],
  ["operate", 1, 7, "internal error: client socket is closed", "HYPERVISOR_UNAVAILABLE"],
  ["operate", 1, 10, "internal error: process exited while connecting to monitor", "DOMAIN_FAILED"],
  ["operate", 4711, 10, "a number of a newer libvirt", "DOMAIN_FAILED"],
];

describe("libvirtError", () => {
  it.each(SEEN)("%s: number %i of part %i, %s, is %5$s", (step, code, domain, message, expected) => {
    const error = libvirtError({ code, domain, message }, { step, action: "act" });
    const { remedy, ...numbers } = error.details;
    expect({ code: error.code, message: error.message, numbers }).toEqual({
      code: expected,
      message: `Cannot act: libvirt reports "${message}"`,
      numbers: { libvirtCode: code, libvirtDomain: domain },
    });
    expect(typeof remedy === "string").toBe(["HYPERVISOR_UNAVAILABLE", "CONFIG_INVALID"].includes(expected));
  });
});
