import { describe, expect, it } from "vitest";

import { loadLibvirt } from "../../../src/libvirt/load_libvirt.ts";
import { refusalOf } from "../../support/failures.ts";

describe("loadLibvirt", () => {
  it("LV01 says which library is missing and what brings it", () => {
    const error = refusalOf(() => loadLibvirt("libvirt-that-is-not-there.so.0"));
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
    const error = refusalOf(() => loadLibvirt("libc.so.6"));
    expect({ code: error.code, message: error.message, details: error.details }).toEqual({
      code: "HYPERVISOR_LIBRARY_MISSING",
      message: 'Cannot use libvirt: "libc.so.6" lacks "virSetErrorFunc", libvirt 9.0 or later was expected',
      details: { library: "libc.so.6", symbol: "virSetErrorFunc", remedy: "apt-get install libvirt0" },
    });
  });
});
