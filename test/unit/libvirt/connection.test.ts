import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";

import { LibvirtConnection } from "../../../src/libvirt/connection.ts";
import { rejectionOf } from "../../support/failures.ts";

const SCRIPTED = new URL("./scripted_worker.ts", import.meta.url);

function openScripted(callTimeoutMs = 10_000): Promise<LibvirtConnection> {
  return LibvirtConnection.open("test:///default", { workerEntry: SCRIPTED, callTimeoutMs });
}

const GIVEN_UP = { remedy: "open a new connection" };

describe("LibvirtConnection", () => {
  it("gives the worker's failure with code, message and details, and goes on", async () => {
    const connection = await openScripted();
    expect(await rejectionOf(connection.startDomain("fail"))).toEqual({
      code: "MACHINE_NOT_FOUND",
      message: "Cannot start domain: scripted",
      details: { libvirtCode: 42, libvirtDomain: 10 },
    });
    expect(await connection.startDomain("fine")).toBe(undefined);
    await connection.close();
  });

  it("gives up a hung call, tells which calls were sent, and takes no more", async () => {
    const connection = await openScripted(300);
    const outcomes = await Promise.all([
      rejectionOf(connection.startDomain("hang")),
      rejectionOf(connection.destroyDomain("fine")),
    ]);
    expect(outcomes).toEqual([
      {
        code: "HYPERVISOR_TIMEOUT",
        message: 'Cannot finish libvirt call "startDomain": no answer within 300 ms',
        details: {
          wasSent: true,
          timeoutMs: 300,
          remedy: expect.stringContaining("systemctl status libvirtd"),
        },
      },
      {
        code: "HYPERVISOR_TIMEOUT",
        message: 'Cannot make libvirt call "destroyDomain": "startDomain" before it hung',
        details: { wasSent: false, timeoutMs: 300 },
      },
    ]);
    expect(await rejectionOf(connection.startDomain("fine"))).toEqual({
      code: "HYPERVISOR_UNAVAILABLE",
      message: 'Cannot call libvirt: it was given up after "startDomain" hung',
      details: GIVEN_UP,
    });
    await connection.close();
  });

  it("counts a call's limit from when it is sent", async () => {
    const connection = await openScripted(2_000);
    const calls = Array.from({ length: 500 }, () => connection.startDomain("fine"));
    expect(await Promise.all(calls)).toEqual(calls.map(() => undefined));
    await connection.close();
  });

  it.each([
    ["crash", "the thread failed"],
    ["end", "the thread ended"],
    ["nonsense", "the thread sent what cannot be read"],
    ["other id", "the thread answered another call"],
  ])("a worker that does %j fails every call that waits", async (name, reason) => {
    const connection = await openScripted();
    const outcomes = await Promise.all([
      rejectionOf(connection.startDomain(name)),
      rejectionOf(connection.destroyDomain("fine")),
    ]);
    expect(outcomes).toEqual([
      {
        code: "INTERNAL",
        message: `Cannot finish libvirt call "startDomain": ${reason}`,
        details: { wasSent: true },
      },
      {
        code: "INTERNAL",
        message: `Cannot finish libvirt call "destroyDomain": ${reason}`,
        details: { wasSent: false },
      },
    ]);
    expect(await rejectionOf(connection.startDomain("fine"))).toEqual({
      code: "HYPERVISOR_UNAVAILABLE",
      message: `Cannot call libvirt: ${reason}`,
      details: GIVEN_UP,
    });
    await connection.close();
  });

  it("refuses a result of another shape", async () => {
    const connection = await openScripted();
    expect(await rejectionOf(connection.findDomain("wrong shape"))).toEqual({
      code: "INTERNAL",
      message: 'Cannot read answer to "findDomain": its shape is unknown',
      details: {},
    });
    await connection.close();
  });

  it("close lets earlier calls finish, refuses later ones, and may be repeated", async () => {
    const connection = await openScripted();
    const earlier = connection.startDomain("fine");
    const closing = connection.close();
    const later = rejectionOf(connection.startDomain("fine"));
    expect(await Promise.all([earlier, closing, connection.close()])).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect((await later).message).toBe("Cannot call libvirt: the connection is closed");
  });

  it("LV18 loads neither koffi nor the bindings on the main thread", async () => {
    const seen = new Map<string, string>();
    const left = ["connection.ts", "libvirt_session.ts"].map((name) =>
      new URL(`../../../src/libvirt/${name}`, import.meta.url)
    );
    for (let file = left.pop(); file !== undefined; file = left.pop()) {
      if (seen.has(file.pathname)) continue;
      const text = await readFile(file, "utf8");
      seen.set(file.pathname, text);
      const imports = text.matchAll(/^import (?!type)[^;]* from "([^"]+)";/gm);
      for (const [, path = ""] of imports) {
        expect(path).not.toBe("koffi");
        if (path.startsWith(".")) left.push(new URL(path, file));
      }
    }
    const names = [...seen.keys()].map((path) => path.slice(path.lastIndexOf("/") + 1));
    expect(names.sort()).toEqual([
      "connection.ts",
      "domain_control.ts",
      "domain_event.ts",
      "domain_status.ts",
      "errors.ts",
      "libvirt_error.ts",
      "libvirt_session.ts",
      "libvirt_thread.ts",
      "release_thread.ts",
      "reply.ts",
    ]);
  });
});
