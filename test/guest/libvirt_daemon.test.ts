import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { parseCapabilities, parseDomainCapabilities } from "../../src/libvirt/capabilities.ts";
import { LibvirtConnection } from "../../src/libvirt/connection.ts";
import { rejectionOf } from "../support/failures.ts";
import { type LibvirtDaemons, startLibvirtDaemons } from "../support/libvirt_daemon.ts";
import { startPrivateLibvirtd } from "../support/private_libvirtd.ts";

/** QEMU starts in about a second; a loaded machine and libvirt's first look at its QEMUs take longer. */
const SLOW_MS = 120_000;

/** A machine with nothing but a CPU: it runs its firmware and finds nothing to boot. */
function domainXml(options: { name: string; uuid: string; extra?: string }): string {
  return `<domain type='qemu'><name>${options.name}</name><uuid>${options.uuid}</uuid><memory unit='MiB'>64</memory>` +
    `<os><type arch='x86_64' machine='q35'>hvm</type></os>${options.extra ?? ""}</domain>`;
}

describe("LibvirtConnection on qemu:///system", () => {
  let daemons: LibvirtDaemons;
  let connection: LibvirtConnection;

  beforeAll(async () => {
    daemons = await startLibvirtDaemons();
    connection = await LibvirtConnection.open(daemons.uri, { callTimeoutMs: SLOW_MS });
  }, 2 * SLOW_MS);

  afterAll(async () => {
    await connection?.close();
    await daemons?.stop();
  });

  it("defines, starts, destroys and undefines a domain", async () => {
    const name = `bootshim-test-${randomUUID()}`;
    const uuid = randomUUID();
    const off = { name, uuid, state: "shut off", shutOffReason: "unknown", id: null, isPersistent: true };
    expect(await connection.defineDomain(domainXml({ name, uuid }))).toEqual(off);
    try {
      // The same name and UUID: replaced
      expect(await connection.defineDomain(domainXml({ name, uuid }))).toEqual(off);
      expect((await connection.listDomains()).filter((status) => status.name === name)).toEqual([off]);
      expect(await connection.domainXml(name)).toContain(`<uuid>${uuid}</uuid>`);

      expect(await rejectionOf(connection.destroyDomain(name))).toEqual({
        code: "CONFLICT",
        message: `Cannot destroy domain "${name}": libvirt reports ` +
          '"Requested operation is not valid: domain is not running"',
        details: { libvirtCode: 55, libvirtDomain: 20 },
      });

      await connection.startDomain(name);
      try {
        expect(await connection.findDomain(name)).toEqual({
          ...off,
          state: "running",
          shutOffReason: null,
          id: expect.any(Number),
        });
        expect(await rejectionOf(connection.startDomain(name))).toEqual({
          code: "CONFLICT",
          message: `Cannot start domain "${name}": libvirt reports ` +
            '"Requested operation is not valid: domain is already running"',
          details: { libvirtCode: 55, libvirtDomain: 10 },
        });
        // The firmware does not listen: asking succeeds, and nothing follows
        await connection.shutdownDomain(name);
        expect((await connection.findDomain(name))?.state).toBe("running");
      } finally {
        await connection.destroyDomain(name);
      }
      expect(await connection.findDomain(name)).toEqual({ ...off, shutOffReason: "destroyed" });
    } finally {
      await connection.undefineDomain(name);
    }
    expect(await connection.findDomain(name)).toBe(null);
  }, SLOW_MS);

  it("refuses XML that libvirt does not accept, in libvirt's own words", async () => {
    const name = `bootshim-test-${randomUUID()}`;
    const element = `e${randomUUID()}`;
    const unknownElement = domainXml({ name, uuid: randomUUID(), extra: `<${element}/>` });
    const failures = [
      await rejectionOf(connection.defineDomain(unknownElement)),
      await rejectionOf(connection.defineDomain("<domain")),
      await rejectionOf(connection.defineDomain(domainXml({ name: "a/b", uuid: randomUUID() }))),
      await rejectionOf(connection.defineDomain(`<!-- ${"x".repeat(10 << 20)} -->`)),
    ];
    expect(failures.map(({ code, details }) => [code, details])).toEqual([
      ["DOMAIN_INVALID", { libvirtCode: 92, libvirtDomain: 5 }],
      ["DOMAIN_INVALID", { libvirtCode: 35, libvirtDomain: 20 }],
      ["DOMAIN_INVALID", { libvirtCode: 27, libvirtDomain: 20 }],
      ["DOMAIN_INVALID", { libvirtCode: 39, libvirtDomain: 7 }],
    ]);
    expect(failures[0]?.message).toContain(`Element domain has extra content: ${element}`);
    expect(failures[2]?.message).toBe(
      `Cannot define domain: libvirt reports "XML error: name a/b cannot contain '/'"`,
    );
    expect(await connection.findDomain(name)).toBe(null);
  }, SLOW_MS);

  it("LV09 gives CONFLICT for a name of another UUID and a UUID of another name", async () => {
    const name = `bootshim-test-${randomUUID()}`;
    const uuid = randomUUID();
    const { uuid: defined } = await connection.defineDomain(domainXml({ name, uuid }));
    try {
      const failures = [
        await rejectionOf(connection.defineDomain(domainXml({ name, uuid: randomUUID() }))),
        await rejectionOf(connection.defineDomain(domainXml({ name: `${name}-2`, uuid }))),
      ];
      expect(failures.map(({ code }) => code)).toEqual(["CONFLICT", "CONFLICT"]);
      expect((await connection.findDomain(name))?.uuid).toBe(defined);
    } finally {
      await connection.undefineDomain(name);
    }
  }, SLOW_MS);

  it("gives MACHINE_NOT_FOUND for each operation on a domain that is not there", async () => {
    const name = `bootshim-test-${randomUUID()}`;
    const failures = await Promise.all([
      rejectionOf(connection.startDomain(name)),
      rejectionOf(connection.shutdownDomain(name)),
      rejectionOf(connection.destroyDomain(name)),
      rejectionOf(connection.undefineDomain(name)),
      rejectionOf(connection.domainXml(name)),
    ]);
    expect(failures.map(({ code }) => code)).toEqual(failures.map(() => "MACHINE_NOT_FOUND"));
    for (const { message } of failures) {
      expect(message).toContain(`domain "${name}": libvirt reports "Domain not found`);
    }
  });

  it("reads the hypervisor's version and capabilities", async () => {
    expect(await connection.version()).toEqual({
      libraryVersion: expect.stringMatching(/^\d+\.\d+\.\d+$/),
      hypervisorVersion: expect.stringMatching(/^[1-9]\d*\.\d+\.\d+$/),
    });
    const guests = parseCapabilities(await connection.capabilitiesXml());
    expect(guests.find(({ architecture }) => architecture === "x86_64")).toEqual({
      architecture: "x86_64",
      virtualizationTypes: expect.arrayContaining(["qemu"]),
      machineTypes: expect.arrayContaining(["q35", "pc"]),
    });
    const domains = parseDomainCapabilities(await connection.domainCapabilitiesXml("x86_64", "qemu"));
    expect([domains.firmware, domains.maxCpus]).toEqual([["efi"], expect.any(Number)]);
  }, SLOW_MS);
});

