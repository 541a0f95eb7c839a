import { describe, expect, it } from "vitest";

import { ShimError } from "../../../src/errors.ts";
import { loadLibvirt } from "../../../src/libvirt/bindings.ts";

function failureOf(library: string): ShimError {
  try {
    loadLibvirt(library);
  } catch (error) {
    if (error instanceof ShimError) return error;
    throw error;
  }
  throw new Error("nothing failed");
}

describe("loadLibvirt", () => {
  it("LV01 says which library is missing and what brings it", () => {
    const error = failureOf("libvirt-that-is-not-there.so.0");
    expect({ code: error.code, message: error.message, details: error.details }).toEqual({
      code: "HYPERVISOR_LIBRARY_MISSING",
      message: 'Cannot use libvirt: "libvirt-that-is-not-there.so.0" cannot be loaded',
      details: {
        library: "libvirt-that-is-not-there.so.0",
        reason: expect.stringContaining("cannot open shared object file"),
        remedy: "apt-get install libvirt0",
      },
    });
  });

  it("LV01 says which symbol a library lacks", () => {
    const error = failureOf("libc.so.6");
    expect({ code: error.code, message: error.message, details: error.details }).toEqual({
      code: "HYPERVISOR_LIBRARY_MISSING",
      message: 'Cannot use libvirt: "libc.so.6" lacks "virSetErrorFunc", libvirt 9.0 or later was expected',
      details: { library: "libc.so.6", symbol: "virSetErrorFunc", remedy: "apt-get install libvirt0" },
    });
  });
});
