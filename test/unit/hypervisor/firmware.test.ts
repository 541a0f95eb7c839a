import { describe, expect, it } from "vitest";
import {
  chooseUefiFirmware,
  type FirmwareDescriptor,
  firmwareDescriptorSchema,
} from "../../../src/hypervisor/firmware.ts";

/** As Debian's 60-edk2-x86_64.json, with fields we do not know. */
function describeFirmware(change: Record<string, unknown> = {}): FirmwareDescriptor {
  return firmwareDescriptorSchema.parse({
    description: "UEFI firmware for x86_64",
    "interface-types": ["uefi"],
    mapping: {
      device: "flash",
      executable: { filename: "/f/code.fd", format: "raw" },
      "nvram-template": { filename: "/f/vars.fd", format: "raw" },
    },
    targets: [{ architecture: "x86_64", machines: ["pc-i440fx-*", "pc-q35-*"] }],
    features: ["acpi-s3", "amd-sev", "verbose-dynamic"],
    tags: [],
    "a-field-of-the-future": { x: 1 },
    ...change,
  });
}

const plain = describeFirmware();
const chosen = {
  firmware: {
    loaderPath: "/f/code.fd",
    loaderFormat: "raw",
    nvramTemplatePath: "/f/vars.fd",
    nvramTemplateFormat: "raw",
    secureBoot: false,
  },
};
const amd64 = { architecture: "amd64" } as const;
const arm64 = { architecture: "arm64" } as const;

describe("chooseUefiFirmware", () => {
  it("takes a plain UEFI flash image", () => expect(chooseUefiFirmware([plain], amd64)).toEqual(chosen));

  it("takes the first that will do", () => {
    const secure = describeFirmware({ features: ["requires-smm", "secure-boot"] });
    const other = describeFirmware({
      mapping: {
        device: "flash",
        mode: "split",
        executable: { filename: "/g/code.qcow2", format: "qcow2" },
        "nvram-template": { filename: "/g/vars.qcow2", format: "qcow2" },
      },
    });
    expect(chooseUefiFirmware([secure, other, plain], amd64)).toEqual({
      firmware: {
        loaderPath: "/g/code.qcow2",
        loaderFormat: "qcow2",
        nvramTemplatePath: "/g/vars.qcow2",
        nvramTemplateFormat: "qcow2",
        secureBoot: false,
      },
    });
  });

  it("matches architecture and machine of one target together", () => {
    const arm = describeFirmware({ targets: [{ architecture: "aarch64", machines: ["virt-*"] }] });
    const crossed = describeFirmware({
      targets: [{ architecture: "x86_64", machines: ["virt-*"] }, {
        architecture: "aarch64",
        machines: ["pc-q35-*"],
      }],
    });
    expect(chooseUefiFirmware([plain, crossed, arm], arm64)).toEqual(chosen);
    expect(chooseUefiFirmware([crossed, arm], amd64)).toMatchObject({ firmware: null });
  });

  it.each([
    ["*", true],
    ["pc-*", true],
    ["pc-q35-?.?", true],
    ["pc-q35", false],
    ["PC-Q35-*", false],
    [
      "pc.q35-*",
      false,
    ],
    ["[p]c-q35-*", false],
    ["q35-*", false],
  ])("machine pattern %j fits q35: %s", (pattern, fits) => {
    const descriptor = describeFirmware({ targets: [{ architecture: "x86_64", machines: [pattern] }] });
    expect(chooseUefiFirmware([descriptor], amd64).firmware !== null).toBe(fits);
  });

  const flash = plain.mapping;
  it.each([
    [{ "interface-types": ["bios"] }, "is not UEFI"],
    [{ targets: [] }, "is not for pc-q35-7.2 on x86_64"],
    [{ features: ["secure-boot"] }, "has secure-boot"],
    [{ features: ["requires-smm", "enrolled-keys"] }, "has requires-smm, enrolled-keys"],
    [{ mapping: { ...flash, mode: "stateless" } }, "is not a flash image with a variable store"],
    [{ mapping: { ...flash, "nvram-template": undefined } }, "is not a flash image with a variable store"],
    [{ mapping: { device: "memory", filename: "/f/OVMF.fd" } }, "is not a flash image with a variable store"],
    [{ mapping: { ...flash, executable: { filename: "/f", format: "vmdk" } } }, "is neither raw nor qcow2"],
  ])("refuses %j and says why", (change, reason) => {
    expect(chooseUefiFirmware([describeFirmware(change)], amd64)).toEqual({
      firmware: null,
      reason: `"UEFI firmware for x86_64" ${reason}`,
    });
  });

  it("takes one that enforces Secure Boot only when asked to, and then with keys", () => {
    const unkeyed = describeFirmware({ features: ["requires-smm", "secure-boot"] });
    const keyed = describeFirmware({
      features: ["requires-smm", "secure-boot", "enrolled-keys"],
      mapping: { ...flash, executable: { filename: "/s/code.fd", format: "raw" } },
    });
    const secure = { ...amd64, secureBoot: true };
    expect(chooseUefiFirmware([plain, unkeyed, keyed], secure)).toEqual({
      firmware: { ...chosen.firmware, loaderPath: "/s/code.fd", secureBoot: true },
    });
    expect(chooseUefiFirmware([plain, unkeyed], secure)).toEqual({
      firmware: null,
      reason: '"UEFI firmware for x86_64" lacks secure-boot, enrolled-keys; ' +
        '"UEFI firmware for x86_64" lacks enrolled-keys',
    });
  });

  it("says so when there is nothing to choose from", () => {
    expect(chooseUefiFirmware([], arm64)).toEqual({
      firmware: null,
      reason: "the host describes no firmware",
    });
  });
});

describe("firmwareDescriptorSchema", () => {
  it.each([null, [], {}, { ...plain, targets: [{ architecture: 1 }] }, { ...plain, mapping: "flash" }])(
    "refuses %j",
    (json) => expect(firmwareDescriptorSchema.safeParse(json).success).toBe(false),
  );
});
