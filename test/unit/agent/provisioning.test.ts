import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { makeEmptyDisks } from "../../../src/agent/empty_disks.ts";
import {
  checkProvisioning,
  makeProvisioning,
  MAX_PROVISIONING_BYTES,
  NO_PROVISIONING,
  recordedProvisioning,
} from "../../../src/agent/provisioning.ts";
import { nodeFileSystem } from "../../../src/host/file_system.ts";
import { codeOf, refusalOf } from "../../support/failures.ts";
import { randomWord } from "../../support/random_word.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const bytes = (text: string) => new TextEncoder().encode(text);
const place = () => ({
  directory: temporary(),
  place: "/machines/vm-1",
  fileSystem: nodeFileSystem,
  note: () => {},
});
const machine = { id: "vm-1", uuid: "0d5c9b0e-6e1f-4a8e-9d2c-3b7f1a2e4c55" };

describe("checkProvisioning", () => {
  it.each(["", "variant: fcos", "[]", '"x"', "null", "{"])(
    "refuses Ignition %j, and does not quote it",
    (text) => {
      const word = randomWord();
      const refusal = refusalOf(() =>
        checkProvisioning({ ...NO_PROVISIONING, ignition: bytes(`${text}${text === "{" ? word : ""}`) })
      );
      expect(refusal.code).toBe("REQUEST_INVALID");
      expect(JSON.stringify(refusal)).not.toContain(word);
    },
  );

  it.each(["ignition", "userData", "metadata"])("refuses %s over the limit", (what) => {
    const large = new Uint8Array(MAX_PROVISIONING_BYTES + 1);
    expect(refusalOf(() => checkProvisioning({ ...NO_PROVISIONING, [what]: large })).code).toBe(
      "LIMIT_EXCEEDED",
    );
  });

  it("accepts a JSON object and any user-data", () => {
    checkProvisioning({
      ignition: bytes('{"ignition":{"version":"3.4.0"}}'),
      userData: bytes("\0"),
      metadata: null,
    });
  });
});

describe("recordedProvisioning", () => {
  it("holds no content, and differs when the content does", () => {
    const word = randomWord();
    const one = recordedProvisioning({ ...NO_PROVISIONING, userData: bytes(word) });
    expect(JSON.stringify(one)).not.toContain(word);
    expect(one).not.toEqual(recordedProvisioning({ ...NO_PROVISIONING, userData: bytes(`${word}.`) }));
    expect(recordedProvisioning(NO_PROVISIONING)).toEqual({ ignition: null, userData: null, metadata: null });
  });
});

describe("makeProvisioning", () => {
  it("writes nothing when nothing is wished for", async () => {
    expect(await makeProvisioning(NO_PROVISIONING, machine, place())).toEqual({
      ignitionPath: null,
      seed: null,
    });
  });

  it("writes the Ignition file as it is, and a seed with both of cloud-init's files", async () => {
    const word = randomWord();
    const ignition = bytes(JSON.stringify({ word }));
    const made = await makeProvisioning(
      { ...NO_PROVISIONING, ignition, userData: bytes(word) },
      machine,
      place(),
    );
    expect(made.ignitionPath).toBe("/machines/vm-1/ignition.json");
    expect(new Uint8Array(await readFile(join(temporary(), "ignition.json")))).toEqual(ignition);
    const seed = await readFile(join(temporary(), "seed.iso"), "latin1");
    expect(made.seed).toMatchObject({
      role: "seed",
      path: "/machines/vm-1/seed.iso",
      readOnly: true,
      serial: "cidata",
      virtualSizeBytes: seed.length,
    });
    expect(seed).toContain(word);
    expect(seed).toContain(`instance-id: ${machine.uuid}\nlocal-hostname: vm-1\n`);
  });
});

describe("makeEmptyDisks", () => {
  it("makes each of whole sectors, without taking space", async () => {
    const disks = await makeEmptyDisks("data", [
      { sizeBytes: 2 ** 30, serial: "data1" },
      { sizeBytes: 1000, serial: "b" },
    ], place());
    expect(disks.map(({ path, virtualSizeBytes, serial }) => [path, virtualSizeBytes, serial])).toEqual([
      ["/machines/vm-1/data1.raw", 2 ** 30, "data1"],
      ["/machines/vm-1/data2.raw", 1024, "b"],
    ]);
    expect((await readFile(join(temporary(), "data2.raw"))).length).toBe(1024);
  });

  it.each(
    [
      ["of no size", [{ sizeBytes: 0, serial: "a" }], "LIMIT_EXCEEDED"],
      ["of an absurd size", [{ sizeBytes: 2 ** 52, serial: "a" }], "LIMIT_EXCEEDED"],
      ["of one serial", [{ sizeBytes: 1, serial: "a" }, { sizeBytes: 1, serial: "a" }], "REQUEST_INVALID"],
      ["of the boot disk's serial", [{ sizeBytes: 1, serial: "machineboot" }], "REQUEST_INVALID"],
      ["of the seed's serial", [{ sizeBytes: 1, serial: "cidata" }], "REQUEST_INVALID"],
      [
        "too many",
        Array.from({ length: 21 }, (_, index) => ({ sizeBytes: 1, serial: `d${index}` })),
        "REQUEST_INVALID",
      ],
    ] as const,
  )("refuses disks %s", async (_what, wishes, code) => {
    expect(await codeOf(makeEmptyDisks("data", wishes, place()))).toBe(code);
  });
});
