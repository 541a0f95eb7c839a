import { z } from "zod";

const object = z.looseObject({});

/** A disk or CD as its guest gets it: the device, and every file below it, the top one first. */
export type Drive = {
  readonly device: "disk" | "cdrom";
  readonly serial: string | null;
  readonly bootindex: number | null;
  readonly chain: readonly { readonly file: string; readonly format: string; readonly access: "ro" | "rw" }[];
};

/**
 * What two QEMU commands of one machine have in common, however each spells it and whatever else it adds: compared whole,
 * so a disk is one thing with its file, format, rights, serial and place in the order of boot.
 */
export function qemuEssentials(argv: readonly string[]) {
  const valueOf = (option: string) => argv.includes(option) ? argv[argv.indexOf(option) + 1] ?? null : null;
  const valuesOf = (option: string) => argv.filter((_word, index) => argv[index - 1] === option);
  const objectsOf = (option: string) =>
    valuesOf(option).flatMap((word) => word.startsWith("{") ? [object.parse(JSON.parse(word))] : []);
  const machine = propertiesOf(valueOf("-machine") ?? "");
  const nodes = objectsOf("-blockdev");
  const devices = objectsOf("-device");

  function chainOf(name: unknown): Drive["chain"] {
    const node = nodes.find((each) => each["node-name"] === name);
    if (node === undefined) return [];
    // A format node stands on the node of its file; whether the disk may be written is the format node's to say.
    const file = nodes.find((each) => each["node-name"] === node["file"]);
    const link = {
      file: String(file?.["filename"]),
      format: String(node["driver"]),
      access: node["read-only"] === true ? "ro" : "rw",
    } as const;
    return [link, ...chainOf(node["backing"])];
  }

  return {
    machine: /^(?:pc-)?(q35|virt)/.exec(machine.get("type") ?? "")?.[1] ?? null,
    acceleration: machine.get("accel") ?? valueOf("-accel"),
    // QEMU's own default is on.
    acpi: machine.get("acpi") !== "off" && !argv.includes("-no-acpi"),
    gicVersion: machine.get("gic-version") ?? null,
    systemManagementMode: machine.get("smm") === "on",
    firmware: [...chainOf(machine.get("pflash0")), ...chainOf(machine.get("pflash1"))],
    protectsVariables: valuesOf("-global").some((word) =>
      word.includes("cfi.pflash01") && /property=secure,value=on|\.secure=on|"secure"/.test(word)
    ),
    kernel: valueOf("-kernel"),
    initrd: valueOf("-initrd"),
    append: valueOf("-append"),
    uuid: valueOf("-uuid"),
    drives: devices.filter((device) => device["drive"] !== undefined).map((device): Drive => ({
      device: device["driver"] === "scsi-cd" ? "cdrom" : "disk",
      serial: typeof device["serial"] === "string" ? device["serial"] : null,
      // A kernel is started before any disk is tried, and libvirt numbers the first disk all the same.
      bootindex: !argv.includes("-kernel") && typeof device["bootindex"] === "number"
        ? device["bootindex"]
        : null,
      chain: chainOf(device["drive"]),
    })),
    networkAddresses: devices.flatMap((device) => typeof device["mac"] === "string" ? [device["mac"]] : []),
    tpms: devices.flatMap((device) => {
      const driver = String(device["driver"]);
      return driver.startsWith("tpm-") ? [driver] : [];
    }),
    ignition: argv.find((word) => word.startsWith("name=opt/com.coreos/config")) ?? null,
  };
}

/** `-machine`'s value; the first property may stand without its name. */
function propertiesOf(value: string): ReadonlyMap<string, string> {
  return new Map(
    value.split(",").map((property, index) => {
      const [key = "", rest] = property.split("=", 2);
      return index === 0 && rest === undefined ? ["type", key] : [key, rest ?? ""];
    }),
  );
}
