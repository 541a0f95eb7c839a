/** A start whose answer is lost, late or never comes: it happens at most once, and the truth is told. */
import { randomUUID } from "node:crypto";
import { beforeEach, describe, expect, it } from "vitest";

import { type OwnDomain, startDomain } from "../../src/agent/start_domain.ts";
import { LibvirtConnection } from "../../src/libvirt/connection.ts";
import { LibvirtSession } from "../../src/libvirt/libvirt_session.ts";
import { codeOf, failureOf } from "../support/failures.ts";
import { loadLibvirtStub } from "../support/libvirt_stub.ts";
import { randomWord } from "../support/random_word.ts";

const WORKER = new URL("../support/stub_worker.ts", import.meta.url);
const stub = loadLibvirtStub();

beforeEach(() => stub.reset());

function ownDomain(connect?: OwnDomain["connect"]): OwnDomain {
  const id = `vm-${randomWord()}`;
  return {
    id,
    xml: `<domain><name>${id}</name><uuid>${randomUUID()}</uuid></domain>`,
    connect: connect ?? (async (body) => {
      const connection = await LibvirtConnection.open("stub:///", {
        workerEntry: WORKER,
        callTimeoutMs: 1_000,
      });
      return await body(connection).finally(() => connection.close());
    }),
    find: (libvirt) => libvirt.findDomain(id),
    check: () => Promise.resolve(),
  };
}

function kept(domain: OwnDomain) {
  return domain.connect((libvirt) => libvirt.findDomain(domain.id));
}

describe("startDomain", () => {
  it("LV12 the answer of create is lost: libvirt is asked, and the one start found", async () => {
    stub.arm("virDomainCreate", "lost", 1);
    expect((await startDomain(ownDomain())).state).toBe("running");
    expect(stub.count("starts")).toBe(1);
  });

  it("LV12 create never answers and did nothing: told as unknown, not tried again, the definition stays", async () => {
    const domain = ownDomain();
    stub.arm("virDomainCreate", "hang", 1);
    const error = await failureOf(startDomain(domain));
    expect([error.code, error.details["outcome"], error.details["wasSent"]]).toEqual([
      "HYPERVISOR_TIMEOUT",
      "unknown",
      true,
    ]);
    expect([stub.count("starts"), (await kept(domain))?.state]).toEqual([0, "shut off"]);
    expect((await startDomain(domain)).state).toBe("running");
    expect(stub.count("starts")).toBe(1);
  });

  it("LV12 libvirt cannot be asked afterwards: unknown, after seconds and not for ever", async () => {
    const domain = ownDomain();
    stub.arm("virDomainCreate", "hang", 1);
    const failing = failureOf(startDomain(domain));
    // From now on nobody gets in; the connection that starts is open by the time that it is let go
    const open = setInterval(() => stub.count("calls") > 6 && stub.arm("virConnectOpen", "fail"), 20);
    const error = await failing;
    clearInterval(open);
    expect([error.code, error.details["outcome"]]).toEqual(["HYPERVISOR_TIMEOUT", "unknown"]);
    expect(stub.count("starts")).toBe(0);
  });

  it("LV12 through a session: lost, connected again by itself, and the one start found", async () => {
    const session = LibvirtSession.start("stub:///", { workerEntry: WORKER });
    try {
      await session.whenConnected(30_000);
      stub.arm("virDomainCreate", "lost", 1);
      expect((await startDomain(ownDomain((body) => body(session)))).state).toBe("running");
      expect(stub.count("starts")).toBe(1);
    } finally {
      await session.close();
    }
  });

  it("LV10 a start that fails takes back its own define, and not an earlier one", async () => {
    const domain = ownDomain();
    stub.arm("virDomainCreate", "fail", 2);
    expect(await codeOf(startDomain(domain))).toBe("DOMAIN_FAILED");
    expect(await kept(domain)).toBe(null);
    await domain.connect((libvirt) => libvirt.defineDomain(domain.xml));
    expect(await codeOf(startDomain(domain))).toBe("DOMAIN_FAILED");
    expect((await kept(domain))?.state).toBe("shut off");
  });

  it("LV12 two at once: one start", async () => {
    const domain = ownDomain();
    const states = await Promise.all([startDomain(domain), startDomain(domain)]);
    expect([states.map(({ state }) => state), stub.count("starts")]).toEqual([["running", "running"], 1]);
  });
});
