/** What cloud-init's NoCloud source reads, by its own names. */
export type SeedFile = { readonly name: "meta-data" | "user-data"; readonly bytes: Uint8Array };

const SECTOR_BYTES = 2048;
/** ECMA-119 section 6.2.1: the first 16 sectors belong to the system. */
const VOLUME_SECTOR = 16;
const TERMINATOR_SECTOR = 17;
const LITTLE_PATH_TABLE_SECTOR = 18;
const BIG_PATH_TABLE_SECTOR = 19;
const ROOT_SECTOR = 20;
const FIRST_FILE_SECTOR = 21;
/** What writers of discs append: readers that probe by large blocks (busybox's among them) pass over a shorter volume. */
const PADDING_SECTORS = 150;
/** One path table entry: the root's. */
const PATH_TABLE_BYTES = 10;
const IS_DIRECTORY = 2;

/**
 * Gives an ISO 9660 image labelled `cidata` with the files in its root, by which cloud-init knows its seed. Equal files
 * give equal bytes: there are no times in it.
 *
 * Our own page of code, because what makes such images are programs that a hypervisor host need not have. The names are
 * the relaxed ones of every reader in use (lower case, a hyphen, nine letters), so no extension has to repeat them.
 *
 * @see https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
 * @see ECMA-119, 4th edition, sections 8.4 (volume descriptor) and 9.1 (directory record)
 */
export function renderNoCloudSeed(files: readonly SeedFile[]): Uint8Array {
  const placed: (SeedFile & { readonly sector: number })[] = [];
  let sector = FIRST_FILE_SECTOR;
  for (const file of [...files].sort((a, b) => a.name < b.name ? -1 : 1)) {
    placed.push({ ...file, sector });
    sector += Math.ceil(file.bytes.length / SECTOR_BYTES);
  }
  const image = new Uint8Array((sector + PADDING_SECTORS) * SECTOR_BYTES);
  const at = (index: number) => image.subarray(index * SECTOR_BYTES);
  writeVolumeDescriptor(at(VOLUME_SECTOR), sector + PADDING_SECTORS);
  at(TERMINATOR_SECTOR).set([255, ...ascii("CD001"), 1]);
  writePathTable(at(LITTLE_PATH_TABLE_SECTOR), true);
  writePathTable(at(BIG_PATH_TABLE_SECTOR), false);
  let offset = 0;
  const records = [
    rootRecord("\0"),
    rootRecord("\x01"),
    ...placed.map(({ name, bytes, sector }) =>
      directoryRecord({ sector, sizeBytes: bytes.length, flags: 0, identifier: `${name}.;1` })
    ),
  ];
  for (const record of records) {
    at(ROOT_SECTOR).set(record, offset);
    offset += record.length;
  }
  for (const { bytes, sector } of placed) at(sector).set(bytes);
  return image;
}

function writeVolumeDescriptor(sector: Uint8Array, sectors: number): void {
  const view = viewOf(sector);
  sector.set([1, ...ascii("CD001"), 1]);
  sector.set(ascii(" ".repeat(32)), 8);
  sector.set(ascii("cidata".padEnd(32)), 40);
  setBoth32(view, 80, sectors);
  // One volume of a set of one, in logical blocks of 2,048 bytes.
  for (const offset of [120, 124]) setBoth16(view, offset, 1);
  setBoth16(view, 128, SECTOR_BYTES);
  setBoth32(view, 132, PATH_TABLE_BYTES);
  view.setUint32(140, LITTLE_PATH_TABLE_SECTOR, true);
  view.setUint32(148, BIG_PATH_TABLE_SECTOR, false);
  sector.set(rootRecord("\0"), 156);
  // Set, publisher, preparer, application and the names of three files: none.
  sector.set(ascii(" ".repeat(813 - 190)), 190);
  // Four dates of 16 digits and a zone: digits of "0" mean not specified.
  for (let date = 813; date < 881; date += 17) sector.set(ascii("0".repeat(16)), date);
  sector[881] = 1;
}

function writePathTable(sector: Uint8Array, isLittle: boolean): void {
  const view = viewOf(sector);
  sector[0] = 1;
  view.setUint32(2, ROOT_SECTOR, isLittle);
  view.setUint16(6, 1, isLittle);
}

function rootRecord(identifier: string): Uint8Array {
  return directoryRecord({ sector: ROOT_SECTOR, sizeBytes: SECTOR_BYTES, flags: IS_DIRECTORY, identifier });
}

function directoryRecord(
  { sector, sizeBytes, flags, identifier }: {
    readonly sector: number;
    readonly sizeBytes: number;
    readonly flags: number;
    readonly identifier: string;
  },
): Uint8Array {
  // Every record has an even length.
  const record = new Uint8Array(33 + identifier.length + (identifier.length % 2 === 0 ? 1 : 0));
  const view = viewOf(record);
  record[0] = record.length;
  setBoth32(view, 2, sector);
  setBoth32(view, 10, sizeBytes);
  record[25] = flags;
  setBoth16(view, 28, 1);
  record[32] = identifier.length;
  record.set(ascii(identifier), 33);
  return record;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** ECMA-119 section 7.3.3: a number in both byte orders. */
function setBoth32(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value, true);
  view.setUint32(offset + 4, value, false);
}

function setBoth16(view: DataView, offset: number, value: number): void {
  view.setUint16(offset, value, true);
  view.setUint16(offset + 2, value, false);
}

function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
