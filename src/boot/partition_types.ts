/** The type of the partition that firmware reads (UEFI 2.10, section 5.3.3). */
export const EFI_SYSTEM_PARTITION = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";

/**
 * Names of the types that systems for virtual machines are made of.
 *
 * @see https://uapi-group.org/specifications/specs/discoverable_partitions_specification/
 */
const GPT_TYPES: Readonly<Record<string, string>> = {
  [EFI_SYSTEM_PARTITION]: "EFI system partition",
  "21686148-6449-6E6F-744E-656564454649": "BIOS boot partition",
  "BC13C2FF-59E6-4262-A352-B275FD6F7172": "extended boot loader partition",
  "0FC63DAF-8483-4772-8E79-3D69D8477DE4": "Linux file system",
  "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709": "root (amd64)",
  "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5": "root verity (amd64)",
  "41092B05-9FC8-4523-994F-2DEF0408B176": "root verity signature (amd64)",
  "B921B045-1DF0-41C3-AF44-4C6F280D3FAE": "root (arm64)",
  "DF3300CE-D69F-4C92-978C-9BFB0F38D820": "root verity (arm64)",
  "6DB69DE6-29F4-4758-A7A5-962190F00CE3": "root verity signature (arm64)",
  "8484680C-9521-48C6-9C11-B0720656F69E": "/usr (amd64)",
  "77FF5F63-E7B6-4633-ACF4-1565B864C0E6": "/usr verity (amd64)",
  "E7BB33FB-06CF-4E81-8273-E543B413E2E2": "/usr verity signature (amd64)",
  "B0E01050-EE5F-4390-949A-9101B17104E9": "/usr (arm64)",
  "6E11A4E7-FBCA-4DED-B9E9-E1A512BB664E": "/usr verity (arm64)",
  "C23CE4FF-44BD-4B00-B2D4-B41B3419E02A": "/usr verity signature (arm64)",
  "933AC7E1-2EB4-4F13-B844-0E14E2AEF915": "/home",
  "3B8F8425-20E0-4F3B-907F-1A25A76F98E8": "/srv",
  "4D21B016-B534-45C2-A9FB-5C16E091FD2D": "/var",
  "7EC6F557-3BC5-4ACA-B293-16EF5DF639D1": "/var/tmp",
  "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F": "Linux swap",
  "E6D6D379-F507-44C2-A23C-238F2A3DF928": "Linux LVM",
  "A19D880F-05FC-4D3B-A006-743F0F84911E": "Linux RAID",
  "CA7D7CCB-63ED-4C53-861C-1742536059CC": "LUKS",
  "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7": "Microsoft basic data",
  "E3C9E316-0B5C-4DB8-817D-F92DF00215AE": "Microsoft reserved",
};

const MBR_TYPES: Readonly<Record<number, string>> = {
  0x01: "FAT12",
  0x04: "FAT16",
  0x05: "extended partition",
  0x06: "FAT16",
  0x07: "NTFS or exFAT",
  0x0b: "FAT32",
  0x0c: "FAT32",
  0x0e: "FAT16",
  0x0f: "extended partition",
  0x82: "Linux swap",
  0x83: "Linux file system",
  0x85: "extended partition",
  0x8e: "Linux LVM",
  0xee: "GPT protective",
  0xef: "EFI system partition",
  0xfd: "Linux RAID",
};

/** What the type of a GPT partition is called; null for a type that has no row. */
export function gptTypeName(guid: string): string | null {
  return Object.hasOwn(GPT_TYPES, guid) ? GPT_TYPES[guid] ?? null : null;
}

/** What the type of an MBR partition is called; null for a type that has no row. */
export function mbrTypeName(type: number): string | null {
  return MBR_TYPES[type] ?? null;
}