describe("LibvirtConnection when libvirtd goes", () => {
  it(
    "LV04 a frozen libvirtd: the call times out, the main thread stays free, a new connection works after",
    async () => {
      const daemon = await startPrivateLibvirtd();
      try {
        const connection = await LibvirtConnection.open(daemon.uri, { callTimeoutMs: 2_000 });
        expect(await connection.listDomains()).toEqual([]);
        daemon.freeze();
        const pauses: number[] = [];
        let last = performance.now();
        const timer = setInterval(() => {
          pauses.push(performance.now() - last);
          last = performance.now();
        }, 1);
        const failure = await rejectionOf(connection.listDomains());
        clearInterval(timer);
        expect([failure.code, failure.message]).toEqual([
          "HYPERVISOR_TIMEOUT",
          'Cannot finish libvirt call "listDomains": no answer within 2000 ms',
        ]);
        expect(pauses.length).toBeGreaterThan(200);
        expect(Math.max(...pauses)).toBeLessThan(1_000);
        await connection.close();

        daemon.thaw();
        const next = await LibvirtConnection.open(daemon.uri);
        expect(await next.listDomains()).toEqual([]);
        await next.close();
      } finally {
        await daemon.stop();
      }
    },
    SLOW_MS,
  );

  it(
    "LV03 a killed libvirtd: every later call gives HYPERVISOR_UNAVAILABLE, close ends all the same",
    async () => {
      const daemon = await startPrivateLibvirtd();
      const connection = await LibvirtConnection.open(daemon.uri);
      await daemon.stop();
      const failures = [
        await rejectionOf(connection.listDomains()),
        await rejectionOf(connection.startDomain("any")),
        await rejectionOf(LibvirtConnection.open(daemon.uri)),
      ];
      expect(failures.map(({ code }) => code)).toEqual(failures.map(() => "HYPERVISOR_UNAVAILABLE"));
      await connection.close();
    },
    SLOW_MS,
  );
});
